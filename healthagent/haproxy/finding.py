"""One trap found in a configuration."""

from dataclasses import dataclass

from healthagent.haproxy.proxies import Proxy, Server
from healthagent.haproxy.syntax import Line

_LONGEST = 80


@dataclass(frozen=True, order=True)
class Finding:
    """Where a trap is, what stands there, why it matters and what to write instead."""

    line: int
    section: str
    what: str
    why: str
    fix: str

    def text(self) -> str:
        """Spell the finding in one line, without its file."""
        return f"{self.line}: {self.section}: {self.what}; {self.why}; {self.fix}"


def at_line(proxy: Proxy, line: Line, what: str, why: str, fix: str) -> Finding:
    """Report a line of a proxy, or one that it inherits."""
    owner = next(
        section
        for section in proxy.section.own_and_inherited()
        if any(own is line for own in section.by_start.get(_start(line), []))
    )
    return Finding(line.number, shown(owner.where()), what, why, fix)


def at_server(proxy: Proxy, server: Server, what: str, why: str, fix: str) -> Finding:
    """Report a server; `what` continues the sentence that its name begins."""
    return Finding(
        server.line, shown(proxy.section.where()), f"server `{shown(server.name)}` {what}", why, fix
    )


def _start(line: Line) -> tuple[str, ...]:
    return line.words[1:2] if line.starts("no") else line.words[:1]


def shown(text: str) -> str:
    """Return words of a stranger's file so that a terminal can bear them: printable, and not endless."""
    clean = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:_LONGEST]
    )
    return clean if len(text) <= _LONGEST else f"{clean}..."
