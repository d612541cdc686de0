"""A STAND-IN for the real agent: `/status` from what PostgreSQL says about its role, and a scripted verdict.

It knows no peers. What a test wants agents to conclude it says in words: `agents["pg1"].refuse("diverged")`.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from healthagent.demo.binaries import PostgresFailed
from healthagent.demo.postgres import Node


class StandInAgent:
    """The agent of one node, in a thread of this process. `cluster` and `name` may be lies."""

    def __init__(self, node: Node, cluster: str = "main") -> None:
        self.node = node
        self.name = node.name
        self.cluster = cluster
        self.reason: str | None = None
        agent = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(agent.status()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        self._handler = Answer
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.speak()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def refuse(self, reason: str) -> None:
        """Answer 503 with this reason from now on, whatever PostgreSQL says."""
        self.reason = reason

    def permit(self) -> None:
        """Answer by PostgreSQL's role again."""
        self.reason = None

    def silence(self) -> None:
        """Be gone: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def speak(self) -> None:
        """Be back on the same port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def status(self) -> dict[str, object]:
        role = self._role()
        primary = self.reason or {"primary": "primary", "replica": "not_primary"}.get(
            role or "", "postgres_down"
        )
        replica = self.reason or {"primary": "not_replica", "replica": "replica"}.get(
            role or "", "postgres_down"
        )
        return {
            "name": self.name,
            "cluster": self.cluster,
            "role": role,
            "verdicts": {
                "primary": {"ok": primary == "primary", "reason": primary, "detail": "as the test says"},
                "replica": {"ok": replica == "replica", "reason": replica, "detail": "as the test says"},
            },
        }

    def _role(self) -> str | None:
        if not self.node.is_running():
            return None
        try:
            [(recovering,)] = self.node.psql("SELECT pg_is_in_recovery()", timeout=1.0)
        except PostgresFailed:
            return None
        return "replica" if recovering == "t" else "primary"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.silence()
