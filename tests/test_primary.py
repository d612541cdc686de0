"""The rules of /primary in their order, each on both sides of its boundary."""

from dataclasses import replace

import pytest

from healthagent.core.evidence import decide_running
from healthagent.core.members import hear
from healthagent.core.model import Reason
from healthagent.core.peer import Alarm, Candidate, Peer, Source
from healthagent.core.primary import decide_primary
from healthagent.core.view import Conflict, Maintenance, Policy, Rival, Signals, View
from tests.builders import (
    NOW,
    OTHER_SYSTEM,
    SYSTEM,
    failure,
    follower,
    following,
    local,
    memory,
    newly,
    peer,
    policy,
    rival,
    served,
    silent,
    snap,
    statement,
    term,
    view,
    witness,
)

HERE = Candidate("pg1", 1)
THERE = Candidate("pg2", 2)
DEFAULT = policy()
DEMOTE = policy(demote_isolated=True)


def serving_peer(age: float = 0.3, silent_for: float | None = None, **more: object) -> Peer:
    """pg2, last heard serving timeline 1, perhaps silent since."""
    found = rival("pg2", 1, serving=True, age=age)
    since = None if silent_for is None else NOW - silent_for
    return replace(found, silent_since=since, **more)  # type: ignore[arg-type]  # the fields of Peer


def stopped(ago: float, age: float = 0.3) -> Peer:
    """A peer that has stopped serving `ago` seconds before NOW by its own word, and shows nothing else."""
    return peer("pg2", statement("pg2", age=age, stopped_serving_at=NOW - ago))


def reborn(ago: float, **more: object) -> Peer:
    """A peer whose agent started `ago` seconds before NOW; its predecessor was heard serving long before."""
    started = {"incarnation": "a later start of pg2", "started_at": NOW - ago, **more}
    return hear(rival("pg2", 1, serving=True, age=60), statement("pg2", **started))  # type: ignore[arg-type]


def conflict(winner: Candidate | None, rivals: tuple[Candidate, ...] = (THERE,)) -> Conflict:
    return Conflict(
        tuple(Rival(candidate, NOW - 0.3) for candidate in rivals), Signals(THERE, None, HERE), winner
    )


def heard_majority(ago: float) -> View:
    """Two silent peers, the last answer of either `ago` seconds before NOW; calls go on and time out."""
    peers = [
        replace(following(name, age=ago, received_at=NOW - ago), silent_since=NOW - ago + 0.5)
        for name in ("pg2", "pg3")
    ]
    return view(peers=[replace(one, last_call=silent().last_call) for one in peers])


def gated(since: float, began: float, ended: float) -> View:
    """A primary of `since` seconds whose slower peer was last asked `began` and done `ended` seconds ago."""
    slow = following("pg3")
    assert slow.last_call is not None
    slow = replace(slow, last_call=replace(slow.last_call, begun_at=NOW - began, ended_at=NOW - ended))
    return view(peers=[following("pg2"), slow], remembered=newly(since=since))


