"""Values that are never shown."""

import hmac
import stat
from pathlib import Path

from healthagent.config.document import Flaw, Node, Rejected, Scalar
from healthagent.config.values import Schema

MAX_BYTES = 4096
HIDDEN = "***"


class Secret:
    """Text that no log, trace or message shows: only `reveal()` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __str__(self) -> str:
        return HIDDEN

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())


class SecretText:
    """A secret of at least `least` characters; what was given is never repeated."""

    __slots__ = ("least",)

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def parse(self, node: Node) -> Secret:
        if not isinstance(node, Scalar) or node.is_null:
            raise Rejected(Flaw("want text", line=node.line))
        return self.take(node.text, node.line)

    def take(self, text: str, line: int = 0) -> Secret:
        if not text:
            raise Rejected(Flaw("must not be empty", line=line))
        if len(text) < self.least:
            rule = f"must have at least {self.least} characters (openssl rand -hex 32 makes a good one)"
            raise Rejected(Flaw(rule, f"{len(text)} characters", line=line))
        if not text.isprintable() or len(text.encode()) > MAX_BYTES:
            raise Rejected(Flaw(f"want one printable line of at most {MAX_BYTES} bytes", line=line))
        return Secret(text)

    def read(self, path: Path) -> Secret:
        """Read a secret from a file; the newline at its end is not part of it."""
        try:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 2)
        except OSError as error:
            raise Rejected(Flaw(f"cannot be read: {error.strerror}", repr(str(path)))) from None
        try:
            text = content.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise Rejected(Flaw("must hold UTF-8 text", repr(str(path)))) from None
        if not text:
            raise Rejected(Flaw("must not be empty", repr(str(path))))
        return self.take(text)

    def spell(self, value: Secret) -> str:
        return f'"{value}"'

    @property
    def schema(self) -> Schema:
        return {"type": "string", "minLength": self.least}


def readable_by_all(path: Path) -> bool:
    """Say whether every user of this machine can read the file."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
