"""Every trap is found where it is, and nothing where there is none.

tests/haproxy holds one configuration per trap, valid for HAProxy, with the expected findings beside
it (`pytest --rewrite` writes what is found now; commit only what you understand and want).
"""

import argparse
import time
from pathlib import Path
from typing import Any

import pytest

from healthagent.commands import haproxy
from healthagent.haproxy.lint import (
    MOST_BYTES,
    MOST_LINES,
    MOST_PROXIES,
    UnreadableConfiguration,
    lint,
    read_configuration,
)
from healthagent.haproxy.proxies import duration, proxies
from healthagent.haproxy.syntax import parse, words

FOLDER = Path(__file__).parent / "haproxy"
FILES = sorted(FOLDER.glob("*.cfg"))
SHIPPED = sorted((Path(__file__).parents[1] / "haproxy").glob("*.cfg"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_traps_are_found(file: Path, rewrite: bool) -> None:
    found = "".join(f"{finding.text()}\n" for finding in lint(read_configuration(file)))
    expected = file.with_suffix(".findings")
    if rewrite:
        expected.write_text(found)
    assert found == expected.read_text()
    assert bool(found) is not file.stem.startswith("good-")


@pytest.mark.parametrize("file", SHIPPED, ids=[file.name for file in SHIPPED])
def test_the_shipped_configurations_are_clean(file: Path) -> None:
    assert lint(file.read_text()) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("  mode\ttcp  ", ("mode", "tcp"), id="blanks and tabs"),
        pytest.param("mode tcp # http", ("mode", "tcp"), id="comment"),
        pytest.param("uri /a#b", ("uri", "/a"), id="comment without a blank"),
        pytest.param(r"uri /a\#b", ("uri", "/a#b"), id="escaped hash"),
        pytest.param(r"a\ b c", ("a b", "c"), id="escaped blank"),
        pytest.param(r'agent-send "primary\n"', ("agent-send", "primary\n"), id="line feed in double quotes"),
        pytest.param(r"agent-send 'primary\n'", ("agent-send", r"primary\n"), id="none in single quotes"),
        pytest.param(r"agent-send primary\n", ("agent-send", "primary\n"), id="line feed without quotes"),
        pytest.param(r"a \x2Fb", ("a", "/b"), id="hexadecimal"),
        pytest.param(""" "%{+Q}o %t"' %s' """, ("%{+Q}o %t %s",), id="quotes side by side are one word"),
        pytest.param('a "" b', ("a", "", "b"), id="an empty word"),
        pytest.param('a "b # c', ("a", "b # c"), id="a quote that is never closed"),
        pytest.param(r'"a\"b" "$HOME" "\$x"', ('a"b', "$HOME", "$x"), id="escapes in double quotes"),
        pytest.param("a \\", ("a", "\\"), id="no line continuation: a backslash is a word"),
        pytest.param("# comment", (), id="only a comment"),
    ],
)
def test_words(line: str, expected: tuple[str, ...]) -> None:
    assert words(line) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("1500", 1.5, id="milliseconds"),
        pytest.param("250ms", 0.25, id="ms"),
        pytest.param("3s", 3.0, id="s"),
        pytest.param("2m", 120.0, id="m"),
        pytest.param("1d", 86400.0, id="d"),
        pytest.param("1000us", 0.001, id="us"),
        pytest.param("$T", None, id="a variable is unknown"),
        pytest.param("-1", None, id="negative"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert duration(text) == seconds


def settings(text: str) -> list[dict[str, str]]:
    """The settings of the servers of the last proxy."""
    return [server.settings for server in proxies(parse(text))[-1].servers]


def test_server_settings_pile_up_in_the_order_of_the_lines() -> None:
    text = """
defaults base
  default-server inter 1s check
defaults unrelated
  default-server inter 9s
defaults child from base
  default-server fall 4
backend b from child
  server before 1.1.1.1:1
  default-server inter 2s port 8008
  server after 1.1.1.1:1 fall 5 no-check
"""
    assert settings(text) == [
        {"inter": "1s", "check": "", "fall": "4"},
        {"inter": "2s", "fall": "5", "port": "8008"},
    ]


def test_an_unnamed_proxy_inherits_from_the_defaults_above_it() -> None:
    text = "defaults\n default-server rise 9\ndefaults\n default-server fall 9\nbackend b\n server a h:1\n"
    assert settings(text) == [{"fall": "9"}]


def test_a_value_is_never_read_as_a_keyword() -> None:
    assert settings("backend b\n server a h:1 cookie backup check\n") == [{"cookie": "backup", "check": ""}]


def test_enabled_takes_disabled_back() -> None:
    assert settings("backend b\n default-server disabled\n server a h:1 enabled\n") == [{}]


WRITES = """
global
  hard-stop-after 30s
  max-spread-checks 50
defaults
  mode tcp
  timeout connect 500ms
  timeout check 500ms
listen writes
  tcp-request connection reject unless {{ nbsrv(writes) eq 1 }}
  option httpchk OPTIONS {path}
  http-check expect status 200
  default-server {default}
  server a 10.0.0.1:5432 {server}
  server b 10.0.0.2:5432
"""
GOOD = "check port 8008 inter 1s fall 2 rise 1 on-marked-down shutdown-sessions"


def complaints(path: str = "/primary", default: str = GOOD, server: str = "") -> list[str]:
    return [finding.what for finding in lint(WRITES.format(path=path, default=default, server=server))]


@pytest.mark.parametrize(
    "path",
    ["/", "/primary", "/primary/", "/master?x=1", "/leader", "/read-write", "/replica", "/other"],
)
def test_a_good_configuration_is_clean_whatever_it_asks_for(path: str) -> None:
    assert complaints(path=path) == []


@pytest.mark.parametrize(
    ("timing", "clean"),
    [
        pytest.param("inter 1s fastinter 1s fall 3", True, id="3 s is the limit"),
        pytest.param("inter 1s fastinter 1001ms fall 3", False, id="just over"),
        pytest.param("inter 3s fall 1", True, id="3 s at once"),
        pytest.param("inter 3001ms fall 1", False, id="just over at once"),
        pytest.param("fall 1", True, id="HAProxy's own inter, 2 s"),
        pytest.param("fastinter 500ms", True, id="HAProxy's own fall, 3"),
        pytest.param("fastinter 501ms", False, id="HAProxy's own fall, just over"),
        pytest.param('inter "$INTER"', True, id="unknown"),
    ],
)
def test_the_window_from_503_to_down(timing: str, clean: bool) -> None:
    default = f"check port 8008 on-marked-down shutdown-sessions {timing}"
    assert (complaints(default=default) == []) is clean


@pytest.mark.parametrize(
    ("path", "found"),
    [
        pytest.param("/primary", 1, id="a write backend"),
        pytest.param("/replica", 0, id="a read backend may keep sessions"),
        pytest.param("/health", 0, id="so may one for any role"),
    ],
)
def test_sessions_must_end_where_writes_go(path: str, found: int) -> None:
    text = WRITES.replace("writes", "any").format(
        path=path, default="check port 8008 inter 1s fall 2 rise 1", server=""
    )
    assert len(lint(text)) == found


@pytest.mark.parametrize(
    ("weight", "clean"), [pytest.param(99, False, id="below 100"), pytest.param(100, True, id="100")]
)
def test_weights_with_percentages(weight: int, clean: bool) -> None:
    agent = f'{GOOD} agent-check agent-port 8009 agent-send "replica\\n" weight {weight}'
    assert (complaints(path="/replica", default=agent) == []) is clean


@pytest.mark.parametrize(
    ("condition", "guards"),
    [
        pytest.param("reject unless { nbsrv(p) eq 1 }", True, id="unless one"),
        pytest.param("reject unless { nbsrv(p) 1 }", True, id="eq may be left out"),
        pytest.param("reject if { nbsrv(p) gt 1 }", True, id="if more than one"),
        pytest.param("reject if ! { nbsrv(p) lt 2 }", True, id="if not fewer than two"),
        pytest.param("reject if { src 10.0.0.9 } or { nbsrv(p) ge 2 }", True, id="or somebody else"),
        pytest.param("reject", True, id="always"),
        pytest.param("reject unless { nbsrv eq 1 }", True, id="of the backend that asks"),
        pytest.param("reject unless { nbsrv() eq 1 }", True, id="the same, with parentheses"),
        pytest.param("reject unless { nbsrv 1 }", True, id="the same, without eq"),
        pytest.param("reject unless { nbsrv(p) -m int eq 1 }", True, id="as numbers"),
        pytest.param("reject unless { nbsrv -m int 1 }", True, id="as numbers, the shortest"),
        pytest.param("reject unless { nbsrv(p) -m found }", False, id="the count is there, whatever it is"),
        pytest.param("reject unless { nbsrv ge 1 }", False, id="of the backend that asks, one or more"),
        pytest.param("reject unless { nbsrv }", False, id="nothing to compare with"),
        pytest.param("reject unless { nbsrvs eq 1 }", False, id="another word"),
        pytest.param("reject if { nbsrv(p) lt 1 }", False, id="only none"),
        pytest.param("reject unless { nbsrv(p) ge 1 }", False, id="one or more"),
        pytest.param("reject if { src 10.0.0.9 } { nbsrv(p) ge 2 }", False, id="and somebody else"),
        pytest.param("reject unless { nbsrv(p) eq 1 } || { src 10.0.0.9 }", False, id="unless somebody else"),
        pytest.param("reject if { nbsrv(q) ge 2 }", False, id="of another backend"),
        pytest.param("reject if { nbsrv(p) ge $N }", False, id="a number that is not known"),
        pytest.param("accept unless { nbsrv(p) eq 1 }", False, id="accept"),
        pytest.param("reject if {", False, id="cut short"),
        pytest.param("reject when { nbsrv(p) ge 2 }", False, id="no condition at all"),
    ],
)
def test_what_guards_against_two_primaries(condition: str, guards: bool) -> None:
    text = WRITES.format(path="/primary", default=GOOD, server="").replace(
        "reject unless { nbsrv(writes) eq 1 }", condition.replace("(p)", "(writes)")
    )
    assert ([finding.what for finding in lint(text)] == []) is guards


BACKEND = """
global
  hard-stop-after 30s
  max-spread-checks 50
defaults
  mode tcp
  timeout connect 500ms
  timeout check 500ms
frontend {listener}
  default_backend {backend}
backend {backend}
  {rule}
  option httpchk OPTIONS /primary
  http-check expect status 200
  default-server check port 8008 inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
  server a 10.0.0.1:5432
  server b 10.0.0.2:5432
"""


@pytest.mark.parametrize(
    ("rule", "guards"),
    [
        pytest.param("tcp-request content reject unless { nbsrv eq 1 }", True, id="itself"),
        pytest.param("tcp-request content reject unless { nbsrv(pg_primary) eq 1 }", True, id="by its name"),
        pytest.param("tcp-request content reject unless { nbsrv ge 1 }", False, id="one or more"),
    ],
)
def test_a_backend_can_be_its_own_guard(rule: str, guards: bool) -> None:
    text = BACKEND.format(listener="pg_write", backend="pg_primary", rule=rule)
    assert ([finding.what for finding in lint(text)] == []) is guards


UNASKED = """
defaults
  mode tcp
frontend {listener}
  default_backend {backend}
backend {backend}
  {rule}
  server a 10.0.0.1:{port} {server}
  server b 10.0.0.2:{port} {second}
"""


def blind(
    backend: str = "pg_primary",
    listener: str = "clients",
    rule: str = "",
    port: int | str = 5432,
    server: str = "check",
    second: str = "check",
) -> bool:
    """Whether lint says that this backend cannot tell who is primary, and nothing else."""
    text = UNASKED.format(
        backend=backend, listener=listener, rule=rule, port=port, server=server, second=second
    )
    found = lint(text)
    assert len(found) <= 1
    return bool(found)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *(
            (name, True)
            for name in ("pg_primary", "primary", "master_postgresql", "pgmaster", "postgres-leader")
        ),
        *(
            (name, True)
            for name in ("PgPrimary", "db_write", "writers", "read-write", "pg_rw", "pg_write_pool")
        ),
        *((name, False) for name in ("pg_any", "postgres", "pg_replica", "pg_ro", "reads", "pg_read_only")),
        *(
            (name, False)
            for name in ("primary_and_replicas", "pg_standby_of_primary", "leaderboard", "rework")
        ),
        *((name, False) for name in ("pgbouncer_rw", "pgpool-primary", "primary_proxy", "pg_multi_master")),
    ],
)
def test_a_name_says_that_writes_come(name: str, says: bool) -> None:
    assert blind(backend=name) is says
    assert blind(listener=name, backend="nodes") is says


