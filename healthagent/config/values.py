"""The kinds of values: how each is written, read, and described.

A kind reads text whether it comes from the file, the environment or the command line, so
all three take the same spellings. `parse` raises Rejected; `spell` writes YAML that `parse`
reads back as the same value; `schema` is the JSON Schema of what the file may hold.
"""

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from healthagent.config.document import NULLS, Flaw, Node, Rejected, Scalar, quoted

Schema = dict[str, object]


class Kind(Protocol):
    @property
    def schema(self) -> Schema: ...

    def parse(self, node: Node) -> Any: ...  # each kind returns its own type; the table of keys is untyped

    def spell(self, value: Any) -> str: ...


def reject(rule: str, node: Node) -> NoReturn:
    raise Rejected(Flaw(rule, quoted(node), line=node.line))


def text_of(node: Node, want: str) -> str:
    if not isinstance(node, Scalar) or node.is_null:
        reject(want, node)
    return node.text


def either(words: Sequence[str]) -> str:
    """Join words as a sentence does: a, b or c."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


_SIMPLE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*", re.ASCII)
_WORDS = NULLS | {"true", "false", "yes", "no", "on", "off", "y", "n"}


def spell_text(text: str) -> str:
    """Write text as YAML, quoted wherever any YAML reader could take it for something else."""
    if _SIMPLE.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Text:
    """One printable line."""

    most: int = 63

    def parse(self, node: Node) -> str:
        want = f"want 1 to {self.most} printable characters without blanks at either end"
        text = text_of(node, want)
        if not 1 <= len(text) <= self.most or not text.isprintable() or text != text.strip():
            reject(want, node)
        return text

    spell = staticmethod(spell_text)

    @property
    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1, "maxLength": self.most}


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no, in the words that PostgreSQL takes too."""

    def parse(self, node: Node) -> bool:
        text = text_of(node, "want true or false").lower()
        if text in ("true", "yes", "on", "1"):
            return True
        if text in ("false", "no", "off", "0"):
            return False
        reject("want true or false", node)

    def spell(self, value: bool) -> str:
        return "true" if value else "false"

    @property
    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Integer:
    least: int
    most: int

    def parse(self, node: Node) -> int:
        want = f"want a whole number from {self.least} to {self.most}"
        text = text_of(node, want)
        if not re.fullmatch(r"\d{1,20}", text, re.ASCII) or not self.least <= int(text) <= self.most:
            reject(want, node)
        return int(text)

    def spell(self, value: int) -> str:
        return str(value)

    @property
    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?(ms|s|min|m|h)", re.ASCII)
_PER_SECOND = 1000
_UNIT_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}


def spell_duration(seconds: float) -> str:
    """Write seconds in the largest unit that keeps them short: 500ms, 3s, 1min, 1h."""
    if seconds >= 3600 and seconds % 3600 == 0:
        return f"{seconds / 3600:.0f}h"
    if seconds >= 60 and seconds % 60 == 0:
        return f"{seconds / 60:.0f}min"
    if 0 < seconds < 1:
        return f"{seconds * _PER_SECOND:.10g}ms"
    return f"{seconds:.12g}s"


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds, written as one number and one unit. A bare number is refused: of what?"""

    least: float
    most: float

    def parse(self, node: Node) -> float:
        want = "want a duration such as 3s (ms, s, min or h)"
        match = _DURATION.fullmatch(text_of(node, want))
        if match is None:
            reject(want, node)
        number, unit = float(match[1]), match[2]
        seconds = number / _PER_SECOND if unit == "ms" else number * _UNIT_SECONDS[unit]
        if not self.least <= seconds <= self.most:
            reject(f"want {spell_duration(self.least)} to {spell_duration(self.most)}", node)
        return seconds

    def spell(self, value: float) -> str:
        return spell_duration(value)

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^{_DURATION.pattern}$"}


_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?(B|kB|MB|GB|TB)?", re.ASCII)
_SIZES = {"TB": 1024**4, "GB": 1024**3, "MB": 1024**2, "kB": 1024, "B": 1}
_MOST_BYTES = 2**63 - 1  # an LSN goes no further


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes, in PostgreSQL's units of 1024."""

    def parse(self, node: Node) -> int:
        want = "want a size such as 16MB (B, kB, MB, GB or TB, case-sensitive)"
        match = _SIZE.fullmatch(text_of(node, want))
        if match is None:
            reject(want, node)
        number, scale = match[1], _SIZES[match[2] or "B"]
        size = round(float(number) * scale) if "." in number else int(number) * scale
        if size > _MOST_BYTES:
            reject("want 0B to 8388607TB, or null for no limit", node)
        return size

    def spell(self, value: int) -> str:
        scales = ((unit, scale) for unit, scale in _SIZES.items() if value and value % scale == 0)
        unit, scale = next(scales, ("B", 1))
        return f"{value // scale}{unit}"

    @property
    def schema(self) -> Schema:
        return {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": f"^{_SIZE.pattern}$"}]
        }


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; `str()` writes it as it is read, IPv6 in brackets."""

    host: str
    port: int

    @property
    def everywhere(self) -> bool:
        """Whether it is every address of a machine to listen on, and so none to be reached by."""
        return self.host in ("0.0.0.0", "::")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]@/]+)):(\d{1,5})", re.ASCII)


def is_host(text: str) -> bool:
    """Say whether this is an IP address or could be a DNS name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # A last label of digits is a mistyped IPv4 address, never a name.
        last = text.rstrip(".").rpartition(".")[2]
        return len(text) <= 253 and _HOST.fullmatch(text) is not None and not last.isdigit()
    return True


@dataclass(frozen=True, slots=True)
class HostPort:
    """`listening`: all addresses (0.0.0.0) and any free port (0) make sense only there."""

    listening: bool = False

    def parse(self, node: Node) -> Address:
        want = "want HOST:PORT such as " + ("0.0.0.0:8008" if self.listening else "10.0.0.11:5432")
        match = _ADDRESS.fullmatch(text_of(node, want))
        if match is None:
            reject(want, node)
        address = Address(match[1] or match[2], int(match[3]))
        if not is_host(address.host) or address.port > 65535:
            reject(want, node)
        if not self.listening and (address.port == 0 or address.everywhere):
            reject(f"{want}, as other nodes reach it", node)
        return address

    def spell(self, value: Address) -> str:
        return json.dumps(str(value)) if ":" in value.host else str(value)

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"^\S+:[0-9]{1,5}$"}


@dataclass(frozen=True, slots=True)
class AbsolutePath:
    most: int = 4095

    def parse(self, node: Node) -> Path:
        text = text_of(node, "want an absolute path")
        if not text.startswith("/") or not text.isprintable():
            reject("want an absolute path", node)
        if len(text.encode()) > self.most:
            reject(f"want a path of at most {self.most} bytes", node)
        return Path(text)

    def spell(self, value: Path) -> str:
        return spell_text(str(value))

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": "^/", "maxLength": self.most}


@dataclass(frozen=True, slots=True)
class Choice:
    words: tuple[str, ...]
    refused: Mapping[str, str] | None = None  # words of the language that this version does not speak

    def parse(self, node: Node) -> str:
        want = f"want {either(self.words)}"
        text = text_of(node, want)
        if self.refused and text in self.refused:
            reject(self.refused[text], node)
        if text not in self.words:
            reject(want, node)
        return text

    spell = staticmethod(spell_text)

    @property
    def schema(self) -> Schema:
        return {"enum": list(self.words)}
