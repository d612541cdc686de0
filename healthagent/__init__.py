"""Health checks for PostgreSQL nodes that never send writes to two primaries."""

__version__ = "0.1.0"