UNDISTURBED = [
    pytest.param(view(), DEFAULT, id="an undisturbed primary with two followers"),
    pytest.param(view(peers=[]), DEFAULT, id="a primary that has no peers at all"),
    pytest.param(view(peers=[], remembered=newly(since=0)), DEFAULT, id="just started without any peers"),
    pytest.param(
        view(remembered=memory(maintenance=Maintenance(NOW))), DEFAULT, id="maintenance that ends now"
    ),
    pytest.param(view(snap(age=2.0)), DEFAULT, id="a snapshot of exactly max_age"),
    pytest.param(
        view(local=local(snap(), failure=failure(conclusive=False))),
        DEFAULT,
        id="one poll timed out while the last snapshot is fresh",
    ),
    pytest.param(
        view(local=local(snap(), new_connection_failures=1, new_connection_failure=failure())),
        DEFAULT,
        id="one failed new connection",
    ),
    pytest.param(view(remembered=memory(high_water={SYSTEM: 1})), DEFAULT, id="the timeline is the mark"),
    pytest.param(
        view(remembered=memory(high_water={SYSTEM: 1, OTHER_SYSTEM: 9})),
        DEFAULT,
        id="the mark of another system identifier is higher",
    ),
    pytest.param(
        view(remembered=memory(high_water={SYSTEM: 4}, forgiven=(SYSTEM, 4))),
        DEFAULT,
        id="an operator cleared the mark",
    ),
    pytest.param(
        view(
            peers=[
                peer("pg2", statement("pg2", snap(system_identifier=OTHER_SYSTEM))),
                following("pg3"),
            ]
        ),
        policy(system_identifier=SYSTEM),
        id="another system identifier, and ours is configured",
    ),
    pytest.param(
        view(peers=[peer("pg2", statement("pg2", snap(system_identifier=OTHER_SYSTEM), age=2.001))]),
        DEFAULT,
        id="another system identifier, but that evidence is stale",
    ),
    pytest.param(
        view(peers=[peer("pg2", statement("pg2", follower(system_identifier=OTHER_SYSTEM)))]),
        DEFAULT,
        id="a replica of another system identifier",
    ),
    pytest.param(gated(since=1.0, began=1.0, ended=0.2), DEFAULT, id="a round begun as the term began"),
    pytest.param(
        view(peers=[peer("pg2", statement("pg2", reason=Reason.START_GATE))]),
        DEFAULT,
        id="it serves, and another has just started as a primary",
    ),
    pytest.param(gated(since=9.0, began=3.0, ended=2.5), DEFAULT, id="a round that ended 2.5 s ago"),
    pytest.param(
        view(peers=[following("pg2"), silent("pg3", called=0.9)], remembered=newly()),
        DEFAULT,
        id="newly primary, two of three members heard",
    ),
    pytest.param(
        view(peers=[silent()], remembered=newly(since=10.0)), DEFAULT, id="start_alone_after has passed"
    ),
    pytest.param(view(peers=[silent()]), DEFAULT, id="alone of two, but no longer new"),
    pytest.param(view(peers=[silent("pg2"), silent("pg3")]), DEFAULT, id="alone of three, but no longer new"),
    pytest.param(
        view(peers=[rival(yields_to=HERE)], remembered=memory(conflict=conflict(HERE))),
        DEFAULT,
        id="a rival that lost and yields",
    ),
    pytest.param(view(peers=[stopped(3.0)]), DEFAULT, id="a peer stopped serving 3.0 s ago"),
    pytest.param(
        view(peers=[replace(reborn(0.5), last_call=following().last_call)]),
        DEFAULT,
        id="it serves when the agent of one long silent starts again",
    ),
    pytest.param(
        view(peers=[replace(reborn(0.5, stopped_serving_at=NOW - 0.5), last_call=following().last_call)]),
        DEFAULT,
        id="it serves when an agent starts again that recalls that it served until about then",
    ),
    pytest.param(
        view(peers=[serving_peer(age=4.0, silent_for=3.0)]), DEFAULT, id="a serving peer silent for 3.0 s"
    ),
    pytest.param(
        view(peers=[serving_peer(age=2.5, alarm=Alarm.SELF)]), DEFAULT, id="a serving peer that is this agent"
    ),
    pytest.param(
        view(peers=[serving_peer(age=8.5, silent_for=7.5), following("pg3")]),
        DEMOTE,
        id="a serving peer silent for isolation_after + interval + timeout + drain",
    ),
    pytest.param(heard_majority(2.999), DEMOTE, id="no majority heard for 2.999 s of isolation_after"),
    pytest.param(heard_majority(60), DEFAULT, id="isolated for a minute, isolation: keep"),
    pytest.param(
        view(peers=[following("pg2"), silent("pg3")]), DEMOTE, id="two of three heard, isolation: demote"
    ),
    pytest.param(
        view(remembered=memory(saved_high_water={})), policy(durable=False), id="unsaved without a state_dir"
    ),
    pytest.param(
        view(peers=[silent(called=1.2)], remembered=memory(yielded_until=NOW - 1.2)),
        DEFAULT,
        id="the only peer was asked when this node yielded no more",
    ),
]


