"""Reading the configuration: precedence, spellings, secrets, and every complaint word for word."""

from pathlib import Path

import pytest

from healthagent.config import (
    ConfigError,
    Discovery,
    Settings,
    load,
)
from healthagent.config.gather import MAX_FILE_BYTES, TABLE
from tests.agent_yaml import loaded, settings

CONFIGS = Path(__file__).parent / "configs"


def problems(**environment: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(environment=environment)
    return caught.value.problems


# One broken file for each complaint.


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_broken_file_is_answered_with_every_problem(
    file: Path, rewrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CONFIGS)
    with pytest.raises(ConfigError) as caught:
        load(file.name, environment={})
    said = "".join(f"{problem}\n" for problem in caught.value.problems)
    assert "hunter" not in said, "a secret was repeated"
    if rewrite:
        file.with_suffix(".problems").write_text(said)
    assert said == file.with_suffix(".problems").read_text()


# Precedence.


def test_without_anything_all_is_default() -> None:
    configuration = load(environment={})
    assert configuration.settings == Settings()
    assert configuration.sources == {}


@pytest.mark.parametrize(
    ("text", "environment", "flags", "name"),
    [
        pytest.param("name: a", {}, {}, "a", id="file over default"),
        pytest.param("name: a", {"HEALTHAGENT_NAME": "b"}, {}, "b", id="environment over file"),
        pytest.param("name: a", {"HEALTHAGENT_NAME": "b"}, {"name": "c"}, "c", id="flag over environment"),
    ],
)
def test_the_nearer_source_wins(
    tmp_path: Path, text: str, environment: dict[str, str], flags: dict[str, str], name: str
) -> None:
    (tmp_path / "agent.yaml").write_text(text)
    assert load(tmp_path / "agent.yaml", environment=environment, flags=flags).settings.name == name


def test_a_variable_names_the_file_and_c_goes_before_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a")
    (tmp_path / "b.yaml").write_text("name: b")
    environment = {"HEALTHAGENT_CONFIG": str(tmp_path / "a.yaml")}
    assert load(environment=environment).settings.name == "a"
    assert load(tmp_path / "b.yaml", environment=environment).settings.name == "b"


def test_a_bad_value_is_reported_although_a_better_source_overrides_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"drain: want a duration .* got 'fast'"):
        loaded(tmp_path, "drain: fast", HEALTHAGENT_DRAIN="3s")


def test_every_source_is_complained_of_at_once_and_the_file_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            tmp_path / "no.yaml",
            environment={"HEALTHAGENT_DRAIN": "fast"},
            flags={"listen": "8008", "peers": ["pg2"]},
        )
    assert caught.value.problems == (
        f"{tmp_path}/no.yaml: cannot be read: No such file or directory",
        "HEALTHAGENT_DRAIN: want a duration such as 3s (ms, s, min or h), got 'fast'",
        "--listen: want HOST:PORT such as 0.0.0.0:8008, got '8008'",
        "--peer: want NAME=URL,NAME=URL, got 'pg2'",
    )


def test_a_rule_between_keys_is_not_checked_with_a_value_that_could_not_be_read() -> None:
    # drain 1 s is shorter than the default peer.max_age, but that is not the max_age that was meant.
    assert problems(HEALTHAGENT_DRAIN="1s", HEALTHAGENT_PEER_MAX_AGE="half") == (
        "HEALTHAGENT_PEER_MAX_AGE: want a duration such as 3s (ms, s, min or h), got 'half'",
    )


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    assert settings(tmp_path, "#" * MAX_FILE_BYTES) == Settings()
    with pytest.raises(ConfigError, match="must not be larger than 1 MiB"):
        loaded(tmp_path, "#" * (MAX_FILE_BYTES + 1))


# The environment.


def test_every_key_has_its_own_variable() -> None:
    assert len({field.variable for field in TABLE.values()}) == len(TABLE)
    assert TABLE["peer.max_age"].variable == "HEALTHAGENT_PEER_MAX_AGE"
    assert TABLE["state_dir"].variable == "HEALTHAGENT_STATE_DIR"


