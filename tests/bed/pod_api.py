"""The Kubernetes API as far as one pod goes: strict about all that a real one is strict about, over TLS."""

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bed.certificates import Certificates


@dataclass
class PodApi:
    """One pod, and what was asked of it."""

    token: str
    uid: str = "11111111-2222-3333-4444-555555555555"
    labels: dict[str, str] = field(default_factory=lambda: {"app": "postgres", "role": "primary"})
    deleted: dict[str, Any] | None = None
    forbidden: bool = False
    commands: list[str] = field(default_factory=list)  # of every process, at the moment of a request
    port: int = 0

    path = "/api/v1/namespaces/db/pods/pg1"

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, str]:
        """Status and message, as https://kubernetes.io/docs/reference/using-api/api-concepts/ has them."""
        self.commands += [
            command.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            for command in Path("/proc").glob("[0-9]*/cmdline")
            if command.exists()
        ]
        if headers["Authorization"] != f"Bearer {self.token}":
            return 401, "Unauthorized"
        if self.forbidden:
            return 403, f'pods "pg1" is forbidden: cannot {method.lower()} resource "pods"'
        if path != self.path or self.deleted is not None:
            return 404, "not found"
        content = json.loads(body)
        if method == "PATCH" and headers["Content-Type"] == "application/merge-patch+json":
            for name, value in content["metadata"]["labels"].items():
                if value is None:
                    self.labels.pop(name, None)
                else:
                    self.labels[name] = value
            return 200, "patched"
        if method == "DELETE" and headers["Content-Type"] == "application/json":
            if content["kind"] != "DeleteOptions" or content["apiVersion"] != "v1":
                return 400, "no DeleteOptions"
            if content["preconditions"]["uid"] != self.uid:
                return 409, "the UID in the precondition does not match"
            self.deleted = content
            return 200, "deleted"
        return 415, f"{method} of {headers['Content-Type']} is not understood"


@contextmanager
def serving(api: PodApi, certificates: Certificates) -> Iterator[PodApi]:
    """Answer on `api.port` of localhost until the end of the block."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, message = api.answer(self.command, self.path, self.headers, body)
            said = json.dumps({"kind": "Status", "message": message}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_PATCH = do_DELETE = _handle  # the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Say nothing: the test looks at `api`."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.pem("localhost"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    api.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
