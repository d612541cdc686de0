"""/openapi.json describes what is answered: every path of the tables, and bodies as they are."""

import json
from typing import Any

import jsonschema
import pytest

from healthagent.board import Board
from healthagent.core.peer import Peer
from healthagent.events import Events
from healthagent.openapi import description
from healthagent.server.answers import CHECKS, Answers
from healthagent.server.events import events_answer
from healthagent.server.places import Place
from tests.bed.boards import PRIMARY, START, board, replica, says

DESCRIBED: dict[str, Any] = json.loads(description())
PATHS: dict[str, Any] = DESCRIBED["paths"]


def with_peer() -> Board:
    made = board(replica(behind=10), peers=(Peer("pg2"),))
    made.hear("pg2", says("pg2", PRIMARY, serving=True), START)
    return made


def answers_of(made: Board) -> Answers:
    answers = Answers(made)
    answers.places = lambda: {"pg1": Place("http://10.0.0.11:8008"), "pg2": Place("http://10.0.0.12:8008")}
    events = Events()
    events.add("primary", START, ok=True, reason="primary")
    answers.asked["/events"] = events_answer(made, events)
    answers.documents["/openapi.json"] = lambda _now: DESCRIBED
    return answers


def test_every_path_of_the_tables_is_described() -> None:
    assert set(answers_of(board(PRIMARY)).paths()) <= PATHS.keys()


@pytest.mark.parametrize("path", [path for path in PATHS if path in CHECKS])
def test_a_check_is_described_with_its_refusals(path: str) -> None:
    for method in ("get", "head", "options"):
        assert {"400", "403"} < PATHS[path][method]["responses"].keys() <= {"200", "400", "403", "503"}


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(board(None), id="nothing known yet"),
        pytest.param(board(PRIMARY), id="a primary"),
        pytest.param(with_peer(), id="a replica with a peer"),
        pytest.param(board(None, witness=True), id="a witness"),
    ],
)
@pytest.mark.parametrize("query", ["", "lag=x&since=x"])
def test_every_body_is_as_described(made: Board, query: str) -> None:
    answers = answers_of(made)
    for path in answers.paths():
        answer = answers.answer(path, query, START)
        assert answer is not None
        said = PATHS[path]["get"]["responses"]
        assert str(answer.status) in said, path
        [(media, content)] = said[str(answer.status)]["content"].items()
        assert media == answer.content_type
        schema = {**content["schema"], "components": DESCRIBED["components"]}
        jsonschema.validate(json.loads(answer.body), schema, jsonschema.Draft202012Validator)


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(DESCRIBED)
    for kind in ("schemas", "parameters"):
        named = {part.partition('"')[0] for part in text.split(f'"#/components/{kind}/')[1:]}
        assert named
        assert named <= DESCRIBED["components"][kind].keys()