@pytest.mark.parametrize(("evidence", "chosen"), UNDISTURBED)
def test_permission(evidence: View, chosen: Policy) -> None:
    verdict = decide_primary(evidence, chosen)
    assert (verdict.ok, verdict.reason) == (True, Reason.PRIMARY), verdict.detail
    assert verdict.detail == "primary on timeline 1"


REFUSED = [
    # rule 1
    pytest.param(view(stopping=True), DEFAULT, Reason.STOPPING, "shutting down", id="stopping"),
    pytest.param(
        view(remembered=memory(maintenance=Maintenance(NOW + 60))),
        DEFAULT,
        Reason.MAINTENANCE,
        "for another 60 s",
        id="maintenance for another minute",
    ),
    pytest.param(
        view(remembered=memory(maintenance=Maintenance(None))),
        DEFAULT,
        Reason.MAINTENANCE,
        "an operator took this node out of service",
        id="maintenance without an end",
    ),
    pytest.param(view(), policy(witness=True), Reason.WITNESS, "no PostgreSQL", id="a witness"),
    # rule 2
    pytest.param(
        view(local=local()), DEFAULT, Reason.STARTING_UP, "has not answered yet", id="nothing known yet"
    ),
    pytest.param(
        view(local=local(None, failure=failure(Reason.AUTH_FAILED, "password wrong", conclusive=False))),
        DEFAULT,
        Reason.AUTH_FAILED,
        "password wrong",
        id="never got in",
    ),
    pytest.param(
        view(snap(age=2.001)),
        DEFAULT,
        Reason.POSTGRES_STALE,
        "2.0 s ago, at most 2 s is fresh",
        id="a snapshot of 2.001 s",
    ),
    pytest.param(
        view(
            local=local(
                snap(age=7), failure=failure(Reason.NO_CONNECTION_SLOT, "too many clients", conclusive=False)
            )
        ),
        DEFAULT,
        Reason.NO_CONNECTION_SLOT,
        "7.0 s ago, at most 2 s is fresh; too many clients",
        id="a stale snapshot says why there is no younger one",
    ),
    pytest.param(
        view(local=local(snap(), failure=failure())),
        DEFAULT,
        Reason.POSTGRES_DOWN,
        "connection refused",
        id="down, though the last snapshot is fresh",
    ),
    pytest.param(
        view(local=local(snap(), failure=failure(Reason.POSTGRES_STARTING, "starting up"))),
        DEFAULT,
        Reason.POSTGRES_STARTING,
        "starting up",
        id="PostgreSQL is starting",
    ),
    pytest.param(
        view(
            local=local(snap(), new_connection_failures=2, new_connection_failure=failure(detail="timed out"))
        ),
        DEFAULT,
        Reason.NO_NEW_CONNECTIONS,
        "2 new connections in a row failed, though the held one lives: timed out",
        id="two failed new connections",
    ),
    # rule 3
    pytest.param(view(follower("pg2")), DEFAULT, Reason.NOT_PRIMARY, "in recovery", id="a replica"),
    pytest.param(
        view(snap(system_identifier=None, missing=("pg_control_system",))),
        DEFAULT,
        Reason.PRIVILEGE_MISSING,
        "may not see pg_control_system",
        id="a primary without its system identifier",
    ),
    pytest.param(
        view(snap(timeline=None)), DEFAULT, Reason.PRIVILEGE_MISSING, "timeline", id="no timeline known"
    ),
    # rule 4
    pytest.param(
        view(snap(read_only=True)), DEFAULT, Reason.READ_ONLY, "default_transaction_read_only", id="read-only"
    ),
    # rule 5
    pytest.param(
        view(remembered=memory(high_water={SYSTEM: 2})),
        DEFAULT,
        Reason.STALE_TIMELINE,
        "on timeline 1, but clients were already sent to timeline 2",
        id="one below the mark",
    ),
    pytest.param(
        view(remembered=memory(high_water={SYSTEM: 5}, forgiven=(SYSTEM, 4))),
        DEFAULT,
        Reason.STALE_TIMELINE,
        "timeline 5",
        id="the mark has risen since an operator cleared it",
    ),
    # rule 6
    pytest.param(
        view(peers=[peer("pg2", statement("pg2", snap(system_identifier=OTHER_SYSTEM), age=2.0))]),
        DEFAULT,
        Reason.SYSTEM_ID_MISMATCH,
        f"pg2 is a primary with system identifier {OTHER_SYSTEM}, this one has {SYSTEM}",
        id="another cluster's primary under our name",
    ),
    pytest.param(
        view(),
        policy(system_identifier=OTHER_SYSTEM),
        Reason.SYSTEM_ID_MISMATCH,
        f"system identifier {SYSTEM}, but {OTHER_SYSTEM} is configured",
        id="not the configured system identifier",
    ),
    # rule 7
    pytest.param(
        view(peers=[following("pg2", age=3), replace(following("pg3"), last_call=None)]),
        DEFAULT,
        Reason.START_GATE,
        "not every peer has been asked",
        id="a peer was never asked",
    ),
    pytest.param(
        gated(since=1.0, began=1.001, ended=0.2),
        DEFAULT,
        Reason.START_GATE,
        "not every peer has been asked",
        id="one call of the round began before the term",
    ),
    pytest.param(
        gated(since=9.0, began=3.0, ended=2.501),
        DEFAULT,
        Reason.START_GATE,
        "ended 2.5 s ago, at most 2.5 s is fresh",
        id="the last round ended 2.501 s ago: this agent was frozen",
    ),
    pytest.param(
        view(
            peers=[replace(following("pg2"), alarm=Alarm.FOREIGN_CLUSTER, last_call=None), following("pg3")]
        ),
        DEFAULT,
        Reason.START_GATE,
        "not every peer has been asked",
        id="an ignored entry is asked too",
    ),
    pytest.param(
        view(peers=[peer("pg2", statement("pg2", reason=Reason.START_GATE))], remembered=newly()),
        DEFAULT,
        Reason.START_GATE,
        "pg2 is one too and has not yet said to whom it yields",
        id="another has just started as a primary too",
    ),
    # rule 8
    pytest.param(
        view(peers=[silent("pg2"), silent("pg3")], remembered=newly(since=60)),
        DEFAULT,
        Reason.ISOLATED_AT_START,
        "1 of 3 members heard, this one included; a majority is 2",
        id="newly primary, alone of three",
    ),
    pytest.param(
        view(peers=[following("pg2", age=2.001), silent("pg3")], remembered=newly(since=60)),
        DEFAULT,
        Reason.ISOLATED_AT_START,
        "1 of 3 members heard",
        id="newly primary, a majority was heard 2.001 s ago",
    ),
    pytest.param(
        view(peers=[following("pg2"), silent("pg3"), silent("pg4")], remembered=newly(since=60)),
        DEFAULT,
        Reason.ISOLATED_AT_START,
        "2 of 4 members heard, this one included; a majority is 3",
        id="newly primary, half of four heard",
    ),
    pytest.param(
        view(peers=[], remembered=newly(since=60)),
        policy(expected_members=3),
        Reason.ISOLATED_AT_START,
        "1 of 3 members heard",
        id="newly primary, none of three members found in DNS yet",
    ),
    # rule 9
    pytest.param(
        view(peers=[silent()], remembered=newly(since=9.9)),
        DEFAULT,
        Reason.START_ALONE,
        "0.1 s of 10 s to wait",
        id="alone of two, start_alone_after has not passed",
    ),
    pytest.param(
        view(peers=[], remembered=newly(since=9.9)),
        policy(expected_members=2),
        Reason.START_ALONE,
        "0.1 s of 10 s to wait",
        id="the other of two members not found in DNS yet",
    ),
    # rule 10
    pytest.param(
        view(peers=[rival(yields_to=HERE)], remembered=memory(conflict=conflict(THERE))),
        DEFAULT,
        Reason.LOST_CONFLICT,
        "pg2 on timeline 2 is the rightful primary: timeline 1 here, also primary: pg2 on timeline 2; "
        "highest timeline names pg2, majority of followers names nobody, serving lately names pg1",
        id="the rival won",
    ),
    pytest.param(
        view(peers=[rival(yields_to=HERE)], remembered=memory(conflict=conflict(None))),
        DEFAULT,
        Reason.DIVERGED,
        "nobody is the clear winner, a person must stop one: timeline 1 here",
        id="nobody won",
    ),
    # rule 11
    pytest.param(
        view(peers=[serving_peer(age=2.0)]),
        DEFAULT,
        Reason.RIVAL_DRAINING,
        "pg2 still answers 200",
        id="another serves",
    ),
    pytest.param(
        view(peers=[replace(witness("pg2"), statement=statement("pg2", serving=True))]),
        DEFAULT,
        Reason.RIVAL_DRAINING,
        "pg2 still answers 200",
        id="another serves and shows no snapshot",
    ),
    pytest.param(
        view(peers=[stopped(2.999)]),
        DEFAULT,
        Reason.RIVAL_DRAINING,
        "pg2 stopped serving 3.0 s ago, its clients have 3 s to leave",
        id="a peer stopped serving 2.999 s ago",
    ),
    pytest.param(
        view(peers=[stopped(1.0, age=2.5)]),
        DEFAULT,
        Reason.RIVAL_DRAINING,
        "pg2 stopped serving 1.0 s ago",
        id="a peer stopped serving 1 s ago by its own word, and is silent since",
    ),
    pytest.param(
        view(peers=[replace(reborn(2.999), last_call=following().last_call)], remembered=newly()),
        DEFAULT,
        Reason.RIVAL_DRAINING,
        "pg2 stopped serving 3.0 s ago",
        id="newly primary, and a peer that was heard serving has started anew 2.999 s ago",
    ),
    pytest.param(
        view(peers=[rival()], remembered=memory(conflict=conflict(HERE))),
        DEFAULT,
        Reason.RIVAL_DRAINING,
        "pg2 is a primary too and has not said that it yields to pg1 on timeline 1",
        id="a rival yields to nobody",
    ),
    pytest.param(
        view(
            peers=[rival(yields_to=Candidate("pg1", 3))],
            remembered=memory(conflict=conflict(HERE)),
        ),
        DEFAULT,
        Reason.RIVAL_DRAINING,
        "has not said that it yields to pg1 on timeline 1",
        id="a rival yields to another timeline of this node",
    ),
    pytest.param(
        view(
            peers=[rival(yields_to=HERE, age=0.5)],
            remembered=memory(conflict=conflict(HERE), yielded_until=NOW - 0.499),
        ),
        DEFAULT,
        Reason.RIVAL_DRAINING,
        "has not said that it yields",
        id="the rival's word was asked for while this node still yielded",
    ),
    pytest.param(
        view(
            peers=[rival(yields_to=HERE, age=0.5, received_at=NOW - 0.1)],
            remembered=memory(conflict=conflict(HERE), yielded_until=NOW - 0.499),
        ),
        DEFAULT,
        Reason.RIVAL_DRAINING,
        "has not said that it yields",
        id="the rival's word arrived after this node stopped yielding, but was asked for before",
    ),
    pytest.param(
        view(
            peers=[replace(rival(yields_to=HERE, age=0.5), last_call=rival(age=0.2).last_call)],
            remembered=memory(
                conflict=conflict(HERE), term=replace(term(), since=NOW - 0.499), yielded_until=-1.0
            ),
        ),
        DEFAULT,
        Reason.RIVAL_DRAINING,
        "has not said that it yields",
        id="the rival's word was asked for before this term",
    ),
    pytest.param(
        view(peers=[silent(called=1.2)], remembered=memory(yielded_until=NOW - 1.199)),
        DEFAULT,
        Reason.START_GATE,
        "newly primary: not every peer has been asked since this node stopped yielding 1.2 s ago",
        id="the only peer, silent, was asked while this node still yielded",
    ),
    pytest.param(
        view(
            peers=[rival(yields_to=HERE, source=Source.PATRONI)],
            remembered=memory(conflict=conflict(HERE)),
        ),
        DEFAULT,
        Reason.RIVAL_DRAINING,
        "has not said that it yields",
        id="a Patroni node cannot yield",
    ),
    # rule 12
    pytest.param(
        view(peers=[serving_peer(age=2.9, silent_for=2.4)]),
        DEFAULT,
        Reason.RIVAL_SILENT,
        "pg2 was serving when it fell silent 2.4 s ago; 3 s must pass",
        id="a serving peer fell silent",
    ),
    pytest.param(
        view(peers=[serving_peer(age=4.0, silent_for=2.999)]),
        DEFAULT,
        Reason.RIVAL_SILENT,
        "3 s must pass",
        id="a serving peer silent for 2.999 s",
    ),
    pytest.param(
        view(peers=[serving_peer(age=2.5, alarm=Alarm.MISUNDERSTOOD)]),
        DEFAULT,
        Reason.RIVAL_SILENT,
        "fell silent 2.5 s ago",
        id="a serving peer now answers nonsense",
    ),
    pytest.param(
        view(peers=[serving_peer(age=8.0, silent_for=7.499), following("pg3")]),
        DEMOTE,
        Reason.RIVAL_SILENT,
        "silent 7.5 s ago; 7.5 s must pass",
        id="isolation: demote waits longer: a serving peer silent for 7.499 s",
    ),
    # rule 13
    pytest.param(
        heard_majority(3.0),
        DEMOTE,
        Reason.ISOLATED,
        "1 of 3 members heard, this one included, no majority for 3.0 s (isolation_after 3 s)",
        id="no majority heard for isolation_after",
    ),
    # rule 14
    pytest.param(
        view(remembered=memory(saved_high_water={})),
        DEFAULT,
        Reason.STATE_UNSAVED,
        "timeline 1 is not yet in the state file, which holds none",
        id="the first 200 of a timeline waits for the disk",
    ),
    pytest.param(
        view(snap(timeline=3), remembered=memory(term=term(3), saved_high_water={SYSTEM: 2})),
        DEFAULT,
        Reason.STATE_UNSAVED,
        "timeline 3 is not yet in the state file, which holds 2",
        id="only an older timeline is on disk",
    ),
]


