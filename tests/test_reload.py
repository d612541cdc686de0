"""SIGHUP: what is said to be in force is in force, and what is not is named."""

import logging
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

import pytest

from healthagent.config import Discovery, LogSettings, PeerEntry, PostgresSettings, Settings
from healthagent.daemon.parts import Parts
from healthagent.daemon.reload import take_new_settings
from healthagent.notify import Notifier

ALONE = Settings(name="pg1", state_dir=None)
LIST = replace(ALONE, peers=tuple(PeerEntry(name, f"http://{name}:8008") for name in ("pg2", "pg3")))
SHORTER = replace(ALONE, peers=LIST.peers[:1])
DNS = replace(ALONE, discovery=Discovery(expected=5, dns="healthagent"))
OTHER_PORT = replace(ALONE, discovery=Discovery(expected=5, dns="healthagent", port=8018))
MORE = replace(ALONE, discovery=Discovery(expected=7, dns="healthagent"))
SRV = replace(ALONE, discovery=Discovery(expected=5, srv="_healthagent._tcp.db"))


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("healthagent")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def running(settings: Settings) -> Parts:
    return Parts(settings, Notifier(), lambda _now: None)


def reloaded(parts: Parts, settings: Settings, folder: Path) -> list[str]:
    """Take new settings; what the log says of it."""
    path = folder / "stderr"
    with path.open("w", buffering=1) as file, redirect_stderr(file):
        logging.getLogger().handlers[:] = [logging.StreamHandler(file)]
        logging.getLogger("healthagent").setLevel("INFO")
        take_new_settings(parts, lambda: settings)
    return path.read_text().splitlines()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(LIST, DNS, id="from a list to DNS"),
        pytest.param(ALONE, DNS, id="from nobody to DNS"),
        pytest.param(DNS, LIST, id="from DNS to a list"),
        pytest.param(DNS, ALONE, id="from DNS to nobody"),
        pytest.param(DNS, OTHER_PORT, id="to another port"),
        pytest.param(DNS, MORE, id="to another number of members"),
        pytest.param(DNS, SRV, id="from addresses to services"),
    ],
)
async def test_peers_found_by_dns_need_a_restart(old: Settings, new: Settings, tmp_path: Path) -> None:
    parts = running(old)
    before = (parts.client.entries, dict(parts.board.peers), parts.board.policy)
    log = reloaded(parts, replace(new, drain=4.0), tmp_path)
    assert log[0] == "reload: peers takes effect only after a restart"
    assert log[-1].endswith("reloaded: drain")
    assert (parts.settings.peers, parts.settings.discovery) == (old.peers, old.discovery)
    after = (parts.client.entries, dict(parts.board.peers), parts.board.policy)
    assert after == (before[0], before[1], replace(before[2], drain=4.0))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(ALONE, LIST, id="from nobody"),
        pytest.param(SHORTER, LIST, id="one more"),
        pytest.param(LIST, SHORTER, id="one less"),
        pytest.param(LIST, ALONE, id="to nobody"),
    ],
)
async def test_a_list_of_peers_is_taken_at_once(old: Settings, new: Settings, tmp_path: Path) -> None:
    parts = running(old)
    assert reloaded(parts, new, tmp_path)[-1].endswith("reloaded: peers")
    names = [entry.name for entry in new.peers]
    assert [entry.name for entry in parts.client.entries] == names
    assert [*parts.board.peers] == names


async def test_the_same_dns_name_is_no_change(tmp_path: Path) -> None:
    parts = running(DNS)
    (line,) = reloaded(parts, replace(DNS), tmp_path)
    assert line.endswith("reloaded: nothing changed")


async def test_the_log_has_the_new_format_from_the_line_that_says_so(tmp_path: Path) -> None:
    parts = running(ALONE)
    (line,) = reloaded(parts, replace(ALONE, log=LogSettings(format="json")), tmp_path)
    assert line.startswith("{")
    assert '"message": "reloaded: log.format"' in line


async def test_durations_of_postgres_are_those_of_direct_questions_too(tmp_path: Path) -> None:
    parts = running(ALONE)
    reloaded(parts, replace(ALONE, postgres=PostgresSettings(interval=0.25, timeout=0.75)), tmp_path)
    assert (parts.directs._interval, parts.directs._timeout) == (0.25, 0.75)
