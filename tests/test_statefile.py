"""What survives a restart: whole, or not at all, or a clear error."""

import contextlib
import json
import multiprocessing
import random
import subprocess
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthagent.core.peer import Candidate
from healthagent.core.view import Conflict, Maintenance, Memory, Override, Rival, Signals
from healthagent.statefile import (
    MAX_BYTES,
    NAME,
    StateError,
    Stored,
    Switch,
    boot_id,
    load,
    recall,
    save,
    stored_of,
)
from tests.builders import NOW, SYSTEM, memory, newly, served

OFF = Override(False, NOW - 5, NOW + 60, None, "alice", "reads only")
HERE, THERE = Candidate("pg1", 1), Candidate("pg2", 2)
CONFLICT = Conflict((Rival(THERE, NOW - 4),), Signals(THERE, None, HERE), None)
EVERYTHING = memory(
    conflict=CONFLICT,
    yields_to=THERE,
    forgiven=(SYSTEM, 4),
    maintenance=Maintenance(NOW + 60),
)
HISTORY = (Switch(1, 1000, "no recovery target specified", "2026-01-01T00:00:00+00:00", "pg2"),)


def stored(remembered: Memory = EVERYTHING, cluster: str = "main", boot: str = "this boot") -> Stored:
    return stored_of(remembered, cluster, boot, NOW, HISTORY)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, stored())
    assert load(tmp_path, "main") == stored()
    assert [entry.name for entry in tmp_path.iterdir()] == [NAME]


def test_nothing_saved_yet(tmp_path: Path) -> None:
    assert load(tmp_path, "main") is None
    assert recall(None, "this boot", NOW) == Memory(started_at=NOW)


def test_within_one_boot_everything_is_recalled() -> None:
    found = recall(stored(), "this boot", NOW + 7)
    assert found == Memory(
        started_at=NOW + 7,
        high_water={SYSTEM: 1},
        saved_high_water={SYSTEM: 1},
        served=served(),
        conflict=replace(CONFLICT, rivals=(Rival(THERE, NOW + 7),)),  # nobody watched it meanwhile
        yields_to=THERE,
        forgiven=(SYSTEM, 4),
        maintenance=Maintenance(NOW + 60),
    )


def test_after_a_reboot_the_instants_mean_nothing() -> None:
    found = recall(stored(), "another boot", 20.0)
    assert found.served is None
    assert found.maintenance == Maintenance(20.0 + 60)
    assert (found.high_water, found.yields_to) == ({SYSTEM: 1}, THERE)
    assert found.conflict is not None


@pytest.mark.parametrize(
    ("until", "boot", "left"),
    [
        pytest.param(None, "another boot", None, id="without an end: it stays"),
        pytest.param(NOW - 1, "another boot", 0.0, id="it had ended when the file was written"),
        pytest.param(NOW + 5, "this boot", NOW - 20.0 + 5, id="the same boot: the same instant"),
    ],
)
def test_maintenance_over_a_restart(until: float | None, boot: str, left: float | None) -> None:
    found = recall(stored(memory(maintenance=Maintenance(until))), boot, 20.0).maintenance
    assert found is not None
    assert (found.until is None and None) == left or found.until == 20.0 + (left or 0)


@pytest.mark.parametrize(
    ("was_off", "left"),
    [
        pytest.param(None, 60.0, id="a file of an older version: what was left"),
        pytest.param(0.0, 60.0, id="back at once"),
        pytest.param(45.0, 15.0, id="the time that the machine was off counts"),
        pytest.param(3600.0, 0.0, id="off for longer than was asked: over"),
        pytest.param(-1e9, 60.0, id="a wall clock that has begun anew makes it no longer than what was left"),
    ],
)
def test_maintenance_over_a_reboot_is_no_longer_than_was_asked(was_off: float | None, left: float) -> None:
    kept = memory(maintenance=Maintenance(NOW + 60, "alice", "new kernel"), override=replace(OFF))
    wall = None if was_off is None else 1.7e9
    written = stored_of(kept, "main", "this boot", NOW, (), wall)
    found = recall(written, "another boot", 20.0, None if was_off is None else 1.7e9 + was_off)
    assert found.maintenance == Maintenance(20.0 + left, "alice", "new kernel")
    assert found.override == replace(OFF, since=20.0, until=20.0 + left)


def test_a_restart_forgets_a_word_that_permits() -> None:
    assert recall(stored(memory(override=OFF)), "this boot", NOW).override == OFF
    for boot in ("this boot", "another boot"):
        assert recall(stored(memory(override=replace(OFF, on=True))), boot, NOW).override is None


def test_only_what_is_worth_keeping_is_kept() -> None:
    assert stored(newly()).high_water == {str(SYSTEM): 1}
    assert stored(newly()).served is None


@given(
    st.dictionaries(st.integers(0, 2**64 - 1), st.integers(1, 2**32 - 1), max_size=16),
    st.floats(0, 4e9),
)
def test_any_mark_makes_the_round_trip(mark: dict[int, int], now: float) -> None:
    body = msgspec.json.encode(stored_of(memory(high_water=mark), "main", "b", now, ()))
    assert recall(msgspec.json.decode(body, type=Stored), "b", now).high_water == mark


# A file that cannot be believed.


