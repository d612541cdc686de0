"""The part of the status page that changes: the cluster as a person thinks of it."""

from asyncio import sleep
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from healthagent import __version__
from healthagent.board import Board
from healthagent.core.conflict import spelled_signals
from healthagent.core.members import last_round
from healthagent.core.model import Instant, Reason, Role
from healthagent.events import Event
from healthagent.history import Shade, shade_of
from healthagent.server.page.markup import Html, join, tag
from healthagent.server.page.plot import mark
from healthagent.server.page.words import MEANINGS, SHADES, ago, lasting, listed, meaning, size, summary
from healthagent.server.patroni import in_maintenance
from healthagent.server.places import Place
from healthagent.standing import Standing

MATRIX = 9  # members; the table of who hears whom is for fewer eyes than that needs columns
USUAL = (Reason.NOT_PRIMARY, Reason.NOT_REPLICA, Reason.WITNESS)  # refusals that are as they should be
SIGNS = {"good": "\N{CHECK MARK}", "warn": "!", "bad": "\N{MULTIPLICATION X}"}


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that one rendering shows."""

    board: Board
    now: Instant
    wall: datetime
    standings: Sequence[Standing]
    left_out: int  # members beyond those that are shown
    alarms: Sequence[str]
    events: Sequence[Event]
    places: Mapping[str, Place]
    hour: Html  # the plot, which changes less often


async def live(seen: Seen) -> Html:
    """All of it; the script replaces what has changed. Checks are answered between two members."""
    cards = []
    for standing in seen.standings:
        cards.append(_card(standing, seen))
        await sleep(0)
    sections = (
        _alarms(seen),
        _members(seen, cards),
        seen.hour,
        tag("div", _who_hears_whom(seen), _facts(seen), class_="pair"),
        _events(seen),
    )
    return join(_head(seen), tag("main", *sections))


def title(seen: Seen) -> str:
    level, said = summary(seen.standings)
    return f"{SIGNS[level]} {seen.board.identity.cluster}: {said.partition('.')[0]}"


def _head(seen: Seen) -> Html:
    level, said = summary(seen.standings)
    members, present = seen.board.members(seen.now)
    identity = seen.board.identity
    return tag(
        "header",
        tag("p", "PostgreSQL cluster", class_="kicker"),
        tag("h1", identity.cluster),
        tag(
            "p",
            tag("span", SIGNS[level], class_="sign", aria_hidden="true"),
            tag("span", said, id="summary", role="status", aria_live="polite"),
            class_=f"summary {level}",
        ),
        tag(
            "p",
            f"As {identity.name} sees it at ",
            _clock(seen.wall),
            f". {present} of {members} members heard.",
            class_="dim",
        ),
    )


def _alarms(seen: Seen) -> Html | None:
    board, now = seen.board, seen.now
    said: list[Html] = [tag("li", alarm) for alarm in seen.alarms]
    if in_maintenance(board, now):
        until = board.memory.maintenance.until if board.memory.maintenance else None
        left = "until somebody ends it" if until is None else f"for {lasting(until - now)} more"
        said.append(tag("li", tag("strong", "Maintenance"), f": {board.identity.name} is out, {left}."))
    conflict = board.memory.conflict
    if conflict is not None:
        rivals = listed([str(rival.candidate) for rival in conflict.rivals])
        winner = (
            f"{conflict.winner} is the rightful one" if conflict.winner else "nothing tells which is right"
        )
        said.append(
            tag(
                "li",
                tag("strong", "Conflict"),
                f" of {board.identity.name} with {rivals}: {winner} ({spelled_signals(conflict.signals)}).",
            )
        )
    if not said:
        return None
    return _section("alarms", "What is wrong", tag("ul", *said))


def _members(seen: Seen, cards: Sequence[Html]) -> Html:
    more = tag("p", f"And {seen.left_out} more, see /status.") if seen.left_out else None
    return _section("nodes", "Nodes", tag("ul", *cards, class_="cards"), more)


def _card(standing: Standing, seen: Seen) -> Html:
    shade = shade_of(standing)
    role = "witness" if standing.witness else standing.role or "role unknown"
    timeline = f", timeline {standing.timeline}" if standing.timeline else ""
    place = seen.places.get(standing.entry)
    name: object = standing.name
    if place is not None and place.url.startswith(("http://", "https://")) and not standing.own:
        name = tag("a", standing.name, href=f"{place.url}/ui")
    here = tag("span", "this agent", class_="here") if standing.own else None
    return tag(
        "li",
        tag("h3", mark(shade), name, here),
        tag("p", f"{role}{timeline}", class_="role"),
        tag("p", tag("strong", _verdict(shade)), class_=f"verdict {_tone(shade)}"),
        tag("p", tag("code", standing.reason), " ", meaning(standing), class_="reason"),
        tag("dl", *_details(standing, seen)),
        class_=f"card {_tone(shade)}",
        id=f"node-{standing.entry}",
    )


def _verdict(shade: Shade) -> str:
    said = SHADES[shade]
    return said[0].upper() + said[1:]


def _tone(shade: Shade) -> str:
    if shade in (Shade.WRITES, Shade.READS, Shade.WITNESS):
        return "good" if shade is not Shade.WITNESS else "plain"
    return "bad" if shade is Shade.PRIMARY_REFUSED else "warn"


def _details(standing: Standing, seen: Seen) -> list[Html | None]:
    witness = standing.witness
    return [
        None if witness else _row("Writes", _yes(standing.writes)),
        None if witness else _row("Reads", _yes(standing.reads)),
        None if witness or standing.role is Role.PRIMARY else _row("Lag", _lag(standing)),
        _row("Follows", _follows(standing, seen)) if standing.upstream else None,
        _row("Hears", _hears(standing)) if standing.heard and standing.hears else None,
        _row("PostgreSQL", standing.address) if standing.address and not witness else None,
        _row("Last answer", "never" if standing.age is None else ago(standing.age))
        if not (standing.own and witness)
        else None,
    ]


def _row(name: str, value: object) -> Html:
    return tag("div", tag("dt", name), tag("dd", value))


def _yes(value: bool | None) -> str:
    return "unknown" if value is None else "yes" if value else "no"


def _lag(standing: Standing) -> str:
    if standing.lag_bytes is None:
        return "unknown"
    seconds = standing.lag_seconds
    return size(standing.lag_bytes) + (f", {seconds:.1f} s" if seconds else "")


def _follows(standing: Standing, seen: Seen) -> str:
    """By name, where a member says that this is its address."""
    names = [one.name for one in seen.standings if one.address == standing.upstream]
    return names[0] if len(names) == 1 else str(standing.upstream)


def _hears(standing: Standing) -> str:
    missed = [sight.name for sight in standing.hears if not sight.heard]
    if missed:
        return f"{len(standing.hears) - len(missed)} of {len(standing.hears)}, not {listed(missed)}"
    return "all others" if len(standing.hears) > 1 else standing.hears[0].name


def _who_hears_whom(seen: Seen) -> Html | None:
    """A table of listeners and heard; with many members the cards alone say it."""
    members = seen.standings
    if not 2 < len(members) <= MATRIX:
        return None
    head = tag("tr", tag("th", "hears", scope="col"), *(tag("th", one.name, scope="col") for one in members))
    rows = [
        tag("tr", tag("th", one.name, scope="row"), *(_heard(one, other) for other in members))
        for one in members
    ]
    table = tag(
        "table",
        tag("caption", "Each row is an agent, by what it says itself"),
        tag("thead", head),
        tag("tbody", *rows),
        class_="matrix",
    )
    return _section(
        "hearing",
        "Who hears whom",
        tag("div", table, class_="scroll", tabindex=0, role="group", aria_label="Who hears whom"),
    )


def _heard(one: Standing, other: Standing) -> Html:
    if one.entry == other.entry:
        return tag("td", "\N{EM DASH}", class_="self")
    if not one.heard:
        return tag("td", "?", tag("span", " unknown", class_="hidden"), class_="unknown")
    sight = next((sight for sight in one.hears if sight.name in (other.entry, other.name)), None)
    if sight is None:
        return tag("td", "?", tag("span", " unknown", class_="hidden"), class_="unknown")
    if sight.heard:
        return tag("td", "\N{CHECK MARK}", tag("span", " yes", class_="hidden"), class_="yes")
    return tag("td", "\N{MULTIPLICATION X}", tag("span", " no", class_="hidden"), class_="no")


def _events(seen: Seen) -> Html:
    rows = [_event(event, seen) for event in reversed(seen.events)]
    head = tag("tr", *(tag("th", name, scope="col") for name in ("When (UTC)", "What", "Why")))
    caption = tag(
        "caption",
        f"On {seen.board.identity.name}, the newest first; all of them: ",
        tag("a", "/events", href="/events"),
    )
    return _section(
        "events",
        "What happened",
        tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="events"),
    )


def _event(event: Event, seen: Seen) -> Html:
    age = event.age(seen.now)
    date, _, clock = event.at.partition("T")
    today = date == seen.wall.astimezone(UTC).date().isoformat()
    when = clock.partition(".")[0] if today else f"{date} {clock.partition('.')[0]}"
    what, tone = _what(event)
    by = f" by {event.who}" if event.who else ""
    because = f" ({event.why})" if event.why else ""
    why = event.detail or MEANINGS.get(event.reason, "")
    return tag(
        "tr",
        tag(
            "td",
            tag("time", when, datetime=event.at),
            tag("span", "" if age is None else ago(age), class_="dim"),
        ),
        tag("td", what, class_=tone),
        tag("td", tag("code", event.reason) if event.reason else None, " ", f"{why}{by}{because}"),
    )


def _what(event: Event) -> tuple[str, str]:
    if event.ok is None:
        return f"\N{BULLET} {event.kind}", "other"
    kind = {"primary": "writes", "replica": "reads"}.get(event.kind, event.kind)
    if event.ok:
        return f"{SIGNS['good']} {kind}", "yes"
    return (
        (f"\N{EN DASH} no {kind}", "other") if event.reason in USUAL else (f"{SIGNS['bad']} no {kind}", "no")
    )


def _facts(seen: Seen) -> Html:
    board, now = seen.board, seen.now
    memory, last = board.memory, last_round(board.view(now))
    marks = [
        f"timeline {timeline}"
        + ("" if memory.saved_high_water.get(system, 0) >= timeline else " (not yet saved)")
        for system, timeline in memory.high_water.items()
    ]
    snapshot = board.local.snapshot
    system = snapshot.system_identifier if snapshot else None
    rows = [
        _row("Served high-water mark", listed(marks) or "none: no node has served yet"),
        _row(
            "Last served here",
            "not since it is known"
            if memory.served is None
            else f"timeline {memory.served.timeline}, {ago(now - memory.served.at)}",
        ),
        _row("Yields to", str(memory.yields_to) if memory.yields_to else "nobody"),
        _row("Last round of peers", "none yet" if last is None else ago(now - last.ended_at)),
        _row("Maintenance", "on" if in_maintenance(board, now) else "off"),
        _row("Lease", "not in this mode"),
        _row("System identifier", str(system) if system else "unknown"),
        _row("Agent", f"healthagent {__version__}, up {lasting(now - memory.started_at)}"),
    ]
    links = [tag("li", tag("a", path, href=path)) for path in ("/status", "/events", "/metrics", "/cluster")]
    return _section(
        "agent", "This agent", tag("dl", *rows, class_="facts"), tag("ul", *links, class_="links")
    )


def _section(name: str, heading: str, *content: Html | None) -> Html:
    return tag("section", tag("h2", heading, id=f"h-{name}"), *content, id=name, aria_labelledby=f"h-{name}")


def _clock(wall: datetime) -> Html:
    at = wall.astimezone(UTC)
    return tag("time", at.strftime("%H:%M:%S UTC"), datetime=at.isoformat(timespec="seconds"))