@pytest.mark.parametrize(("evidence", "chosen", "reason", "said"), REFUSED)
def test_refusal(evidence: View, chosen: Policy, reason: Reason, said: str) -> None:
    verdict = decide_primary(evidence, chosen)
    assert (verdict.ok, verdict.reason) == (False, reason), verdict.detail
    assert said in verdict.detail


def everything_wrong() -> View:
    """Evidence that trips every rule at once."""
    here_and_there = conflict(None)
    return view(
        follower("pg2", read_only=True, timeline=1, age=3),
        [
            serving_peer(),
            replace(silent("pg3"), last_call=None),
            peer("pg4", statement("pg4", snap(system_identifier=OTHER_SYSTEM))),
        ],
        newly(mark=2, saved_high_water={}, conflict=here_and_there, maintenance=Maintenance(None)),
        stopping=True,
    )


def test_rules_are_asked_in_their_order() -> None:
    chosen = policy(demote_isolated=True)
    evidence = everything_wrong()
    seen = []

    def next_reason(**mended: object) -> None:
        nonlocal evidence
        evidence = replace(evidence, **mended)  # type: ignore[arg-type]  # the fields of View
        seen.append(decide_primary(evidence, chosen).reason)

    next_reason()
    next_reason(stopping=False)
    next_reason(memory=replace(evidence.memory, maintenance=None))
    next_reason(local=local(follower("pg2", read_only=True)))
    next_reason(local=local(snap(read_only=True)))
    next_reason(local=local(snap()))
    next_reason(memory=replace(evidence.memory, high_water={SYSTEM: 1}))
    next_reason(peers=(serving_peer(), replace(silent("pg3"), last_call=None)))
    # asked, but none heard lately; pg2 was serving
    next_reason(peers=(serving_peer(age=2.5, silent_for=2.4), silent("pg3", called=0.9)))
    next_reason(memory=replace(evidence.memory, term=term()))
    next_reason(memory=replace(evidence.memory, conflict=None))
    next_reason(peers=(serving_peer(), silent("pg3")))
    next_reason(peers=(replace(following("pg2", age=9), served_until=None), silent("pg3")))
    next_reason(peers=(following("pg2"), silent("pg3")))
    next_reason(memory=replace(evidence.memory, saved_high_water={SYSTEM: 1}))
    assert seen == [
        Reason.STOPPING,
        Reason.MAINTENANCE,
        Reason.POSTGRES_STALE,
        Reason.NOT_PRIMARY,
        Reason.READ_ONLY,
        Reason.STALE_TIMELINE,
        Reason.SYSTEM_ID_MISMATCH,
        Reason.START_GATE,
        Reason.ISOLATED_AT_START,
        Reason.DIVERGED,
        Reason.RIVAL_SILENT,
        Reason.RIVAL_DRAINING,
        Reason.ISOLATED,
        Reason.STATE_UNSAVED,
        Reason.PRIMARY,
    ]


