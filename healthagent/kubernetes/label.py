"""The role label of this agent's own pod, kept as the verdicts are.

A Service that selects by the label sends clients where it says `primary`. So a label that has to go
is what matters; one that may be set can wait. What the pod *may* say is kept, not what we last
asked for: a patch that was given up (a time-out, a broken connection) may be carried out later.
Therefore each patch names the version that it was composed after, and changes something. Once a
later one has succeeded, none from before it can.
"""

import asyncio
import logging
from collections.abc import Callable

from healthagent.board import Board
from healthagent.core.model import Instant
from healthagent.kubernetes.api import Pod, PodApi, Refused

log = logging.getLogger(__name__)

PRIMARY, REPLICA = "primary", "replica"
LOOK_EVERY = 10.0  # seconds until the label is looked at again: somebody may have changed it by hand
SOON, SLOW = 0.1, 5.0  # seconds between attempts that fail: doubled from the first to the second
USUAL_CONFLICTS = 4  # in a row: a pod's status changes just when its label does


class _Turned(Exception):
    """The verdict changed while we were about to say what it was before."""


class RoleLabel:
    """Keeps the label: `await label.run()`, ended by cancelling it. Nobody waits for it but the end."""

    def __init__(
        self,
        board: Board,
        api: PodApi,
        clock: Callable[[], Instant],
        key: str,
        *,
        uid: str | None = None,
        timeout: float,
    ) -> None:
        self.api = api
        self.key = key
        self.error: str | None = None  # of the last attempt
        self._board = board
        self._clock = clock
        self._uid = uid
        self._timeout = timeout
        self._pod: Pod | None = None  # as it was last seen
        self._current = False  # whether its version may still be the present one
        self._given_up: set[str | None] = set()  # labels of patches that may still be carried out
        self._ours = True  # False: the pod of this name is another one, which says nothing of us
        self._trying: str | None = None
        self._attempt: asyncio.Timeout | None = None
        self._turned = asyncio.Event()
        self._settled = asyncio.Event()
        self._stale_since: Instant | None = clock()
        self._writes = 0

    def wanted(self, now: Instant) -> str | None:
        """What the label has to be at this moment: None for no label."""
        if self._board.primary(now).ok:
            return PRIMARY
        return REPLICA if self._board.replica(now).ok else None

    def may_say(self) -> frozenset[str]:
        """The values that the pod may carry, as far as is known here; before the first answer any."""
        if not self._ours:
            return frozenset()
        if self._pod is None:
            return frozenset((PRIMARY, REPLICA))
        return frozenset(label for label in (self._pod.label, *self._given_up) if label is not None)

    def stale(self, now: Instant) -> frozenset[str]:
        """What the pod may say and this node does not; usually nothing."""
        wrong = self.may_say() - {self.wanted(now)}
        if not wrong:
            self._stale_since = None
        elif self._stale_since is None:
            self._stale_since = now
        return wrong

    def stale_for(self, now: Instant) -> float | None:
        """Seconds for which the pod may have said what this node does not; None: it does not."""
        return now - self._stale_since if self.stale(now) and self._stale_since is not None else None

    def note(self, now: Instant) -> None:
        """The verdicts may have changed: an attempt to say what is no longer true is given up at once."""
        self.stale(now)
        if self.wanted(now) == self._trying:
            return
        self._settled.clear()
        self._turned.set()
        if self._attempt is not None and not self._attempt.expired():
            self._attempt.reschedule(asyncio.get_running_loop().time())

    def status(self, now: Instant) -> dict[str, object]:
        """For /status: what the pod says, as far as is known, and what it should."""
        stale_for = self.stale_for(now)
        return {
            "label": self.key,
            "pod": self.api.pod,
            "wanted": self.wanted(now),
            "seen": None if self._pod is None else self._pod.label,
            "may_say": sorted(self.may_say()),
            "stale_for": None if stale_for is None else round(stale_for, 3),
            "error": self.error,
        }

    def alarms(self, now: Instant) -> list[str]:
        """What a person has to mend, in one sentence."""
        if self.error is None:
            return []
        wrong = " or ".join(sorted(self.stale(now)))
        if wrong:
            return [f"kubernetes: the pod may still say {self.key}={wrong}, and must not: {self.error}"]
        wanted = self.wanted(now)
        if wanted is None or (self._pod is not None and self._pod.label == wanted):
            return [f"kubernetes: the label {self.key} cannot be looked at: {self.error}"]
        return [f"kubernetes: the pod cannot be labelled {self.key}={wanted}: {self.error}"]

    async def run(self) -> None:
        """Keep the label for ever; the first look takes away what a predecessor left."""
        failures = 0
        async with self.api:
            while True:
                self._turned.clear()
                self._trying = self.wanted(self._clock())
                try:
                    await self._bring(self._trying)
                except _Turned:
                    self._current = False
                except Refused as error:
                    failures += 1
                    if error.kind != "conflict" or failures > USUAL_CONFLICTS:
                        self.error = str(error)
                    self._current = False
                    await asyncio.sleep(
                        error.wait
                    )  # the API asked for it: a change of verdict has to wait too
                    await self._rest(min(SOON * 2 ** min(failures - 1, 10), SLOW))
                else:
                    failures, self.error = 0, None
                    if self.wanted(self._clock()) == self._trying:
                        self._settled.set()
                    if await self._rest(LOOK_EVERY):
                        self._current = False

    async def settle(self, within: float) -> None:
        """Wait until the pod says what it should, at most so many seconds: the agent is about to end."""
        try:
            async with asyncio.timeout(within):
                await self._settled.wait()
        except TimeoutError:
            wrong = " or ".join(sorted(self.stale(self._clock())))
            if wrong:
                log.warning(
                    "kubernetes: the agent ends although the pod may still say %s=%s", self.key, wrong
                )

    async def _rest(self, seconds: float) -> bool:
        """Wait, at most until the verdict changes; True when the whole time has passed."""
        try:
            async with asyncio.timeout(seconds):
                await self._turned.wait()
        except TimeoutError:
            return True
        return False

    async def _bring(self, wanted: str | None) -> None:
        """Make the pod say `wanted`: a look, unless its version is known, and a write, if one is needed."""
        try:
            async with asyncio.timeout(self._timeout) as self._attempt:
                pod = self._pod
                if pod is None or not self._current:
                    pod = self._seen(await self.api.look())
                if pod.label == wanted and not self._given_up:
                    return
                await self._write(pod, wanted)
        except TimeoutError:
            if self._turned.is_set():
                raise _Turned from None
            raise Refused("timeout", f"{self.api.url} has not answered within {self._timeout:g} s") from None
        finally:
            self._attempt = None

    async def _write(self, pod: Pod, wanted: str | None) -> None:
        self._writes += 1
        mark = f"{self._board.identity.incarnation}/{self._writes}"
        before = frozenset(self._given_up)
        self._given_up.add(wanted)  # from here on it may be carried out, whatever we hear of it
        try:
            written = await self.api.write(pod, wanted, mark)
        except Refused as error:
            if not error.maybe_done:
                self._given_up = set(before)
            raise
        self._given_up.clear()
        written = self._seen(written)
        if written.label is None:
            log.info("kubernetes: the pod has no label %s", self.key)
        else:
            log.info("kubernetes: the pod is labelled %s=%s", self.key, written.label)

    def _seen(self, pod: Pod) -> Pod:
        if self._uid is None:
            self._uid = pod.uid
        self._ours = pod.uid == self._uid
        if not self._ours:
            why = f"the pod {self.api.pod!r} is another one now ({pod.uid}): this agent has outlived its own"
            raise Refused("stranger", why)
        self._pod, self._current = pod, True
        return pod