def test_the_name_of_a_backend_counts_more_than_a_listener_s() -> None:
    assert not blind(backend="pg_replica", listener="pg_primary")


def test_a_listener_that_leads_to_several_backends_says_nothing() -> None:
    more = "backend other\n server a h:1 check\nfrontend pg_primary\n default_backend nodes\n"
    text = UNASKED.format(
        listener="clients", backend="nodes", rule="", port=5432, server="check", second="check"
    )
    assert len(lint(text + more)) == 1
    assert lint(text + more + " use_backend other if { src 10.0.0.9 }\n") == []


@pytest.mark.parametrize(
    ("case", "found"),
    [
        pytest.param({"port": 5399}, False, id="a port below PostgreSQL's"),
        pytest.param({"port": 5400}, True, id="the first port that is taken for PostgreSQL's"),
        pytest.param({"port": 5499}, True, id="the last one"),
        pytest.param({"port": 5500}, False, id="a port above"),
        pytest.param({"port": 6432}, False, id="poolers"),
        pytest.param({"port": 6432, "server": "check port 8008"}, False, id="poolers, one of them asked"),
        pytest.param(
            {"port": 6432, "server": "check port 8008", "second": "check port 8008"},
            True,
            id="poolers on nodes",
        ),
        pytest.param({"port": "${PORT}"}, True, id="a port that is not known, PostgreSQL by its name"),
        pytest.param({"port": "${PORT}", "backend": "master"}, False, id="a port that is not known"),
        pytest.param(
            {"rule": "server-template t 3 primary.pg.service:5432 check"},
            False,
            id="a name service that may know",
        ),
        pytest.param({"server": "", "second": ""}, True, id="no check at all"),
        pytest.param(
            {"server": "", "second": "backup"}, False, id="no check, and a spare that is never used"
        ),
        pytest.param({"second": "check backup"}, True, id="a spare that is used when a check fails"),
        pytest.param({"second": "check disabled"}, False, id="one that a person switches on"),
        pytest.param({"second": "check weight 0"}, False, id="one that a person gives a weight"),
        pytest.param({"server": "track x/a", "second": "track x/b"}, False, id="somebody else's checks"),
        pytest.param({"rule": "use-server a if { src 10.0.0.9 }"}, False, id="a rule says which"),
        pytest.param({"rule": "mode http"}, False, id="the web"),
        pytest.param({"rule": "option tcp-check"}, True, id="tcp-check without a question"),
        pytest.param(
            {"rule": "option tcp-check\n tcp-check expect string x"}, False, id="tcp-check with one"
        ),
        pytest.param({"rule": "option external-check"}, False, id="a program that may know"),
        pytest.param({"rule": "option redis-check"}, False, id="another database"),
        pytest.param(
            {"backend": "pg_any", "second": "check port 8008"}, True, id="an agent, and no question"
        ),
        pytest.param(
            {"backend": "pg_any", "second": "check port 8009"}, False, id="another port, and any node"
        ),
        pytest.param(
            {"backend": "any", "port": 443, "server": "check port 8008", "second": "check port 8008"},
            False,
            id="somebody else's port 8008",
        ),
    ],
)
def test_whose_check_cannot_tell_a_primary(case: dict[str, Any], found: bool) -> None:
    assert blind(**case) is found


