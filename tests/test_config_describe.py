"""The example, what is in force, the schema, a reload, and the command that prints them."""

import argparse
import importlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from healthagent.commands import VERBS
from healthagent.commands import config as command
from healthagent.config import (
    Difference,
    Discovery,
    PeerEntry,
    Secret,
    Settings,
    example,
    load,
    reloadable_difference,
    schema,
    show,
)
from healthagent.config.gather import TABLE
from tests.agent_yaml import loaded, written
from tests.bed.command import ran

FULL = """\
name: pg1
cluster: "true"
listen: "[::1]:8008"
state_dir: null
postgres: {dsn: "host=/run/postgresql user=me", address: "db:6432", interval: 250ms}
system_identifier: 7012345678901234567
isolation: demote
peers:
  - {name: pg2, url: "http://10.0.0.12:8008", dsn: "postgresql://me@10.0.0.12/postgres"}
  - {name: "w 1", url: "http://10.0.0.21:8008", witness: true}
replica: {max_lag: 16MB, max_lag_time: 2h, require_primary: true}
tags: {noloadbalance: true, zone: "no", weight: 5, share: 0.5, text: "5"}
fence: {command: [/usr/bin/env, "a b", "-x"], "on": [isolated]}
log: {level: debug, format: json}
"""


def test_the_example_is_exactly_the_defaults(tmp_path: Path) -> None:
    configuration = load(written(tmp_path, example()), environment={})
    assert configuration.settings == Settings()
    assert set(configuration.sources) == set(TABLE), "a key is missing in the example"


def test_the_example_explains_every_key_in_lines_that_fit() -> None:
    lines = example().splitlines()
    assert max(map(len, lines)) <= 110
    assert sum("Default: " in line or "Default:" in line for line in lines) == len(TABLE)


def test_the_schema_accepts_the_example_and_a_full_file() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    for text in (example(), FULL, "peers: {dns: healthagent.db.svc, expected: 3}"):
        jsonschema.validate(yaml.safe_load(text), schema())


@pytest.mark.parametrize(
    "text",
    ["drian: 3s", "drain: 3", "peers: [{name: pg2}]", "log: {level: loud}", "replica: {max_lag: 16mb}"],
)
def test_the_schema_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), schema())


@pytest.mark.parametrize(
    "text",
    [FULL, "peers: {srv: _healthagent._tcp.db, expected: 3, scheme: https}", ""],
    ids=["full", "srv", "none"],
)
def test_what_is_shown_reads_back_as_the_same_settings(tmp_path: Path, text: str) -> None:
    configuration = load(written(tmp_path, text), environment={})
    shown = show(configuration)
    assert load(written(tmp_path, shown), environment={}).settings == configuration.settings


def test_show_says_where_each_value_came_from_and_no_secret(tmp_path: Path) -> None:
    secret = "correct horse battery staple"
    file = written(tmp_path, f"postgres: {{dsn: 'postgresql://me:hunter2@db/'}}\npeer:\n  secret: {secret}\n")
    shown = show(load(file, environment={"HEALTHAGENT_DRAIN": "4s"}, flags={"name": "pg1"}))
    assert "name: pg1  # --name\n" in shown
    assert "drain: 4s  # HEALTHAGENT_DRAIN\n" in shown
    assert "cluster: main  # default\n" in shown
    assert f'  secret: "***"  # {file}:3\n' in shown
    assert f'  dsn: "postgresql://me:***@db/"  # {file}:1\n' in shown
    assert secret not in shown
    assert "hunter2" not in shown


def test_a_reload_says_what_it_takes_and_what_needs_a_restart() -> None:
    old = Settings()
    new = replace(
        old,
        name="other",
        drain=4.0,
        peers=(PeerEntry("pg2", "http://pg2:8008"),),
        peer=replace(old.peer, secret=Secret("correct horse battery staple")),
        log=replace(old.log, level="debug"),
        checks=replace(old.checks, listen=old.listen),
    )
    assert reloadable_difference(old, new) == Difference(
        taken=("drain", "peers", "peer.secret", "log.level"), restart=("name", "checks.listen")
    )
    assert reloadable_difference(old, old) == Difference((), ())
    by_dns = replace(old, discovery=Discovery(expected=3, dns="healthagent"))
    assert reloadable_difference(new, replace(by_dns, name="other")).restart == ("peers", "checks.listen")
    assert reloadable_difference(by_dns, old) == Difference((), ("peers",))


def test_who_this_node_is_needs_a_restart_and_how_it_judges_does_not() -> None:
    fixed = {path for path, field in TABLE.items() if not field.key.live}
    assert fixed >= {
        *("name", "cluster", "listen", "state_dir", "witness", "mode", "postgres.dsn", "postgres.password"),
        *("agent_check.listen", "checks.listen", "control.socket"),
        *("tls.cert", "tls.key", "tls.ca", "tls.client_ca"),
    }
    judging = ("peers", "drain", "tags", "isolation", "on_conflict", "system_identifier", "log.level")
    assert fixed.isdisjoint(judging)
    assert not [path for path in fixed if path.startswith(("peer.", "replica.", "fence."))]