def broken(**changed: Any) -> bytes:
    content = json.loads(msgspec.json.encode(stored()))
    return json.dumps({key: value for key, value in (content | changed).items() if value != "gone"}).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(b"", "is corrupt", id="empty"),
        pytest.param(b"{", "is corrupt", id="cut off after one byte"),
        pytest.param(broken()[:-1], "is corrupt", id="cut off before the last byte"),
        pytest.param(bytes(200), "is corrupt", id="zeros, as some file systems leave after a power cut"),
        pytest.param(b"\xff" * 200, "is corrupt", id="no text"),
        pytest.param(broken() + b"x", "is corrupt", id="something behind the end"),
        pytest.param(b"[]", "is corrupt", id="a list"),
        pytest.param(b"[" * 100_000, "is corrupt", id="nested beyond reason"),
        pytest.param(
            b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "is corrupt",
            id="an unknown key, nested deep",
        ),
        pytest.param(
            b" " * (MAX_BYTES + 1), f"more than {MAX_BYTES} bytes", id="larger than anything we write"
        ),
        pytest.param(broken(boot_id="gone"), "boot_id", id="a key is missing"),
        pytest.param(broken(saved_at="soon"), "saved_at", id="a key has a wrong type"),
        pytest.param(broken(high_water={"x": 1}), "high_water", id="a mark of no system identifier"),
        pytest.param(broken(high_water={"²": 1}), "high_water", id="a digit that is no number"),
        pytest.param(broken(high_water={"9" * 5000: 1}), "high_water", id="an endless system identifier"),
        pytest.param(broken(high_water={"7": "2"}), "high_water", id="a mark that is no number"),
        pytest.param(broken(high_water={"7": 0}), "high_water", id="no timeline"),
        pytest.param(broken(high_water={"7": 2**32}), "high_water", id="too high a timeline"),
        pytest.param(broken(conflict={"rivals": []}), "conflict", id="half a conflict"),
        pytest.param(broken(v=2), "format 2, and this agent knows 1", id="a newer format"),
        pytest.param(
            b'{"v":7,"content":"reshaped"}',
            "format 7, and this agent knows 1",
            id="a newer format, all else differs",
        ),
        pytest.param(
            broken(cluster="other"),
            "belongs to cluster 'other', this agent to 'main'",
            id="another cluster's",
        ),
    ],
)
def test_a_file_that_cannot_be_believed(tmp_path: Path, body: bytes, said: str) -> None:
    path = tmp_path / NAME
    path.write_bytes(body)
    with pytest.raises(StateError) as caught:
        load(tmp_path, "main")
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert said in text
    assert len(text) < 600
    assert path.read_bytes() == body  # the evidence is left alone


def test_a_cut_at_any_byte_is_an_error_and_never_half_a_state(tmp_path: Path) -> None:
    save(tmp_path, stored())
    whole = (tmp_path / NAME).read_bytes()
    for length in range(len(whole)):
        (tmp_path / NAME).write_bytes(whole[:length])
        with pytest.raises(StateError):
            load(tmp_path, "main")


def test_unknown_keys_of_a_later_version_of_this_format_are_ignored(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(broken(lease={"term": 4}))
    assert load(tmp_path, "main") == stored()


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(StateError, match=r"state\.json: cannot be read: Is a directory"):
        load(tmp_path, "main")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"cannot be written: No such file or directory"):
        save(tmp_path / "missing", stored())


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path) -> None:
    """The limit on file sizes stands in for a full disk: the write fails half-way."""
    save(tmp_path, stored(newly()))
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from healthagent.statefile import StateError, Stored, save\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n"
        "    save(Path(sys.argv[1]), Stored('main', 'b' * 500, 1.0))\n"
        "except StateError as error:\n"
        "    sys.exit(0 if 'cannot be written: File too large' in str(error) else str(error))\n"
        "sys.exit('it was written')\n"
    )
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert load(tmp_path, "main") == stored(newly())


def test_what_a_killed_writer_leaves_beside_the_file_is_never_read(tmp_path: Path) -> None:
    save(tmp_path, stored(newly()))
    other = msgspec.json.encode(stored())
    for length in range(0, len(other), 7):
        (tmp_path / f"{NAME}.1.partial").write_bytes(other[:length])
        assert load(tmp_path, "main") == stored(newly())


def save_for_ever(directory: Path, number: int, reports: Connection) -> None:
    """Save ever higher marks and report each, until killed."""
    while True:
        number += 1
        save(directory, Stored("main", "boot", 1.0, high_water={"7": number}))
        reports.send(number)


def test_sigkill_at_any_moment_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    """A real process is killed while it saves in a loop; the file holds its last report, or the next."""
    chance, reported = random.Random(), 0
    fork = multiprocessing.get_context("fork")  # a fresh interpreter for each would take a second each
    for _ in range(100):
        reports, sending = fork.Pipe(duplex=False)
        writer = fork.Process(target=save_for_ever, args=(tmp_path, reported, sending))
        writer.start()
        sending.close()
        for _ in range(chance.randrange(1, 10)):
            reported = reports.recv()
        writer.kill()
        writer.join()
        with contextlib.suppress(EOFError):
            while True:
                reported = reports.recv()
        reports.close()
        found = load(tmp_path, "main")
        assert found is not None
        assert found.high_water["7"] in (reported, reported + 1)
        reported = found.high_water["7"]


def test_boot_id_is_that_of_the_kernel() -> None:
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()