def test_a_stale_primary_is_no_rival_but_is_waited_for_while_it_serves() -> None:
    behind = memory(term=term(3), served=served(3), high_water={SYSTEM: 3}, saved_high_water={SYSTEM: 3})
    quiet = view(snap(timeline=3), [rival("pg2", 2)], behind)
    assert decide_primary(quiet, DEFAULT).ok
    loud = view(snap(timeline=3), [rival("pg2", 2, serving=True)], behind)
    assert decide_primary(loud, DEFAULT).reason is Reason.RIVAL_DRAINING


@pytest.mark.parametrize(
    ("evidence", "chosen", "reason"),
    [
        pytest.param(view(), DEFAULT, Reason.RUNNING, id="a primary runs"),
        pytest.param(view(follower("pg2")), DEFAULT, Reason.RUNNING, id="a replica runs"),
        pytest.param(
            view(remembered=memory(maintenance=Maintenance(None)), stopping=True),
            DEFAULT,
            Reason.RUNNING,
            id="it runs, whatever the agent does",
        ),
        pytest.param(view(snap(age=2.001)), DEFAULT, Reason.POSTGRES_STALE, id="nobody knows"),
        pytest.param(view(), policy(witness=True), Reason.WITNESS, id="a witness has nothing to run"),
    ],
)
def test_running(evidence: View, chosen: Policy, reason: Reason) -> None:
    verdict = decide_running(evidence, chosen)
    assert (verdict.reason, verdict.ok) == (reason, reason is Reason.RUNNING)


@pytest.mark.parametrize(
    ("ago", "reason"),
    [
        pytest.param(0.299, Reason.START_GATE, id="the round began before a majority was heard again"),
        pytest.param(0.3, Reason.PRIMARY, id="the round began when a majority was heard again"),
    ],
)
def test_after_isolation_every_peer_is_asked_once_more(ago: float, reason: Reason) -> None:
    """The first to come back are a majority, while the one that serves has not been asked yet."""
    remembered = newly(2, since=60, alone_at=NOW - ago)
    found = decide_primary(view(snap(timeline=2), [following("pg2"), following("pg3")], remembered), policy())
    assert found.reason is reason
