"""Signed messages: who is believed, and from when on. No sockets: two exchanges hand each other bytes."""

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from healthagent.peers.exchange import (
    CERTIFIED,
    REMEMBERED,
    SENDERS,
    WINDOW,
    Exchange,
    Forged,
    Overtaken,
    Replayed,
)
from healthagent.wire import MOST, EchoSaid, Message, Misunderstood, decode, encode

SECRET = b"a secret of at least this many bytes"
Signed = tuple[bytes, str]


@dataclass
class Agent:
    """One side: its name, its start, and the words it signs."""

    name: str
    start: str = "first"
    secret: bytes = SECRET
    exchange: Exchange = field(init=False)

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.secret, self.incarnation)

    @property
    def incarnation(self) -> str:
        return f"{self.start} start of {self.name}"

    def asks(self, other: "Agent", now: float) -> Signed:
        return self.exchange.send(self._says(), other.name, now)

    def answers(self, question: Signed, now: float) -> Signed:
        message, _ = self.exchange.receive(*question)
        return self.exchange.send(self._says(), message.name, now, answering=message)

    def reads(self, signed: Signed) -> float | None:
        return self.exchange.receive(*signed)[1]

    def _says(self) -> Message:
        return Message(
            cluster="main", name=self.name, incarnation=self.incarnation, uptime=1.0, serving=False
        )


@pytest.fixture
def here() -> Agent:
    return Agent("pg1")


@pytest.fixture
def there() -> Agent:
    return Agent("pg2")


def acquainted(here: Agent, there: Agent, now: float = 1.0) -> None:
    """One exchange each way."""
    here.reads(there.answers(here.asks(there, now), now))
    there.reads(here.answers(there.asks(here, now), now))


def test_the_first_contact_shows_no_date(here: Agent, there: Agent) -> None:
    assert there.reads(here.asks(there, 1.0)) is None


def test_an_answer_is_dated_by_its_question(here: Agent, there: Agent) -> None:
    assert here.reads(there.answers(here.asks(there, 1.0), 77.0)) == 1.0


def test_a_push_is_dated_by_the_last_message_that_its_sender_had_read(here: Agent, there: Agent) -> None:
    acquainted(here, there, 1.0)
    there.answers(here.asks(there, 2.0), 2.1)  # here never gets this answer
    assert here.reads(there.asks(here, 2.2)) == 2.0


def test_instants_of_two_machines_never_meet(here: Agent, there: Agent) -> None:
    """The other's clock stands at another value altogether."""
    assert here.reads(there.answers(here.asks(there, 1.0), 9e9)) == 1.0
    assert there.reads(here.asks(there, 2.0)) == 9e9


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda body, sign: (body, None), id="no signature"),
        pytest.param(lambda body, sign: (body, ""), id="an empty signature"),
        pytest.param(lambda body, sign: (body, sign[:-1]), id="a short signature"),
        pytest.param(lambda body, sign: (body, sign.upper()), id="a signature in capitals"),
        pytest.param(lambda body, sign: (body, "sha256=\udcff"), id="a signature that is no text"),
        pytest.param(lambda body, sign: (body + b" ", sign), id="one more byte"),
        pytest.param(lambda body, sign: (body.replace(b"false", b"true"), sign), id="one word changed"),
    ],
)
def test_a_forged_message(spoil, here: Agent, there: Agent) -> None:  # type: ignore[no-untyped-def]  # a lambda
    with pytest.raises(Forged):
        there.exchange.receive(*spoil(*here.asks(there, 1.0)))


def test_another_secret(there: Agent) -> None:
    stranger = Agent("pg1", secret=b"another secret of many bytes")
    with pytest.raises(Forged, match="another secret"):
        there.reads(stranger.asks(there, 1.0))
    there.exchange.change_secret(stranger.secret)
    assert there.reads(stranger.asks(there, 2.0)) is None


def test_an_unsigned_message_is_told_what_is_configured_here(here: Agent, there: Agent) -> None:
    body, _ = here.asks(there, 1.0)
    for secret, configured in ((there.secret, "peer.secret"), (CERTIFIED, "tls.client_ca")):
        there.exchange.change_secret(secret)
        with pytest.raises(Forged, match=f"not signed, but {configured} is configured here"):
            there.exchange.receive(body, None)


