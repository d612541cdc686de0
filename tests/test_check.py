"""`healthagent check`: what it prints, and the exit code for each answer."""

import json
import socket

import pytest

from healthagent.commands import main
from healthagent.commands.check import CHECKS
from healthagent.server import answers
from tests.bed.web import answering, response


def body(reason: str, detail: str) -> bytes:
    return json.dumps({"verdict": {"reason": reason, "detail": detail}}).encode()


def check(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["check", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("answer", "code", "out", "err"),
    [
        pytest.param(response(200, body("primary", "yes")), 0, "primary: yes\n", "", id="200 is yes"),
        pytest.param(response(503, body("diverged", "no")), 1, "diverged: no\n", "", id="503 is no"),
        pytest.param(
            response(400, b'{"error": "lag: unknown unit"}'), 2, "", "lag: unknown unit\n", id="400 is usage"
        ),
        pytest.param(response(400, b"bad request"), 2, "", "bad request\n", id="400 in other words"),
        pytest.param(response(200, b"hello"), 0, "200\n", "", id="another server that says yes"),
        pytest.param(response(503, b'["x"]'), 1, "503\n", "", id="JSON of another kind"),
        pytest.param(response(200, b'{"verdict": 1}'), 0, "200\n", "", id="a verdict of another kind"),
        pytest.param(
            response(404, b"{}"),
            3,
            "",
            "unreachable: {url}: no healthagent there, it answered 404\n",
            id="404",
        ),
        pytest.param(
            response(403, b'{"error": "this address is not in checks.allow"}'),
            3,
            "",
            "unreachable: {url}: it answered 403: this address is not in checks.allow\n",
            id="not allowed",
        ),
        pytest.param(
            response(500, b'{"error": 7}'),
            3,
            "",
            "unreachable: {url}: no healthagent there, it answered 500\n",
            id="an error of another kind",
        ),
        pytest.param(response(302, b""), 3, "", "unreachable: {url}: no healthagent there", id="a redirect"),
        pytest.param(b"", 3, "", "unreachable: {url}/primary: ", id="no answer"),
    ],
)
def test_each_answer(
    answer: bytes, code: int, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering({"/primary": answer}) as url:
        assert check("primary", "--url", url) == code
    said = capsys.readouterr()
    assert said.out == out
    assert said.err.startswith(err.format(url=url))


def test_every_check_of_the_agent_can_be_asked() -> None:
    assert sorted(CHECKS) == sorted(path.removeprefix("/") for path in answers.CHECKS if path != "/")


def test_what_an_agent_says_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with answering({"/primary": response(503, body("no", "\x1b[2Jx\ny"))}) as url:
        assert check("primary", "--url", url) == 1
    assert capsys.readouterr().out == "no: ?[2Jx?y\n"


def test_the_lag_is_sent_as_it_is_written() -> None:
    asked: list[bytes] = []

    def answer(_connection: socket.socket, request: bytes) -> bytes:
        asked.append(request.split(b"\r\n")[0])
        return response(200, body("replica", ""))

    with answering({"/replica": answer}) as url:
        assert check("replica", "--lag", "1 MB&x=+", "--url", url) == 0
        assert check("replica", "--lag", "", "--url", url) == 0
        assert check("replica", "--url", url) == 0
    assert asked == [
        b"GET /replica?lag=1%20MB%26x%3D%2B HTTP/1.1",
        b"GET /replica?lag= HTTP/1.1",
        b"GET /replica HTTP/1.1",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no check"),
        pytest.param(["primry"], id="an unknown check"),
        pytest.param(["primary", "--url", "pg1:8008"], id="a malformed URL"),
        pytest.param(["primary", "--nosuch"], id="an unknown option"),
        pytest.param(["primary", "-c", "/nonexistent.yaml"], id="a file that is not there"),
    ],
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(*arguments) == 2
    assert capsys.readouterr().err


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    with answering({}) as url:
        pass
    assert check("primary", "--url", url) == 3
    assert capsys.readouterr().err.startswith(f"unreachable: {url}/primary: ")


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--help") == 0
    assert "healthagent check primary --url" in capsys.readouterr().out
