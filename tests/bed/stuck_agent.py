"""`healthagent` with a bug: while the file STUCK exists, questions to PostgreSQL never end, budget or not.

    STUCK=/tmp/x python -m tests.bed.stuck_agent run ...

No server can bring this about, since every wait for one has a budget: so the fault is put in by hand.
"""

import asyncio
import os

from healthagent.commands import main
from healthagent.core.model import Snapshot
from healthagent.postgres.session import Clock, Session

_ask = Session.ask


async def _ask_or_hang(self: Session, clock: Clock, deadline: float) -> Snapshot:
    while os.path.exists(os.environ["STUCK"]):  # noqa: ASYNC110, ASYNC240  # a file of this machine's own
        await asyncio.sleep(0.05)
    return await _ask(self, clock, deadline)


if __name__ == "__main__":
    Session.ask = _ask_or_hang  # type: ignore[method-assign]  # the bug
    main()
