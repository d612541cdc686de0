"""SIGHUP: take what can change while running, and say what cannot."""

import logging
from collections.abc import Callable
from dataclasses import replace

from healthagent.clock import boottime
from healthagent.config import ConfigError, Settings, reloadable_difference, with_live_keys
from healthagent.core.peer import Peer
from healthagent.daemon.parts import Parts, poll_budget
from healthagent.events import Kind
from healthagent.logs import log_to_stderr
from healthagent.peers.client import Entry
from healthagent.policy import address_of, policy_of

log = logging.getLogger(__name__)


def take_new_settings(parts: Parts, read: Callable[[], Settings]) -> None:
    """Read the settings again and put them in force; with a problem the old ones stay."""
    try:
        settings = read()
    except ConfigError as error:
        problems = "; ".join(error.problems)
        log.warning("reload refused, the old configuration stays: %s", problems)
        count = len(error.problems)
        detail = f"{count} problem{'' if count == 1 else 's'}, see the log"  # which may quote the file
        parts.events.add(Kind.RELOAD, boottime(), reason="refused", detail=detail)
        return
    difference = reloadable_difference(parts.settings, settings)
    for key in difference.restart:
        log.warning("reload: %s takes effect only after a restart", key)
    _apply(parts, with_live_keys(parts.settings, settings))
    taken = ", ".join(difference.taken) or "nothing changed"
    log.info("reloaded: %s", taken)
    parts.events.add(Kind.RELOAD, boottime(), reason="taken", detail=taken)


def _apply(parts: Parts, settings: Settings) -> None:
    """Put everything in force that can change while running."""
    parts.settings, board, now = settings, parts.board, boottime()
    board.policy = policy_of(settings)
    board.identity = replace(board.identity, tags=settings.tags, address=address_of(settings))
    if parts.poller is not None:
        parts.poller.change(
            interval=settings.postgres.interval,
            timeout=settings.postgres.timeout,
            reconnect_every=settings.postgres.reconnect_every,
        )
    parts.tls_files.look()
    parts.callers.change(settings.checks.allow)
    parts.watchdog.budget = poll_budget(settings)
    parts.client.change(interval=settings.peer.interval, timeout=settings.peer.timeout)
    parts.client.exchange = parts.listener.exchange = parts.exchange()
    token = settings.control.token
    parts.control.token = token.reveal() if token else None
    parts.fence.settings = settings.fence
    parts.directs.change(interval=settings.postgres.interval, timeout=settings.postgres.timeout)
    parts.ask_directly()
    if settings.discovery is None:
        board.replace_peers([Peer(entry.name, entry.witness) for entry in settings.peers], now)
        parts.client.replace_entries([Entry(entry.name, entry.url) for entry in settings.peers])
    log_to_stderr(settings.log)