def test_a_signed_body_that_is_no_message(there: Agent) -> None:
    body = b"[]"
    with pytest.raises(Misunderstood, match="no message of an agent"):
        there.exchange.receive(body, there.exchange._sign(body))


def test_a_replayed_question_is_refused(here: Agent, there: Agent) -> None:
    question = here.asks(there, 1.0)
    there.reads(question)
    with pytest.raises(Replayed) as caught:
        there.reads(question)
    assert not isinstance(caught.value, Overtaken)


def test_what_is_refused_is_said_in_the_same_words_each_time(here: Agent, there: Agent) -> None:
    """The words become an alarm: with a counter in them each poll would be a line in the log."""
    words = set()
    for now in range(5):
        question = here.asks(there, now)
        there.reads(question)
        with pytest.raises(Replayed) as caught:
            there.reads(question)
        words.add(str(caught.value))
    assert len(words) == 1


def test_a_message_that_was_overtaken_is_no_replay(here: Agent, there: Agent) -> None:
    """Both ask at once over two connections: the answer may pass the question on the way."""
    acquainted(here, there)
    slow = here.asks(there, 2.0)
    there.reads(here.answers(there.asks(here, 2.0), 2.0))
    with pytest.raises(Overtaken) as caught:
        there.reads(slow)
    assert caught.value.message.name == "pg1"
    with pytest.raises(Replayed) as again:
        there.reads(slow)
    assert not isinstance(again.value, Overtaken)


def test_a_question_that_cannot_be_dated_overtakes_no_answer(here: Agent, there: Agent) -> None:
    """Just started, it reads a question meant for its predecessor; the answer to its own is still news."""
    answer = here.answers(there.asks(here, 2.0), 2.0)
    assert there.reads(here.exchange.send(here._says(), "nobody yet", 2.1)) is None
    assert there.reads(answer) == 2.0


def test_an_answer_to_a_message_that_was_overtaken_is_dated(here: Agent, there: Agent) -> None:
    acquainted(here, there)
    slow = here.asks(there, 2.0)
    there.reads(here.asks(there, 3.0))
    with pytest.raises(Overtaken) as caught:
        there.reads(slow)
    late = there.exchange.send(there._says(), "pg1", 9.0, answering=caught.value.message)
    assert here.reads(late) == 3.0  # what it had read by then, not only what it answers


@pytest.mark.parametrize(
    ("later", "raised"),
    [
        pytest.param(WINDOW - 1, Overtaken, id="the oldest that is remembered"),
        pytest.param(WINDOW, Replayed, id="one older: perhaps read before"),
    ],
)
def test_how_far_back_a_replay_is_told_from_an_overtaken_message(
    later: int, raised: type[Replayed], here: Agent, there: Agent
) -> None:
    acquainted(here, there)
    slow = here.asks(there, 1.0)
    for _ in range(later - 1):
        here.asks(there, 1.0)
    there.reads(here.asks(there, 2.0))
    with pytest.raises(Replayed) as caught:
        there.reads(slow)
    assert type(caught.value) is raised


def test_a_message_of_an_earlier_start_that_nobody_had_read_yet(here: Agent, there: Agent) -> None:
    """Recorded before pg2 restarted, played afterwards: it must not become the younger one."""
    acquainted(here, there, 1.0)
    recorded = there.asks(here, 1.5)
    reborn = Agent("pg2", "second")
    assert here.reads(reborn.asks(here, 2.0)) is None
    here.reads(reborn.answers(here.asks(reborn, 3.0), 3.0))
    with pytest.raises(Replayed, match="earlier start"):
        here.reads(recorded)
    assert reborn.reads(here.asks(reborn, 4.0)) == 3.0  # the echo still is of the present start


def test_an_undated_message_of_another_start_does_not_displace_the_present_one(
    here: Agent, there: Agent
) -> None:
    foreign = Agent("pg3")
    acquainted(here, there, 1.0)
    recorded = Agent("pg2", "second").asks(foreign, 1.0)
    assert here.reads(recorded) is None
    assert here.reads(recorded) is None  # answered again, believed never
    assert there.reads(here.asks(there, 2.0)) == 1.0


