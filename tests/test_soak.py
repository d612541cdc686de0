"""The judge of the soak: what is a wrong answer, and what is a leak."""

import pytest

from tests.soak.disturbances import MAX_AGE, MOMENT, RECOVERED, Answer, Disturbance, Truth
from tests.soak.resources import MEMORY, SPARE, Holds, leaks

AT = 1000.0  # when the answers of these tables were decided
KNOWN = MAX_AGE + MOMENT


def answer(node: str, path: str, status: int) -> Answer:
    return Answer(node, path, AT, AT + 0.01, status, "a reason")


def outage(node: str, began: float, ended: float, *, real: bool = True) -> Truth:
    """A cluster whose PostgreSQL at `node` was away (real=False: merely disturbed) for a while."""
    return Truth("pg1", of_postgres=[Disturbance(node, AT + began, real, AT + ended)])


def frozen(node: str, began: float, ended: float) -> Truth:
    return Truth("pg1", of_agents=[Disturbance(node, AT + began, False, AT + ended)])


CALM = Truth("pg1")


@pytest.mark.parametrize(
    ("truth", "given"),
    [
        pytest.param(CALM, answer("pg1", "/primary", 200), id="the primary serves"),
        pytest.param(CALM, answer("pg2", "/primary", 503), id="a replica does not"),
        pytest.param(CALM, answer("pg2", "/replica", 200), id="a replica serves reads"),
        pytest.param(CALM, answer("pg1", "/liveness", 200), id="it lives"),
        pytest.param(outage("pg1", -1, 5), answer("pg1", "/primary", 503), id="refused while it is away"),
        pytest.param(
            outage("pg1", -20, -RECOVERED), answer("pg1", "/primary", 503), id="refused soon after that"
        ),
        pytest.param(
            outage("pg1", -KNOWN + 0.01, 5),
            answer("pg1", "/primary", 200),
            id="by evidence that is fresh yet",
        ),
        pytest.param(outage("pg1", -9, 0), answer("pg1", "/primary", 200), id="it came back meanwhile"),
        pytest.param(
            outage("pg1", -9, 5, real=False), answer("pg1", "/primary", 200), id="disturbed, but answering"
        ),
        pytest.param(frozen("pg2", -1, 5), answer("pg2", "/replica", 0), id="a frozen agent answers nothing"),
    ],
)
def test_a_right_answer(truth: Truth, given: Answer) -> None:
    assert truth.fault(given) is None


@pytest.mark.parametrize(
    ("truth", "given", "said"),
    [
        pytest.param(CALM, answer("pg2", "/primary", 200), "the other role", id="a replica takes writes"),
        pytest.param(CALM, answer("pg1", "/replica", 200), "the other role", id="the primary is no replica"),
        pytest.param(CALM, answer("pg1", "/primary", 503), "nothing happened", id="refused for nothing"),
        pytest.param(
            outage("pg2", -1, 5), answer("pg1", "/primary", 503), "nothing happened", id="for a peer's sake"
        ),
        pytest.param(
            outage("pg1", -20, -RECOVERED - 0.02),
            answer("pg1", "/primary", 503),
            "nothing happened",
            id="for too long after the outage",
        ),
        pytest.param(
            outage("pg1", -KNOWN, 5),
            answer("pg1", "/primary", 200),
            "without evidence",
            id="too old evidence",
        ),
        pytest.param(CALM, answer("pg1", "/liveness", 503), "event loop", id="it says that it is dead"),
        pytest.param(CALM, answer("pg2", "/replica", 0), "not answered", id="no answer"),
        pytest.param(
            frozen("pg3", -1, 5), answer("pg2", "/replica", 0), "not answered", id="another was frozen"
        ),
    ],
)
def test_a_wrong_answer(truth: Truth, given: Answer, said: str) -> None:
    assert said in str(truth.fault(given))


def test_leaks() -> None:
    steady, quiet = [Holds(50.0, 30, 20)] * 9, Holds(48.0, 20, 17)
    assert leaks("pg1", steady, quiet, quiet) == []
    assert leaks("pg1", [], quiet, quiet) == []
    grown = [*steady[:6], *[Holds(50.0 + MEMORY + 0.1, 30, 20)] * 3]
    assert leaks("pg1", grown, quiet, quiet) == ["pg1: memory went from 50.0 to 53.1 MB"]
    enough = Holds(48.0, 20 + SPARE, 17 + SPARE)
    assert leaks("pg1", steady, quiet, enough) == []
    more = Holds(48.0, 20 + SPARE + 1, 17 + SPARE + 1)
    assert leaks("pg1", steady, quiet, more) == [
        "pg1: 20 descriptors before, 29 after",
        "pg1: 17 tasks before, 26 after",
    ]
