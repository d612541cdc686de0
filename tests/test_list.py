"""`healthagent list`: the cluster as one agent sees it, from real answers of real boards."""

import json
from dataclasses import replace
from typing import Any

import pytest

from healthagent.board import Board
from healthagent.commands import main
from healthagent.commands.list import table
from healthagent.core.peer import Peer
from healthagent.server.answers import Answers
from tests.bed.boards import PRIMARY, START, board, replica, says
from tests.bed.web import answering, response


def listed(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["list", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def answers_of(made: Board) -> dict[str, bytes]:
    """What an agent with this board serves."""
    answers, found = Answers(made), {}
    for path in ("/status", "/cluster"):
        answer = answers.answer(path, "", START)
        assert answer is not None
        found[path] = response(200, answer.body)
    return found


def of_four() -> Board:
    """pg2 sees itself, the serving pg1, the silent pg3 and a witness."""
    made = board(replica(behind=100), name="pg2", peers=(Peer("pg1"), Peer("pg3"), Peer("w1", witness=True)))
    made.identity = replace(made.identity, address="10.0.0.2:5432")
    made.hear("pg1", replace(says("pg1", PRIMARY, serving=True), address="10.0.0.1:5432"), START)
    made.hear("w1", replace(says("w1", None), witness=True, reason="witness"), START)
    return made


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(answers_of(of_four())) as url:
        assert listed("--url", url) == 0
    assert capsys.readouterr().out == (
        "Member  Host           Role     State      TL  Lag      Writes   Reads    Reason\n"
        "pg2     10.0.0.2:5432  replica  streaming  3   100      no       yes      replica\n"
        "pg1     10.0.0.1:5432  leader   running    3            yes      unknown  primary\n"
        "pg3                    unknown  unknown        unknown  unknown  unknown  silent\n"
        "w1                     witness                          no       unknown  witness\n"
    )


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(answers_of(of_four())) as url:
        assert listed("--url", url, "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[1] == {
        "Member": "pg1",
        "Host": "10.0.0.1:5432",
        "Role": "leader",
        "State": "running",
        "TL": 3,
        "Lag": "",
        "Writes": "yes",
        "Reads": "unknown",
        "Reason": "primary",
    }


@pytest.mark.parametrize(
    "body",
    [b"hello", b"[]", b"{}", b'{"members": []}', b'{"verdicts": {}, "peers": 1}'],
)
def test_no_healthagent_there(body: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with answering({"/status": response(200, body), "/cluster": response(200, body)}) as url:
        assert listed("--url", url) == 3
    assert capsys.readouterr().err == f"unreachable: {url}: no healthagent of this version there\n"


def test_why_it_may_not_ask(capsys: pytest.CaptureFixture[str]) -> None:
    refused = response(403, b'{"error": "this address is not in checks.allow"}')
    with answering({"/status": refused, "/cluster": refused}) as url:
        assert listed("--url", url) == 3
    said = f"unreachable: {url}: it answered 403: this address is not in checks.allow\n"
    assert capsys.readouterr().err == said


def test_nobody_there_and_a_malformed_url(capsys: pytest.CaptureFixture[str]) -> None:
    with answering({}) as url:
        pass
    assert listed("--url", url) == 3
    assert capsys.readouterr().err.startswith(f"unreachable: {url}/status: ")
    assert listed("--url", "nonsense") == 2


def test_what_a_peer_says_cannot_drive_the_terminal() -> None:
    row: dict[str, Any] = dict.fromkeys(
        ("Member", "Host", "Role", "State", "TL", "Lag", "Writes", "Reads", "Reason"), "\x1b[2J\n"
    )
    assert "\x1b" not in table([row], color=False)
    assert table([row], color=False).count("\n") == 1


def test_colour_is_for_verdicts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    row: dict[str, Any] = dict.fromkeys(("Member", "Host", "Role", "State", "TL", "Lag", "Reason"), "x")
    row |= {"Writes": "yes", "Reads": "no"}
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert table([row], color=True).count("\x1b[") == 4
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in table([row], color=True)
