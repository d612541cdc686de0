"""The demo's watch: it must see two agents that both say 200, and every change."""

from healthagent.demo.agent import Answer
from healthagent.demo.watch import Watch

YES = Answer(200, "primary", "primary on timeline 1")
NO = Answer(503, "not_primary", "a replica")
GONE = Answer(0, "unreachable", "refused")


def watched(**said: list[Answer]) -> Watch:
    """A watch that has looked once at each of these answers."""
    watch = Watch({name: iter(answers).__next__ for name, answers in said.items()})
    for _ in next(iter(said.values())):
        watch.look()
    return watch


def test_two_agents_at_200_in_one_look_are_seen() -> None:
    watch = watched(pg1=[YES, YES], pg2=[NO, YES])
    assert len(watch.double) == 1
    assert watch.double[0].startswith("pg1 and pg2 at ")


def test_one_agent_after_the_other_is_no_double() -> None:
    watch = watched(pg1=[YES, NO, NO], pg2=[NO, NO, YES])
    assert watch.double == []
    assert watch.looks == 3


def test_only_another_code_or_reason_is_a_change() -> None:
    other_detail = Answer(503, "not_primary", "another sentence")
    watch = watched(pg1=[NO, other_detail, YES, GONE])
    assert [change.answer for change in watch.changes] == [NO, YES, GONE]
    assert watch.latest["pg1"] == GONE


def test_changes_are_told_by_agent_and_from_a_moment_on() -> None:
    watch = watched(pg1=[NO, YES], pg2=[NO, NO])
    first, last = (change for change in watch.changes if change.name == "pg1")
    assert watch.since(first.at, "pg1") == [first, last]
    assert watch.since(last.at, "pg1") == [last]
    assert watch.since(last.at, "pg2") == []
    assert watch.permitted_at == {"pg1": last.at}