@pytest.mark.parametrize(
    ("path", "every_role"),
    [
        *((path, True) for path in ("/health", "/liveness", "/readiness?lag=1MB", "/read-only/", "/patroni")),
        *((path, False) for path in ("/replica", "/primary", "/mine")),
    ],
)
def test_a_path_at_which_a_replica_says_yes_too(path: str, every_role: bool) -> None:
    found = [finding.what for finding in lint(WRITES.format(path=path, default=GOOD, server=""))]
    assert found == ([f"asks `{path}`, and takes writes by its name"] if every_role else [])
    assert lint(WRITES.replace("writes", "any").format(path=path, default=GOOD, server="")) == []


def test_a_check_that_asks_for_health_first_and_for_the_primary_then_is_good() -> None:
    more = "http-check send meth GET uri /health\n  http-check send meth GET uri /primary"
    text = WRITES.format(path="/", default=GOOD, server="")
    assert lint(text.replace("http-check expect", f"{more}\n  http-check expect")) == []


@pytest.mark.parametrize(
    ("expected", "clean"),
    [
        pytest.param("status 200", True, id="status 200"),
        pytest.param('comment "not 404" min-recv 12 error-status L7RSP status 200', True, id="after options"),
        pytest.param("!!status 200", True, id="negated twice"),
        pytest.param("rstatus ^200$", True, id="as an expression"),
        pytest.param("! status 503\n  http-check expect status 200", True, id="one line of several"),
        pytest.param('status "$OK"', True, id="unknown"),
        pytest.param("status 200,204", False, id="two answers"),
        pytest.param("status 200-399", False, id="a range"),
        pytest.param("! status 503", False, id="everything but one"),
        pytest.param("!status 200", False, id="everything but 200"),
        pytest.param('rstatus "^[23]"', False, id="an expression for more"),
        pytest.param("! rstatus ^5", False, id="not an expression"),
        pytest.param('string "primary"', False, id="the body alone, which has the word in a 503 too"),
        pytest.param("hdr name x-ok", False, id="a header alone"),
    ],
)
def test_what_a_check_takes_for_a_yes(expected: str, clean: bool) -> None:
    text = WRITES.format(path="/primary", default=GOOD, server="")
    assert (lint(text.replace("expect status 200", f"expect {expected}")) == []) is clean