def test_peers_tags_and_words_have_a_short_form() -> None:
    found = load(
        environment={
            "HEALTHAGENT_PEERS": "pg2=http://10.0.0.12:8008,pg3=https://pg3",
            "HEALTHAGENT_TAGS": "zone=az1,noloadbalance=true,weight=5",
            "HEALTHAGENT_FENCE_ON": "isolated,diverged",
            "HEALTHAGENT_FENCE_COMMAND": "/usr/bin/fence --node 'pg 1'",
        }
    ).settings
    assert [(peer.name, peer.url) for peer in found.peers] == [
        ("pg2", "http://10.0.0.12:8008"),
        ("pg3", "https://pg3:443"),
    ]
    assert found.tags == {"zone": "az1", "noloadbalance": True, "weight": 5}
    assert found.fence.on == ("diverged", "isolated")
    assert found.fence.command == ("/usr/bin/fence", "--node", "pg 1")


def test_whatever_the_short_form_cannot_say_is_written_as_yaml() -> None:
    found = load(
        environment={
            "HEALTHAGENT_PEERS": "{dns: healthagent.db.svc, expected: 3}",
            "HEALTHAGENT_FENCE_COMMAND": '["/usr/bin/fence", "a b"]',
        }
    ).settings
    assert found.discovery == Discovery(expected=3, dns="healthagent.db.svc")
    assert found.peers == ()
    assert found.fence.command == ("/usr/bin/fence", "a b")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        pytest.param("DRIAN", "3s", "unknown setting (did you mean HEALTHAGENT_DRAIN?)", id="misspelled"),
        pytest.param("PORT", "8008", "unknown setting", id="port: no service link, and no setting"),
        pytest.param("DRAIN", "", "must not be empty: leave it out, or write null", id="empty"),
        pytest.param("PEERS", "pg2", "want NAME=URL,NAME=URL, got 'pg2'", id="peer without url"),
        pytest.param(
            "PEERS", "http://me:hunter2@pg2", "want NAME=URL,NAME=URL", id="a password is not repeated"
        ),
        pytest.param("PEERS", "[{name: a}]", "a.url: is missing", id="below a variable the entry is named"),
        pytest.param("PEER_SECRET", "", "must not be empty", id="empty secret"),
        pytest.param("CONTROL_TOKEN", "hunter2", "must have at least 16 characters", id="short token"),
        pytest.param("TAGS", "{a: [", "is no YAML: while parsing", id="open bracket"),
    ],
)
def test_a_variable_is_refused_by_its_name(name: str, value: str, said: str) -> None:
    first = problems(**{f"HEALTHAGENT_{name}": value})[0]
    assert first.startswith(f"HEALTHAGENT_{name}: {said}")
    assert "hunter2" not in first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("HEALTHAGENT_REASON", "diverged", id="the fence hook's"),
        pytest.param("HEALTHAGENT_AGENTS", "http://a", id="the pgpool script's"),
        pytest.param("HEALTHAGENT_SERVICE_HOST", "10.1.2.3", id="Kubernetes: host of a Service"),
        pytest.param("HEALTHAGENT_PRIMARY_SERVICE_PORT_HTTP", "8008", id="Kubernetes: a named port"),
        pytest.param("HEALTHAGENT_PORT", "tcp://10.1.2.3:8008", id="Kubernetes: the link of a port"),
        pytest.param("HEALTHAGENT_PORT_8008_TCP_ADDR", "10.1.2.3", id="Kubernetes: its address"),
        pytest.param("PGHOST", "/tmp", id="libpq's"),
    ],
)
def test_a_variable_of_others_is_left_alone(name: str, value: str) -> None:
    assert load(environment={name: value}).settings == Settings()


TEST_BED = """\
drain: 1s
isolation_after: 1s
start_alone_after: 1s
takeover_after: 1s
postgres: {interval: 200ms, timeout: 500ms, max_age: 1s}
peer: {interval: 200ms, timeout: 500ms, max_age: 1s}
peers: [{name: b, url: "http://b"}]
"""

