"""The screen of the demo: what it shows, and that a claim which does not hold is never lost."""

import io

import pytest

from healthagent.demo.screen import Ended, Screen


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def test_a_claim_that_holds_is_counted_and_its_observation_left_out(out: io.StringIO) -> None:
    screen = Screen(out, pauses=False)
    screen.claim("pg1 is 503", True, "pg1 503")
    assert out.getvalue() == "  ok  pg1 is 503\n"
    assert (screen.checked, screen.differed) == (1, [])


def test_a_claim_that_does_not_hold_says_what_was_seen(out: io.StringIO) -> None:
    screen = Screen(out, pauses=False)
    screen.claim("pg1 is 503", False, "pg1 200")
    assert out.getvalue() == "  NOT pg1 is 503; seen: pg1 200\n"
    assert (screen.checked, screen.differed) == (1, ["pg1 is 503; seen: pg1 200"])


def test_output_is_indented_and_a_long_line_goes_on_further_in(out: io.StringIO) -> None:
    Screen(out, pauses=False).show([f"  {'word ' * 30}".rstrip()])
    first, second = out.getvalue().splitlines()
    assert first.startswith("      word")
    assert second.startswith("          word")
    assert max(len(first), len(second)) <= 110


def test_what_takes_long_is_one_line_without_a_terminal(out: io.StringIO) -> None:
    with Screen(out, pauses=False).progress("Starting"):
        pass
    assert out.getvalue().startswith("Starting ... 0.")
    assert "\r" not in out.getvalue()


@pytest.mark.parametrize(
    ("typed", "ends"),
    [
        pytest.param("\n", False, id="Enter goes on"),
        pytest.param("q\n", True, id="q ends"),
        pytest.param("", True, id="the end of input ends"),
    ],
)
def test_a_pause_comes_before_each_step_but_the_first(
    out: io.StringIO, monkeypatch: pytest.MonkeyPatch, typed: str, ends: bool
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    screen = Screen(out, pauses=True)
    screen.step("One", "First.")
    assert "Enter" not in out.getvalue()
    if ends:
        with pytest.raises(Ended):
            screen.step("Two", "Second.")
    else:
        screen.step("Two", "Second.")
    assert "Enter" in out.getvalue()
    assert ("2. Two" in out.getvalue()) is not ends
