"""What is answered on which path: a table of questions, each answered by the board.

A handler has no opinion. It asks the board at this moment, and spells the verdict as a
status and a body; bodies without ages are rendered once per change of evidence.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from healthagent.board import Board
from healthagent.core.model import Instant, Reason, Role, Tag, Verdict
from healthagent.core.replica import Ask
from healthagent.server.patroni import Json, cluster_json, in_maintenance, node_json, shown_tags
from healthagent.server.places import Places, nowhere
from healthagent.server.query import BadQuery, Query, parse_query
from healthagent.server.status import status_json
from healthagent.statefile import Switch

JSON = "application/json"
MAX_RENDERED = 64  # bodies kept: one per verdict, far fewer in practice


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a body and the reason for the header."""

    status: int
    body: bytes
    content_type: str = JSON
    reason: str | None = None


Question = Callable[["Answers", Query, Instant], Verdict]


def _either(board: Board, now: Instant, reads: Callable[[], Verdict]) -> Verdict:
    """The primary's verdict on a primary, else the replica's: the one that belongs to the node's role."""
    primary = board.primary(now)
    if primary.ok or primary.reason is not Reason.NOT_PRIMARY:
        return primary
    return reads()


def _ask(query: Query) -> Ask:
    return Ask(query.limit, query.replication_state)


def _primary(answers: "Answers", _query: Query, now: Instant) -> Verdict:
    return answers.board.primary(now)


def _replica(answers: "Answers", query: Query, now: Instant) -> Verdict:
    return answers.tagged(answers.board.replica(now, _ask(query)), query)


def _read_only(answers: "Answers", query: Query, now: Instant) -> Verdict:
    board = answers.board
    return answers.tagged(_either(board, now, lambda: board.replica(now, _ask(query))), query)


def _attached(wanted: str) -> Question:
    def question(answers: "Answers", query: Query, now: Instant) -> Verdict:
        return answers.tagged(answers.board.attached(now, wanted, _ask(query)), query)

    return question


def _read_only_attached(wanted: str) -> Question:
    def question(answers: "Answers", query: Query, now: Instant) -> Verdict:
        board = answers.board
        verdict = _either(board, now, lambda: board.attached(now, wanted, _ask(query)))
        return answers.tagged(verdict, query)

    return question


def _standby_leader(_answers: "Answers", _query: Query, _now: Instant) -> Verdict:
    return Verdict(False, Reason.NOT_STANDBY_LEADER, "a standby cluster has no primary here")


def _health(answers: "Answers", query: Query, now: Instant) -> Verdict:
    return answers.tagged(answers.board.running(now), query)


def _readiness(answers: "Answers", query: Query, now: Instant) -> Verdict:
    board = answers.board
    ask = Ask(query.limit, readiness=True, received=query.received)
    return _either(board, now, lambda: board.replica(now, ask))


def _liveness(_answers: "Answers", _query: Query, _now: Instant) -> Verdict:
    # the event loop turns, or nobody would read this; restarting the agent would cure nothing else
    return Verdict(True, Reason.RUNNING, "the agent runs")


CHECKS: Mapping[str, Question] = {
    "/": _primary,
    "/primary": _primary,
    "/read-write": _primary,
    "/master": _primary,
    "/leader": _primary,
    "/replica": _replica,
    "/read-only": _read_only,
    "/synchronous": _attached("sync"),
    "/sync": _attached("sync"),
    "/asynchronous": _attached("async"),
    "/async": _attached("async"),
    "/quorum": _attached("quorum"),
    "/read-only-sync": _read_only_attached("sync"),
    "/read-only-synchronous": _read_only_attached("sync"),
    "/read-only-quorum": _read_only_attached("quorum"),
    "/standby-leader": _standby_leader,
    "/standby_leader": _standby_leader,
    "/health": _health,
    "/readiness": _readiness,
    "/liveness": _liveness,
}


