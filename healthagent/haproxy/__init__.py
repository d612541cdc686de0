"""HAProxy in front of the nodes: write its configuration, and find the traps in one."""
