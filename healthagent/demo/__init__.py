"""Real PostgreSQL clusters on loopback, for `healthagent demo` and for the live tests."""
