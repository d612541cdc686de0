"""The HTTP face of the agent: answers from memory, whatever PostgreSQL and the peers do."""
