"""How values are spelled: durations, sizes, addresses, peers, tags."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from healthagent.config import (
    Address,
    PeerEntry,
    Settings,
    load,
    parse_dsn,
)
from healthagent.config.document import Scalar
from healthagent.config.gather import TABLE
from healthagent.config.values import spell_duration
from tests.agent_yaml import settings


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2500ms", 2.5),
        ("3s", 3.0),
        ("3.5s", 3.5),
        ("3 s", 3.0),
        ("1m", 60.0),
        ("1min", 60.0),
        ("0.05h", 180.0),
        ("5min", 300.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    found = load(environment={"HEALTHAGENT_TAKEOVER_AFTER": text, "HEALTHAGENT_DRAIN": "2001ms"}).settings
    assert found.takeover_after == seconds


@given(st.integers(50, 60_000))
def test_a_duration_is_read_back_as_it_was_spelled(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert TABLE["postgres.interval"].parse(Scalar(spell_duration(seconds))) == pytest.approx(
        seconds, abs=1e-9
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("0B", 0),
        ("0MB", 0),
        ("1", 1),
        ("1B", 1),
        ("1kB", 1024),
        ("16MB", 1 << 24),
        ("1.5GB", 3 << 29),
        ("2TB", 2 << 40),
    ],
)
def test_sizes(tmp_path: Path, text: str, size: int) -> None:
    assert settings(tmp_path, f"replica: {{max_lag: {text}}}").replica.max_lag == size
    kind = TABLE["replica.max_lag"]
    assert kind.parse(Scalar(kind.spell(size))) == size


@pytest.mark.parametrize("word", ["true", "yes", "on", "True", "1"])
def test_flags(tmp_path: Path, word: str) -> None:
    assert settings(tmp_path, f"replica: {{require_primary: {word}}}").replica.require_primary


def test_yaml_1_1_has_no_surprises_here(tmp_path: Path) -> None:
    text = (
        "fence:\n  on: [isolated]\ntags: {zone: no, window: 10:30, code: 012, quoted: '5', at: 2024-01-01}\n"
    )
    found = settings(tmp_path, text)
    assert yaml.safe_load(text)["fence"] == {True: ["isolated"]}, "what it would be otherwise"
    assert found.fence.on == ("isolated",)
    assert found.tags == {"zone": "no", "window": "10:30", "code": "012", "quoted": "5", "at": "2024-01-01"}


def test_tags_keep_their_types(tmp_path: Path) -> None:
    found = settings(tmp_path, "tags: {noloadbalance: yes, clonefrom: true, weight: 5, share: 0.5}")
    assert found.tags == {"noloadbalance": True, "clonefrom": True, "weight": 5, "share": 0.5}
    assert [type(value) for value in found.tags.values()] == [bool, bool, int, float]


def test_an_empty_section_and_an_empty_file_are_default(tmp_path: Path) -> None:
    assert settings(tmp_path, "fence:\n  # command: x\npeer:\n") == Settings()
    assert settings(tmp_path, "\ufeff# nothing\n") == Settings()


def test_null_is_none_or_the_default(tmp_path: Path) -> None:
    found = settings(tmp_path, "name: null\nstate_dir: null\n")
    assert (found.name, found.state_dir) == (Settings().name, None)
    assert settings(tmp_path, "state_dir: /x", HEALTHAGENT_STATE_DIR="null").state_dir is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("'[::]:8008'", Address("::", 8008)),
        ("pg1.example:65535", Address("pg1.example", 65535)),
    ],
)
def test_addresses(tmp_path: Path, text: str, address: Address) -> None:
    found = settings(tmp_path, f"listen: {text}").listen
    assert found == address
    assert str(found) == text.strip("'")


def test_an_entry_of_peers(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        "peers:\n"
        "  - {name: pg2, url: 'HTTP://PG2:8008/'}\n"
        "  - {name: pg3, url: 'https://[fd00::3]', dsn: 'host=fd00::3 dbname=d', postgres: 'db:6432'}\n"
        "  - {name: w1, url: 'http://10.0.0.21:8008', witness: true}\n",
    )
    assert found.peers == (
        PeerEntry(
            "pg2",
            "http://pg2:8008",
            postgres=Address("pg2", 5432),
            agent_check=Address("pg2", 8009),
        ),
        PeerEntry(
            "pg3",
            "https://[fd00::3]:443",
            dsn=parse_dsn("postgresql://[fd00::3]/d"),
            postgres=Address("db", 6432),
            agent_check=Address("fd00::3", 8009),
        ),
        PeerEntry("w1", "http://10.0.0.21:8008", witness=True),
    )


def test_this_node_may_stand_in_its_own_list(tmp_path: Path) -> None:
    text = "name: pg1\npeers: [{name: pg1, url: 'http://10.0.0.11:8008'}]"
    assert settings(tmp_path, text).peers[0].name == "pg1"