def test_a_restarted_peer_is_believed_after_one_exchange(here: Agent, there: Agent) -> None:
    acquainted(here, there, 1.0)
    reborn = Agent("pg2", "second")
    reborn.reads(here.answers(reborn.asks(here, 0.1), 2.0))
    assert here.reads(reborn.asks(here, 0.2)) == 2.0


def test_own_restart_forgets_all_dates(there: Agent) -> None:
    acquainted(Agent("pg1"), there, 1.0)
    assert Agent("pg1", "second").reads(there.asks(Agent("pg1"), 2.0)) is None


def test_an_answer_to_an_older_question_is_dated_by_that_one(here: Agent, there: Agent) -> None:
    old = there.answers(here.asks(there, 1.0), 1.0)
    here.asks(there, 5.0)
    assert here.reads(old) == 1.0


def test_own_message_thrown_back_has_no_date(here: Agent, there: Agent) -> None:
    acquainted(here, there)
    assert here.reads(here.asks(there, 2.0)) is None


def test_own_counters_are_bounded(here: Agent, there: Agent) -> None:
    forgotten, oldest = here.asks(there, 1.0), here.asks(there, 2.0)
    late, kept = there.answers(forgotten, 0.0), there.answers(oldest, 0.0)
    for _ in range(REMEMBERED - 1):
        here.asks(there, 3.0)
    assert len(here.exchange._sent_at) == REMEMBERED
    assert here.reads(late) is None
    assert here.reads(kept) == 2.0


def test_senders_are_bounded(here: Agent) -> None:
    for number in range(SENDERS + 10):
        here.reads(Agent(f"node{number}").asks(here, 1.0))
    assert len(here.exchange._read) == SENDERS


def test_the_largest_counter_costs_nothing(here: Agent, there: Agent) -> None:
    body, _ = here.asks(there, 1.0)
    there.exchange.receive(body, there.exchange._sign(body))
    huge = encode(replace(decode(body), counter=MOST))
    there.exchange.receive(huge, there.exchange._sign(huge))
    assert there.exchange._read["pg1"].seen == 1


# A successor of the same start.


def succeeded(before: Agent) -> Agent:
    """Another process that goes on where this one ended."""
    after = Agent(before.name, before.start)
    after.exchange.go_on(before.exchange.kept())
    return after


def test_a_successor_counts_on_and_is_no_new_start(here: Agent, there: Agent) -> None:
    here.reads(there.answers(here.asks(there, 1.0), 1.1))
    after = succeeded(here)
    question = after.asks(there, 2.0)
    assert decode(question[0]).counter == decode(here.asks(there, 2.0)[0]).counter
    assert there.reads(question) == 1.1  # believed: it echoes what its predecessor had read


def test_a_successor_dates_the_answer_to_its_predecessor_s_question(here: Agent, there: Agent) -> None:
    answer = there.answers(here.asks(there, 1.0), 1.1)
    assert succeeded(here).reads(answer) == 1.0


def test_what_its_predecessor_read_stays_a_replay(here: Agent, there: Agent) -> None:
    old = [there.answers(here.asks(there, now), now) for now in (1.0, 2.0, 3.0)]
    here.reads(old[0])
    here.reads(old[2])
    after = succeeded(here)
    for read in (old[0], old[2]):
        with pytest.raises(Replayed):
            after.reads(read)
    with pytest.raises(Overtaken):
        after.reads(old[1])


@pytest.mark.parametrize(
    "field",
    [
        pytest.param({"name": "pg3"}, id="its sender"),
        pytest.param({"incarnation": "another start"}, id="its sender's start"),
        pytest.param({"counter": 77}, id="its counter"),
        pytest.param({"echo": EchoSaid("first start of pg2", 1)}, id="what it answers, and so its date"),
        pytest.param({"cluster": "other"}, id="its cluster"),
        pytest.param({"serving": True}, id="what it claims"),
        pytest.param({"v": 2}, id="its format"),
    ],
)
def test_every_part_of_a_message_is_signed(field: dict[str, object], here: Agent, there: Agent) -> None:
    acquainted(here, there)
    body, signature = here.asks(there, 2.0)
    forged = encode(replace(decode(body), **field))
    assert forged != body
    with pytest.raises(Forged):
        there.exchange.receive(forged, signature)
    assert there.reads((body, signature)) is not None  # the true one is read all the same
