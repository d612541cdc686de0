"""/events: what happened on this node, the newest, or those after a number."""

from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import parse_qsl

import msgspec

from healthagent.board import Board
from healthagent.core.model import Instant
from healthagent.events import MOST, Event, Events
from healthagent.server.answers import Answer, refusal
from healthagent.server.patroni import Json
from healthagent.server.query import MAX_FIELDS, BadQuery

USUAL = 100  # events in an answer that asks for no limit
HIGHEST = (1 << 63) - 1  # of a number: those who read JSON with 64 bits keep up


def events_answer(board: Board, events: Events) -> Callable[[str, Instant], Answer]:
    """The answer to GET /events?since=SEQ&limit=N."""

    def answer(query: str, now: Instant) -> Answer:
        try:
            since, limit = _asked(query)
        except BadQuery as error:
            return refusal(HTTPStatus.BAD_REQUEST, str(error))
        found = events.newest(limit) if since is None else events.after(since, limit)
        body = {
            "name": board.identity.name,
            "cluster": board.identity.cluster,
            "incarnation": board.identity.incarnation,
            "first": events.first,
            "last": events.last,
            "events": [event_json(event, now) for event in found],
        }
        return Answer(HTTPStatus.OK, msgspec.json.encode(body))

    return answer


def event_json(event: Event, now: Instant) -> Json:
    age = event.age(now)
    return {
        "seq": event.seq,
        "at": event.at,
        "age": None if age is None else round(age, 3),
        "kind": event.kind,
        "ok": event.ok,
        "reason": event.reason,
        "detail": event.detail,
        "who": event.who,
        "why": event.why,
    }


def _asked(text: str) -> tuple[int | None, int]:
    """The values of `since` and `limit`; the first of a name wins, other names are ignored."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise BadQuery(f"query: at most {MAX_FIELDS} fields are read") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        values.setdefault(name, value)
    since = _number("since", values["since"], 0, HIGHEST) if "since" in values else None
    return since, _number("limit", values["limit"], 1, MOST) if "limit" in values else USUAL


def _number(name: str, text: str, least: int, most: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= len(str(HIGHEST)) and least <= int(text) <= most:
        return int(text)
    raise BadQuery(f"{name}: want a number from {least} to {most}, got {text[:40]!r}")