@pytest.mark.parametrize(
    ("limit", "clean"),
    [
        pytest.param("5m", True, id="the limit"),
        pytest.param("300001ms", False, id="just over"),
        pytest.param("0", False, id="no limit at all"),
        pytest.param('"${LIMIT}"', True, id="unknown"),
        pytest.param("1d\n  hard-stop-after 1m", True, id="the last line counts"),
    ],
)
def test_how_long_an_old_process_may_live(limit: str, clean: bool) -> None:
    text = WRITES.format(path="/primary", default=GOOD, server="")
    assert (lint(text.replace("hard-stop-after 30s", f"hard-stop-after {limit}")) == []) is clean


@pytest.mark.parametrize(
    ("name", "port", "taken"),
    [
        pytest.param("pg", 7777, True, id="PostgreSQL by its name"),
        pytest.param("master", 7777, True, id="a master of something"),
        pytest.param("master", 3306, False, id="a master of MySQL"),
        pytest.param("primary", 1023, False, id="a privileged port"),
        pytest.param("primary", 1024, True, id="the first port that is not"),
    ],
)
def test_the_path_of_everybody_is_judged_only_where_it_looks_like_postgresql(
    name: str, port: int, taken: bool
) -> None:
    text = f"listen {name}\n option httpchk\n server a h:{port} check port 9000\n"
    assert (lint(text) != []) is taken


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"a" * (MOST_BYTES + 1), "must be at most 1048576 bytes", id="one byte too many"),
        pytest.param(b"\n" * MOST_LINES, "must have at most 10000 lines, has 10001", id="one line too many"),
        pytest.param(b"global\n  \0", "must be text, got a NUL byte in line 2", id="binary"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_bytes(content)
    with pytest.raises(UnreadableConfiguration, match=problem):
        read_configuration(file)


def test_the_largest_allowed_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_bytes(b"\n" * (MOST_LINES - 1) + b"#" * (MOST_BYTES - MOST_LINES + 1))
    assert lint(read_configuration(file)) == []


def test_too_many_proxies_are_refused() -> None:
    assert lint("backend b\n" * MOST_PROXIES) == []
    with pytest.raises(UnreadableConfiguration, match="must have at most 500 proxies, has 501"):
        lint("backend b\n" * (MOST_PROXIES + 1))


PRIMARY_CHECK = " option httpchk /primary\n server-template a 9 1.1.1.1:1 check\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x " + '"\\' * 500_000, id="a megabyte of quotes in one line"),
        pytest.param("x " + "{ ! || " * 100_000, id="a megabyte of braces"),
        pytest.param("listen pg\n acl x " + "nbsrv(" * 150_000, id="a megabyte of counts"),
        pytest.param("listen pg\n acl x " + "srv_is_up(" * 100_000, id="a megabyte of servers"),
        pytest.param("backend b\n" + " server " * 100_000, id="a server line without an end"),
        pytest.param(
            "defaults\n"
            + " tcp-request connection reject if x or !y\n" * 8000
            + ("listen pg\n use_backend %[x]\n" + PRIMARY_CHECK) * 450,
            id="everything leads everywhere",
        ),
        pytest.param(
            "defaults\n"
            + " default-server check inter 1s a b c\n" * 8000
            + "listen pg\n server a h:1\n" * 500,
            id="everything inherits everything",
        ),
        pytest.param("\udcff\u202e\x1b[2Jbackend \x1b]0;x\x07\n server \x1b[2J\n", id="terminal escapes"),
        pytest.param(
            "backend\nlisten from\n server\n option\n no\n use_backend\n bind\n", id="words missing"
        ),
        pytest.param(
            "listen pg\n"
            + "".join(
                f" {line}\n"
                for line in (
                    "option httpchk",
                    "http-check",
                    "http-check send uri",
                    "http-check connect port",
                    "balance",
                    "hash-type",
                    "acl",
                    "acl x",
                    "default_backend",
                    "timeout check",
                    "stats admin",
                    "tcp-request",
                    "tcp-request connection",
                    "server-template a",
                    "server-template a x-y h:1",
                    "server a h:99999999",
                    "server a h:1 inter",
                    "load-server-state-from-file",
                    "default-server",
                    "mode",
                    "no option",
                )
            ),
            id="values missing",
        ),
    ],
)
def test_hostile_files_are_judged_quickly_and_without_a_crash(text: str) -> None:
    begun = time.process_time()  # the machine may be busy with other things
    findings = lint(text)
    assert time.process_time() - begun < 10  # it takes 2 s at most
    assert all(finding.text().isprintable() for finding in findings)


def run(file: Path) -> int:
    parser = argparse.ArgumentParser()
    haproxy.add_parser(parser.add_subparsers())
    return haproxy.run(parser.parse_args(["haproxy", "lint", str(file)]))


def test_the_command_prints_a_line_per_finding_and_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    file = FOLDER / "backup-server.cfg"
    assert run(file) == 1
    expected = file.with_suffix(".findings").read_text()
    assert capsys.readouterr() == (f"{file}:{expected}", "")


def test_the_command_is_silent_and_exits_0_without_findings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FOLDER / "good-simple.cfg") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["missing", "folder", "binary"])
def test_the_command_exits_2_on_what_it_cannot_read(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "haproxy.cfg"
    if kind == "folder":
        file.mkdir()
    elif kind == "binary":
        file.write_bytes(b"\x7fELF\0")
    assert run(file) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{file}: must be ")
