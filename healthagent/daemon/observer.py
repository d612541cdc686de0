"""What the poller says of PostgreSQL goes to the board, and to whoever keeps or counts it."""

from collections import Counter
from collections.abc import Callable

from healthagent.board import Board
from healthagent.core.model import Failure, Instant, Role, Snapshot
from healthagent.core.replica import current_primary
from healthagent.keeper import Keeper
from healthagent.notify import Watchdog
from healthagent.peers.resolve import Names


class Observer:
    """The poller's sink. `looked` is called when there is something new to decide by."""

    def __init__(
        self,
        board: Board,
        names: Names,
        keeper: Keeper | None,
        watchdog: Watchdog,
        clock: Callable[[], Instant],
        looked: Callable[[Instant], None],
    ) -> None:
        self.failures: Counter[str] = Counter()  # by reason
        self.took: Callable[[float], None] = lambda _seconds: None  # told how long each probe took
        self._board = board
        self._names = names
        self._keeper = keeper
        self._watchdog = watchdog
        self._clock = clock
        self._looked = looked

    def observe(self, snapshot: Snapshot) -> None:
        board, now = self._board, self._clock()
        board.observe(self._names.with_upstream(snapshot), now)
        if self._keeper is not None:
            found = current_primary(board.view(now), board.policy)
            own = board.identity.name if snapshot.role is Role.PRIMARY else None
            self._keeper.follow(snapshot, own or (found[0].label if found else None))
        self._looked(now)

    def observe_failure(self, failure: Failure) -> None:
        now = self._clock()
        self.failures[failure.reason] += 1
        self._board.observe_failure(failure, now)
        self._looked(now)

    def observe_new_connection(self, failure: Failure | None) -> None:
        if failure is not None:
            self.failures[failure.reason] += 1
        self._board.observe_new_connection(failure, self._clock())

    def probe_took(self, seconds: float) -> None:
        self._watchdog.progress(self._clock())
        self.took(seconds)
