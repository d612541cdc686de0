"""The HTTP surface as OpenAPI 3.1: paths.py what is answered where, schemas.py with which bodies."""

from healthagent.openapi.paths import description

__all__ = ["description"]