class Answers:
    """Every GET of the agent, answered from memory."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.history: Sequence[Switch] = ()
        self.places: Places = nowhere
        self.alarms: Callable[[], list[str]] = list
        self.label: Callable[[Instant], Json | None] = lambda _now: None  # what Kubernetes is told
        self._rendered: dict[tuple[Verdict, bool, bool, bool, bool], Answer] = {}
        self._rendered_at = -1
        self.asked: dict[str, Callable[[str, Instant], Answer]] = {}  # those that read the query
        self.documents: dict[str, Callable[[Instant], object]] = {
            "/patroni": self._patroni,
            "/cluster": lambda now: cluster_json(self.board, self.places(), now),
            "/history": lambda _now: [_switch(one) for one in self.history],
            "/status": lambda now: (
                status_json(self.board, now, self.alarms()) | {"kubernetes": self.label(now)}
            ),
            "/lease": lambda _now: {"mode": "conflict", "held": False},  # no other mode exists yet
        }

    def paths(self) -> list[str]:
        """Every path that this table answers."""
        return [*CHECKS, *self.documents, *self.asked]

    def knows(self, path: str) -> bool:
        """Whether it is one of them."""
        return path in CHECKS or path in self.documents or path in self.asked

    def answer(self, path: str, query: str, now: Instant) -> Answer | None:
        """Answer a GET, or None for a path that is not of this table."""
        question = CHECKS.get(path)
        if question is not None:
            try:
                asked = parse_query(query)
            except BadQuery as error:
                return refusal(HTTPStatus.BAD_REQUEST, str(error))
            return self._check(question(self, asked, now), now)
        document = self.documents.get(path)
        if document is not None:
            return Answer(HTTPStatus.OK, msgspec.json.encode(document(now)))
        asked_with = self.asked.get(path)
        return None if asked_with is None else asked_with(query, now)

    def tagged(self, verdict: Verdict, query: Query) -> Verdict:
        """Narrow a permission to nodes that carry the asked tags, as Patroni does."""
        if not verdict.ok or not query.tags:
            return verdict
        tags = shown_tags(self.board.identity.tags)
        for name, wanted in query.tags.items():
            if name not in tags:
                return Verdict(False, Reason.TAG_DIFFERS, f"this node has no tag {name[:40]!r}")
            value = _tag_text(tags[name])
            if value != wanted:
                detail = f"tag {name[:40]!r} is {value!r} here, asked for {wanted[:40]!r}"
                return Verdict(False, Reason.TAG_DIFFERS, detail)
        return verdict

    def _check(self, verdict: Verdict, now: Instant) -> Answer:
        board = self.board
        # all of the body that time alone can change is part of the key
        key = (
            verdict,
            board.primary(now).ok,
            board.replica(now).ok,
            board.running(now).ok,
            in_maintenance(board, now),
        )
        if self._rendered_at != board.evidence_version or len(self._rendered) >= MAX_RENDERED:
            self._rendered.clear()
            self._rendered_at = board.evidence_version
        known = self._rendered.get(key)
        if known is None:
            status = HTTPStatus.OK if verdict.ok else HTTPStatus.SERVICE_UNAVAILABLE
            known = Answer(status, msgspec.json.encode(self._body(verdict, now)), reason=verdict.reason)
            self._rendered[key] = known
        return known

    def _body(self, verdict: Verdict, now: Instant) -> Json:
        body = node_json(self.board, now)
        body["verdict"] = {
            "primary": self.board.primary(now).ok,
            "replica": self.board.replica(now).ok,
            "reason": verdict.reason,
            "detail": verdict.detail,
        }
        return body

    def _patroni(self, now: Instant) -> Json:
        board = self.board
        own = board.replica(now) if board.role(now) is Role.REPLICA else board.primary(now)
        return self._body(own, now)


def refusal(status: HTTPStatus, sentence: str, **more: object) -> Answer:
    """An answer that is no verdict: a bad question, an unknown path."""
    return Answer(status, msgspec.json.encode({"error": sentence, **more}))


def _switch(switch: Switch) -> list[object]:
    return [switch.timeline, switch.lsn, switch.reason, switch.timestamp, switch.new_leader]


def _tag_text(value: Tag) -> str:
    """A tag as a query spells it: `ssd: true` is "true"."""
    return value if isinstance(value, str) else str(value).lower()
