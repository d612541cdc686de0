"""`healthagent list --watch`: what it writes when the agent answers, and when it does not."""

import io
from collections.abc import Mapping

import pytest

from healthagent.commands.client import Unreachable
from healthagent.commands.watch import BELOW, HOME, Watch, _width


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def looks(*answers: list[Mapping[str, object]] | Unreachable, out: io.StringIO, as_json: bool = False) -> str:
    """What is written for these answers, one a second; then Ctrl-C."""
    left = iter(answers)

    def ask() -> list[Mapping[str, object]]:
        answer = next(left, None)
        if answer is None:
            raise KeyboardInterrupt
        if isinstance(answer, Unreachable):
            raise answer
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("healthagent.commands.watch.EVERY", 0.0)
        watch = Watch("http://a:1", ask, lambda rows, _color: " ".join(str(row["Member"]) for row in rows))
        assert watch.run(out, as_json=as_json) == 0
    return out.getvalue()


ROWS: list[Mapping[str, object]] = [{"Member": "pg1"}]


def test_silence_is_said_with_the_last_answer_as_what_it_is() -> None:
    written = looks(ROWS, Unreachable("http://a:1/status: refused"), ROWS, out=Terminal())
    first, silent, again = written.split(HOME)[2:]
    assert "pg1" in first
    assert "does not answer for 0 s" in silent
    assert "refused" in silent
    assert "Its last answer, of " in silent
    assert silent.index("Its last answer") < silent.index("pg1")
    assert "does not answer" not in again
    assert again.rstrip().endswith(BELOW)


def test_in_a_pipe_silence_is_no_empty_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    written = looks(Unreachable("refused"), ROWS, out=io.StringIO(), as_json=True)
    assert written == '[{"Member": "pg1"}]\n'
    assert capsys.readouterr().err == "unreachable: refused\n"


def test_the_width_of_a_line_is_what_is_seen_of_it() -> None:
    assert [_width(line) for line in ("", "abc", "\033[32myes\033[0m")] == [0, 3, 3]