# Both sides of the boundaries on which safety rests; the other side is in configs/.


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("drain: 2s", id="drain as long as peer.max_age"),
        pytest.param("drain: 15s", id="a drain longer than the default waits"),
        pytest.param("peer: {max_age: 1501ms}", id="peer.max_age just longer than a round"),
        pytest.param("postgres: {max_age: 1501ms}", id="postgres.max_age just longer than a poll"),
        pytest.param("replica: {max_lag: 0, max_lag_time: 0s}", id="nothing may lag"),
        pytest.param(
            "isolation: demote\nisolation_after: 100ms\npeers: [{name: b, url: 'http://b'}]", id="isolation"
        ),
        pytest.param(TEST_BED, id="all of a second, as in a test bed"),
        pytest.param(
            "postgres: {max_age: 3s}\npeers: [{name: b, url: 'http://b'}]", id="as old as peers believe"
        ),
        pytest.param("postgres: {max_age: 4s}", id="older, but without peers"),
        pytest.param(
            "drain: 5s\npeer: {timeout: 1999ms, max_age: 4s}", id="a round just within the start gate"
        ),
        pytest.param("takeover_after: 3s\nstart_alone_after: 3s", id="takeover as long as the drain"),
    ],
)
def test_allowed(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text).warnings == ()


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        pytest.param("", (10.0, 10.0), id="nothing"),
        pytest.param("drain: 10s", (10.0, 10.0), id="a drain as long as the defaults"),
        pytest.param("drain: 15s", (15.0, 15.0), id="a longer one"),
        pytest.param("drain: 15s\ntakeover_after: 20s", (15.0, 20.0), id="one of the waits is given"),
    ],
)
def test_waits_that_are_not_given_are_no_shorter_than_the_drain(
    tmp_path: Path, text: str, waits: tuple[float, float]
) -> None:
    found = loaded(tmp_path, text)
    assert (found.settings.start_alone_after, found.settings.takeover_after) == waits
    raised = {key for key, source in found.sources.items() if source == "default, as long as drain"}
    assert raised == {
        key
        for key, wait in zip(("start_alone_after", "takeover_after"), waits, strict=True)
        if wait not in (10.0, 20.0)
    }


def test_an_empty_list_of_peers_in_the_environment_takes_none_of_the_file_away(tmp_path: Path) -> None:
    said = ("HEALTHAGENT_PEERS: is empty and counts as not given",)
    alone = load(environment={"HEALTHAGENT_PEERS": " "})
    assert (alone.settings, alone.warnings) == (Settings(), said)
    text = "peers: [{name: pg2, url: 'http://pg2'}]"
    with_file = loaded(tmp_path, text, HEALTHAGENT_PEERS="")
    assert ([peer.name for peer in with_file.settings.peers], with_file.warnings) == (["pg2"], said)
    assert loaded(tmp_path, text, HEALTHAGENT_PEERS="[]").settings.peers == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "postgres: {max_age: 1s}",
            "agent.yaml:1: postgres.max_age: an answer that takes longer than 500ms makes this node refuse,"
            " though postgres.timeout allows 1s, got 1s",
            id="less than a poll may take",
        ),
        pytest.param(
            "postgres: {timeout: 1600ms}",
            "postgres.max_age: an answer that takes longer than 1.5s makes this node refuse,"
            " though postgres.timeout allows 1.6s, got 2s (default)",
            id="less than a poll may take, by default",
        ),
        pytest.param(
            "peer: {secret: hunter2hunter2h}",
            "agent.yaml:1: peer.secret: shorter than 16 characters, so it could be guessed from one message"
            " (openssl rand -hex 32 makes a good one)",
            id="a short secret",
        ),
    ],
)
def test_allowed_and_hardly_wise(tmp_path: Path, text: str, said: str) -> None:
    (warning,) = loaded(tmp_path, text).warnings
    assert warning.removeprefix(f"{tmp_path}/") == said