# The command.


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    command.add_parser(subparsers)
    run_parser = subparsers.add_parser("run")
    command.add_file(run_parser)
    command.add_flags(run_parser)
    return parser.parse_args(words)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in TABLE.values():
        monkeypatch.delenv(field.variable, raising=False)


def test_check_is_0_without_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(parsed("config", "check", "-c", str(written(tmp_path, FULL)))) == 0
    assert capsys.readouterr() == ("no problems\n", "")


@pytest.mark.parametrize("action", ["check", "show"])
def test_with_problems_it_is_2_and_all_are_on_standard_error(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, "drian: 3s\ndrain: fast\n")
    assert command.run(parsed("config", action, "-c", str(file))) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"{file}:1: drian: unknown setting (did you mean drain?)\n"
        f"{file}:2: drain: want a duration such as 3s (ms, s, min or h), got 'fast'\n"
    )


def test_a_warning_is_said_and_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "control: {token: correct horse battery staple}")
    file.chmod(0o644)
    assert command.run(parsed("config", "check", "-c", str(file))) == 0
    assert capsys.readouterr().err.startswith(f"warning: {file}:1: control.token: every user")


def test_a_fence_command_that_is_no_program_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "fence.sh"
    script.write_text("#!/bin/sh\n")
    file = written(tmp_path, f"fence:\n  command: [{script}, now]\n")
    said = (
        f"warning: {file}:2: fence.command: no program that this user can run, so no fence, got '{script}'\n"
    )
    for mode, warning in ((0o755, ""), (0o644, said)):
        script.chmod(mode)
        assert command.run(parsed("config", "check", "-c", str(file))) == 0
        assert capsys.readouterr().err == warning
    script.unlink()
    assert command.run(parsed("config", "check", "-c", str(file))) == 0
    assert capsys.readouterr().err == said
    assert loaded(tmp_path, "fence: {command: true}").warnings == ()  # found on the PATH


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--dsn", "postgresql://me:hunter2@db/app"),
        ("--dsn", "host=db user=me password=hunter2"),
        ("--dsn", "postgresql://db/?sslpassword=hunter2"),
        ("--peer", '[{name: b, url: "http://b", dsn: "postgresql://me:hunter2@b/app"}]'),
    ],
)
def test_a_password_in_an_argument_is_warned_of(flag: str, value: str) -> None:
    """Every user of the machine sees it in the list of processes; it works all the same, as with psql."""
    flags = command.given_flags(parsed("run", flag, value))
    [warning] = load(environment={}, flags=flags).warnings
    assert warning.startswith(f"{flag}: every user of this machine can read the password in the list of proc")
    assert warning.endswith("use postgres.password_file, PGPASSFILE or HEALTHAGENT_POSTGRES_DSN")
    assert "hunter2" not in warning


def test_without_a_password_or_elsewhere_there_is_no_warning() -> None:
    taken = load(environment={}, flags={"postgres.dsn": "postgresql://me@db/app", "peers": ["b=http://b"]})
    assert taken.warnings == ()
    secret = load(environment={"HEALTHAGENT_POSTGRES_DSN": "postgresql://me:hunter2@db/app"})
    assert secret.warnings == ()


def test_run_says_warnings_in_the_form_of_its_log(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = f"listen: {address}\nlog: {{format: json}}\nfence: {{command: /no/such}}\nstate_dir: null\n"
        done = ran("run", "-c", str(written(tmp_path, text)))
    warning, refusal = done.stderr.splitlines()
    assert (done.returncode, refusal) == (1, f"listen: {address}: Address already in use")
    said = json.loads(warning)
    assert (said["level"], said["logger"]) == ("warning", "healthagent.commands.run")
    place = f"configuration: {tmp_path}/agent.yaml:3: fence.command"
    assert said["message"] == f"{place}: no program that this user can run, so no fence, got '/no/such'"


def test_example_schema_and_show_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(parsed("config", "example")) == 0
    assert capsys.readouterr().out == example()
    assert command.run(parsed("config", "schema")) == 0
    assert json.loads(capsys.readouterr().out) == schema()
    assert command.run(parsed("config", "show", "-c", str(written(tmp_path, "drain: 4s")))) == 0
    assert "drain: 4s  # " in capsys.readouterr().out


def test_flags_become_settings() -> None:
    peers = ("--peer", "b=http://b", "--peer", "c=http://c")
    words = ("run", "--name", "pg1", "--dsn", "postgresql://db/", *peers, "--witness")
    flags = command.given_flags(parsed(*words))
    assert flags == {
        "name": "pg1",
        "postgres.dsn": "postgresql://db/",
        "peers": ["b=http://b", "c=http://c"],
        "witness": True,
    }
    assert command.given_flags(parsed("run")) == {}


def test_the_example_says_nothing_of_the_program() -> None:
    assert not re.search(r"\blive\b", example())


# The command line as a whole.


def parsers(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, inner in action.choices.items():
                yield from parsers(inner, f"{name} {verb}")


def test_the_help_of_every_command_shows_an_example_of_it() -> None:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    for module in VERBS.values():
        importlib.import_module(f"healthagent.commands.{module}").add_parser(subparsers)
    found = dict(parsers(parser, "healthagent"))
    assert len(found) > len(VERBS)
    del found["healthagent"]  # names its verbs
    assert [name for name, one in found.items() if f"\n  {name}" not in one.format_help()] == []
