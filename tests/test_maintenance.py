"""`healthagent maintenance` and `override`: what is sent, and the exit code for each answer."""

import json
import socket
from pathlib import Path

import pytest

from healthagent.commands import main
from healthagent.commands.maintenance import duration
from tests.bed.web import answering, response


def ran(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


class Desk:
    """Answers, and keeps what was posted."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.bodies: list[object] = []
        self.heads: list[str] = []

    def __call__(self, connection: socket.socket, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < size:
            body += connection.recv(65536)
        self.heads.append(head.decode())
        self.bodies.append(json.loads(body))
        return self.answer


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        pytest.param(["maintenance", "on"], {"on": True}, id="on"),
        pytest.param(["maintenance", "off"], {"on": False}, id="off"),
        pytest.param(["maintenance", "on", "--for", "90s"], {"on": True, "seconds": 90}, id="for a while"),
        pytest.param(
            ["maintenance", "on", "--why", "new kernel"],
            {"on": True, "why": "new kernel"},
            id="with a reason",
        ),
        pytest.param(["override", "clear"], {"clear": True}, id="override"),
        pytest.param(
            ["override", "primary", "on", "--for", "5m", "--why", "fire"],
            {"primary": "on", "seconds": 300, "why": "fire"},
            id="forced on",
        ),
        pytest.param(
            ["override", "primary", "off", "--for", "1h"],
            {"primary": "off", "seconds": 3600},
            id="forced off",
        ),
        pytest.param(["override", "end"], {"end": True}, id="left to the rules again"),
    ],
)
def test_what_is_sent(
    arguments: list[str],
    body: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    desk = Desk(response(200, b'{"on":true}'))
    (tmp_path / "token").write_text("the-token-of-control\n")
    with answering({f"/{arguments[0]}": desk}) as url:
        assert ran(*arguments, "--url", url) == 0
        assert ran(*arguments, "--url", url, "--token-file", str(tmp_path / "token")) == 0
    assert desk.bodies == [{**body, "who": "alice"}] * 2
    assert "Content-Type: application/json" in desk.heads[0]
    assert "Authorization" not in desk.heads[0]
    assert "Authorization: Bearer the-token-of-control" in desk.heads[1]
    assert capsys.readouterr().out == '{"on":true}\n' * 2


def test_refused_and_unreachable(capsys: pytest.CaptureFixture[str]) -> None:
    with answering({"/maintenance": Desk(response(403, b'{"error":"no"}'))}) as url:
        assert ran("maintenance", "on", "--url", url) == 1
    assert capsys.readouterr().out == '{"error":"no"}\n'
    assert ran("maintenance", "on", "--url", url) == 3
    assert capsys.readouterr().err.startswith("unreachable: ")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["maintenance"], id="neither on nor off"),
        pytest.param(["maintenance", "off", "--for", "1h"], id="off for a while"),
        pytest.param(["maintenance", "on", "--for", "1 hour"], id="a duration in words"),
        pytest.param(["maintenance", "on", "--url", "x"], id="a malformed URL"),
        pytest.param(["maintenance", "on", "--token-file", "/nonexistent"], id="no such token"),
        pytest.param(["override"], id="override what?"),
        pytest.param(["override", "primary", "--for", "1m"], id="override: neither on nor off"),
        pytest.param(["override", "primary", "off"], id="override for ever"),
        pytest.param(["override", "primary", "on", "--for", "1m"], id="override: on without a reason"),
        pytest.param(["override", "clear", "--for", "1m"], id="clear for a while"),
        pytest.param(["override", "end", "on"], id="end with a verdict"),
    ],
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(*arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("5min", 300), ("1.5h", 5400), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds
