"""Rendering an HAProxy configuration: what stands in it, and every reason why it cannot be written."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest

from healthagent.commands import haproxy
from healthagent.config import load
from healthagent.haproxy.lint import lint
from healthagent.haproxy.members import agents_use_tls, nodes_of
from healthagent.haproxy.nodes import (
    MAX_NODES,
    HaproxyNode,
    NodeError,
    ServerTemplate,
    node_problems,
    parse_node,
    parse_template,
    template_problems,
)
from healthagent.haproxy.options import AgentTls, Options, option_problems
from healthagent.haproxy.render import render, render_template
from healthagent.haproxy.servers import shared_agents
from healthagent.haproxy.syntax import parse

SHIPPED = Path(__file__).parents[1] / "haproxy"
THREE = [HaproxyNode(f"pg{number}", f"10.0.0.1{number}") for number in (1, 2, 3)]
EVERY_KIND = [
    pytest.param(THREE, Options(), id="gate"),
    pytest.param(THREE, Options(simple=True), id="simple"),
    pytest.param(THREE, Options(simple=True, stats_port=None), id="simple without stats"),
    pytest.param(THREE, Options(tls=AgentTls("/etc/ca.pem", "/etc/me.pem")), id="gate over TLS"),
    pytest.param(THREE, Options(simple=True, tls=AgentTls(None)), id="simple over TLS"),
    pytest.param([HaproxyNode("a", "pg-0.pg")], Options(nameserver="resolv.conf"), id="names from DNS"),
    pytest.param([HaproxyNode("a", "::1", agent_port=None)], Options(bind="::1", user=""), id="IPv6"),
]


def lines_of(text: str, section: str, start: str) -> list[str]:
    """The lines of one section that begin with a word."""
    [found] = [one for one in parse(text) if one.where() == section]
    return [" ".join(line.words) for line in found.lines if line.words[0] == start]


@pytest.mark.parametrize(("file", "simple"), [("haproxy.cfg", False), ("simple.cfg", True)])
def test_the_shipped_files_are_what_is_rendered_for_three_nodes(file: str, simple: bool) -> None:
    options = Options(simple=True, stats_port=None) if simple else Options()
    assert (SHIPPED / file).read_text() == render(THREE, options)


def test_the_simple_file_has_forty_lines_besides_its_comments() -> None:
    lines = [line.strip() for line in (SHIPPED / "simple.cfg").read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith("#")]) == 40


@pytest.mark.parametrize(
    ("options", "port"),
    [
        pytest.param(Options(), 7000, id="gate"),
        pytest.param(Options(stats_port=7001), 7001, id="gate, another port"),
        pytest.param(Options(simple=True), 7000, id="simple"),
        pytest.param(Options(simple=True, stats_port=None), None, id="none"),
    ],
)
def test_where_the_stats_page_is(options: Options, port: int | None) -> None:
    text = render(THREE, options)
    assert ("frontend stats" in text) is (port is not None)
    assert text.splitlines()[0].endswith(f"stats and /metrics: 127.0.0.1:{port}.") is (port is not None)
    assert (f"    bind 127.0.0.1:{port}\n" in text) is (port is not None)


@pytest.mark.parametrize(("nodes", "options"), EVERY_KIND)
def test_lint_finds_nothing_in_what_is_rendered(nodes: list[HaproxyNode], options: Options) -> None:
    assert lint(render(nodes, options)) == []


def test_lint_finds_nothing_in_a_rendered_template() -> None:
    options = Options(simple=True, nameserver="10.0.0.53:53")
    assert lint(render_template(ServerTemplate("pg", "pg.db.svc", 3), options)) == []


def test_each_node_has_its_rule_in_the_gate_and_in_the_guard() -> None:
    text = render(THREE, Options())
    for node in THREE:
        rule = f"{{ path /{node.name} }} {{ srv_is_up(pg_probe/{node.name}) }}"
        assert f"http-request return status 200 if {rule}" in lines_of(text, "frontend gate", "http-request")
        both = f"{{ srv_is_up(pg_probe/{node.name}) }} {{ srv_is_up(pg_primary/{node.name}) }}"
        assert f"tcp-request connection accept if {both}" in lines_of(
            text, "frontend pg_write", "tcp-request"
        )


def test_a_server_line_says_only_where_its_node_differs() -> None:
    nodes = [
        HaproxyNode("usual", "10.0.0.1"),
        HaproxyNode("also-usual", "10.0.0.2", 5433),
        HaproxyNode("other-ports", "10.0.0.3", http_port=8018, agent_port=8019),
        HaproxyNode("no-agent", "10.0.0.4", agent_port=None),
        HaproxyNode("agent-elsewhere", "10.0.0.5", http_host="10.1.0.5"),
        HaproxyNode("check-elsewhere", "10.0.0.6", http_host="10.1.0.6", agent_host="10.0.0.6"),
    ]
    assert lines_of(render(nodes, Options()), "backend pg_probe", "server") == [
        "server usual 10.0.0.1:5432",
        "server also-usual 10.0.0.2:5433",
        "server other-ports 10.0.0.3:5432 port 8018 agent-port 8019",
        "server no-agent 10.0.0.4:5432 no-agent-check",
        "server agent-elsewhere 10.0.0.5:5432 addr 10.1.0.5",
        "server check-elsewhere 10.0.0.6:5432 addr 10.1.0.6 agent-addr 10.0.0.6",
    ]


def test_without_any_agent_port_there_is_no_agent_check() -> None:
    nodes = [HaproxyNode("a", "10.0.0.1", agent_port=None), HaproxyNode("b", "10.0.0.2", agent_port=None)]
    assert "agent-check" not in render(nodes, Options())


def test_nodes_that_would_share_an_agent_check_have_none_and_the_file_says_why() -> None:
    nodes = [
        HaproxyNode("a", "127.0.0.1", 5432),
        HaproxyNode("b", "127.0.0.1", 5433, 8018),
        HaproxyNode("c", "10.0.0.3"),
    ]
    text = render(nodes, Options())
    for backend in ("backend pg_probe", "backend pg_replica"):
        assert lines_of(text, backend, "server") == [
            "server a 127.0.0.1:5432 no-agent-check",
            "server b 127.0.0.1:5433 port 8018 no-agent-check",
            "server c 10.0.0.3:5432",
        ]
    assert text.count("# No agent-check of a, b: each would be at 127.0.0.1:8009.\n") == 2
    alone = render(nodes[:2], Options())
    assert "agent-port" not in alone
    assert "# No agent-check of a, b: " in alone
    assert lint(alone) == []


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        pytest.param(HaproxyNode("b", "10.0.0.1", 5433, 8018), True, id="the same address"),
        pytest.param(HaproxyNode("b", "10.0.0.1", 5433, 8018, 8019), False, id="a port of its own"),
        pytest.param(HaproxyNode("b", "10.0.0.1", 5433, 8018, None), False, id="no agent-check"),
        pytest.param(HaproxyNode("b", "h", agent_host="10.0.0.1"), True, id="the agent-check elsewhere"),
        pytest.param(HaproxyNode("b", "h", http_host="10.0.0.1"), True, id="the agent elsewhere"),
        pytest.param(HaproxyNode("b", "10.0.0.1", 5433, 8018, agent_host="h"), False, id="another host"),
    ],
)
def test_which_nodes_would_share_an_agent_check(other: HaproxyNode, shared: bool) -> None:
    nodes = [HaproxyNode("a", "10.0.0.1"), other]
    assert list(shared_agents(nodes)) == (["10.0.0.1:8009"] if shared else [])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("::1", "0:0::1", id="IPv6 in two spellings"),
        pytest.param("pg1", "PG1.", id="one name in two spellings"),
    ],
)
def test_an_address_is_known_again_in_another_spelling(one: str, other: str) -> None:
    assert len(shared_agents([HaproxyNode("a", one), HaproxyNode("b", other, 5433, 8018)])) == 1


def test_the_backend_behind_the_gate_has_nothing_of_the_agents() -> None:
    text = render(THREE, Options(tls=AgentTls("/etc/ca.pem")))
    defaults = lines_of(text, "backend pg_primary", "default-server")
    assert defaults == [
        "default-server check inter 100ms fall 1 rise 1 on-marked-down shutdown-sessions",
    ]


def test_tls_asks_names_for_their_certificate_and_addresses_for_the_authority_only() -> None:
    nodes = [HaproxyNode("a", "pg1.example.net"), HaproxyNode("b", "10.0.0.2")]
    text = render(nodes, Options(tls=AgentTls("/etc/ca.pem")))
    assert "default-server check-ssl verify required ca-file /etc/ca.pem" in lines_of(
        text, "backend pg_replica", "default-server"
    )
    assert lines_of(text, "backend pg_replica", "server") == [
        "server a pg1.example.net:5432 check-sni pg1.example.net verifyhost pg1.example.net",
        "server b 10.0.0.2:5432",
    ]


def test_names_from_dns_are_held_so_that_no_server_comes_back_unchecked() -> None:
    text = render(THREE, Options(nameserver="10.0.0.53:53"))
    assert lines_of(text, "resolvers dns", "nameserver") == ["nameserver dns 10.0.0.53:53"]
    held = {line.split()[1]: line.split()[2] for line in lines_of(text, "resolvers dns", "hold")}
    assert held == dict.fromkeys(("nx", "other", "refused", "timeout", "obsolete"), "24d")


def test_a_template_stands_for_all_nodes_in_both_backends() -> None:
    text = render_template(ServerTemplate("pg", "pg.db.svc", 3, http_port=8018), Options(simple=True))
    for backend in ("listen pg_primary", "listen pg_replica"):
        assert lines_of(text, backend, "server-template") == ["server-template pg 3 pg.db.svc:5432"]
        assert "port 8018" in lines_of(text, backend, "default-server")[0]


@pytest.mark.parametrize(
    ("text", "node"),
    [
        pytest.param("pg1=10.0.0.1", HaproxyNode("pg1", "10.0.0.1", 5432, 8008, 8009), id="all defaults"),
        pytest.param(
            "pg1=h:6543,http=81,agent=82", HaproxyNode("pg1", "h", 6543, 81, 82), id="nothing defaulted"
        ),
        pytest.param("a=[::1]:5433,agent=none", HaproxyNode("a", "::1", 5433, 8008, None), id="IPv6"),
        pytest.param("a=[::1]", HaproxyNode("a", "::1", 5432, 8008, 8009), id="IPv6 without a port"),
    ],
)
def test_a_node_is_read(text: str, node: HaproxyNode) -> None:
    assert parse_node(text) == node
    assert node_problems([node]) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("pg1", "must be NAME=HOST:PORT with settings after commas, got 'pg1'", id="no host"),
        pytest.param(
            "pg1=", "must be NAME=HOST:PORT with settings after commas, got 'pg1='", id="empty host"
        ),
        pytest.param("a=h:x", "port: must be a port from 1 to 65535, got 'x'", id="port of letters"),
        pytest.param("a=h:", "port: must be a port from 1 to 65535, got ''", id="empty port"),
        pytest.param("a=h:٣", "port: must be a port from 1 to 65535, got '٣'", id="digits of another script"),
        pytest.param("a=h,http=1,http=2", "settings: want agent and http, each once", id="twice the same"),
        pytest.param("a=h,https=1", "settings: want agent and http, each once", id="unknown setting"),
        pytest.param("a=::1", "host: an IPv6 address goes in brackets, got '::1'", id="bare IPv6"),
    ],
)
def test_a_node_that_cannot_be_read(text: str, problem: str) -> None:
    with pytest.raises(NodeError) as error:
        parse_node(text)
    assert str(error.value).startswith(f"--node {text!r}: {problem}")


@pytest.mark.parametrize(
    ("nodes", "problems"),
    [
        pytest.param([], ["nodes: at least one is needed, got none"], id="none"),
        pytest.param([HaproxyNode("A-Z.a_z:9", "h", 1, 65535, 65535)], [], id="everything allowed"),
        pytest.param(
            [HaproxyNode("a b", "h")],
            ["node 'a b': an HAProxy server name has 1 to 63 of A-Z a-z 0-9 . _ : -, got 'a b'"],
            id="blank in a name",
        ),
        pytest.param([HaproxyNode("a" * 63, "h")], [], id="name at the limit"),
        pytest.param([HaproxyNode("a" * 64, "h")], ["node '" + "a" * 64], id="name over the limit"),
        pytest.param(
            [HaproxyNode("a", "h", 0)], ["node a: PostgreSQL port: must be a port from 1"], id="port 0"
        ),
        pytest.param(
            [HaproxyNode("a", "h", 5432, 65536)],
            ["node a: http: must be a port from 1 to 65535, got 65536"],
            id="port 65536",
        ),
        pytest.param(
            [HaproxyNode("a", "h b\n  server evil 1.2.3.4")],
            ["node a: host: must be an IP address or a host name"],
            id="a host that would be more lines",
        ),
        pytest.param(
            [HaproxyNode("a", "fe80::1%\nx")], ["node a: host: must be an IP address"], id="a scope"
        ),
        pytest.param(
            [HaproxyNode("a", "h"), HaproxyNode("a", "h")],
            [
                "nodes: each name may stand once, got 'a' 2 times",
                "nodes: each PostgreSQL address may stand once, got 'h:5432' 2 times",
                "nodes: each agent address may stand once, got 'h:8008' 2 times",
            ],
            id="one node twice",
        ),
        pytest.param(
            [HaproxyNode(f"n{i}", f"10.0.0.{i}") for i in range(MAX_NODES + 1)],
            [f"nodes: at most {MAX_NODES} fit in one configuration, got {MAX_NODES + 1}"],
            id="one too many",
        ),
        pytest.param(
            [HaproxyNode(f"n{i}", f"10.0.0.{i}") for i in range(MAX_NODES)], [], id="as many as fit"
        ),
    ],
)
def test_problems_of_nodes(nodes: list[HaproxyNode], problems: list[str]) -> None:
    found = node_problems(nodes)
    assert len(found) == len(problems), found
    assert all(got.startswith(want) for got, want in zip(found, problems, strict=True)), found


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        pytest.param(Options(), [], id="defaults"),
        pytest.param(
            Options(write_port=8010),
            ["--write-port, --gate-port: each listener needs a port of its own, got 8010 2 times"],
            id="the gate's port",
        ),
        pytest.param(Options(simple=True, write_port=8010), [], id="no gate, so its port is free"),
        pytest.param(
            Options(write_port=7000),
            ["--write-port, --stats-port: each listener needs a port of its own, got 7000 2 times"],
            id="the stats page's port",
        ),
        pytest.param(Options(write_port=7000, stats_port=None), [], id="no stats page, so its port is free"),
        pytest.param(
            Options(read_port=65536), ["--read-port: must be a port from 1 to 65535, got 65536"], id="port"
        ),
        pytest.param(
            Options(bind="host"), ["--bind: must be an IP address of this machine, got 'host'"], id="bind"
        ),
        pytest.param(
            Options(admin_socket="/run/a b"),
            ["--admin-socket: must be without blanks, quotes, backslashes, # and $, got '/run/a b'"],
            id="a blank in a file name",
        ),
        pytest.param(
            Options(user="x\n  daemon"), ["--user: must be without blanks"], id="a user that would be a line"
        ),
        pytest.param(
            Options(tls=AgentTls("ca.pem'")), ["--tls-ca: must be without blanks"], id="a quote in a file"
        ),
        pytest.param(Options(nameserver="#"), ["--nameserver: must be without blanks"], id="a comment"),
    ],
)
def test_problems_of_options(options: Options, problems: list[str]) -> None:
    found = option_problems(options)
    assert len(found) == len(problems), found
    assert all(got.startswith(want) for got, want in zip(found, problems, strict=True)), found


@pytest.mark.parametrize(
    ("text", "template"),
    [
        pytest.param("pg=pg.db", ServerTemplate("pg", "pg.db", 3), id="all defaults"),
        pytest.param(
            "pg=pg.db:6543,count=64,http=81",
            ServerTemplate("pg", "pg.db", 64, 6543, 81),
            id="as many as fit",
        ),
    ],
)
def test_a_template_is_read(text: str, template: ServerTemplate) -> None:
    assert parse_template(text) == template
    assert template_problems(template) == []


@pytest.mark.parametrize("count", ["0", "65", "x", "", "-1"])
def test_a_template_of_no_useful_size(count: str) -> None:
    with pytest.raises(NodeError, match="count: must be a whole number from 1 to 64"):
        parse_template(f"pg=pg.db,count={count}")


CONFIGURATION = """
name: pg2
listen: 10.0.0.12:8008
agent_check: {listen: 0.0.0.0:8009}
postgres: {dsn: "host=/run/postgresql port=5433"}
peers:
  - {name: pg3, url: "http://10.0.0.13:8018", postgres: "10.1.0.13:5434", agent_check: "10.2.0.13:8019"}
  - {name: pg1, url: "http://10.0.0.11:8008"}
  - {name: w1, url: "http://10.0.0.21:8008", witness: true}
"""


def nodes_in(tmp_path: Path, text: str) -> list[HaproxyNode]:
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    return nodes_of(load(file, environment={}).settings)


def test_nodes_of_a_configuration_are_this_node_and_its_data_peers_by_name(tmp_path: Path) -> None:
    assert nodes_in(tmp_path, CONFIGURATION) == [
        HaproxyNode("pg1", "10.0.0.11", http_host="10.0.0.11", agent_host="10.0.0.11"),
        HaproxyNode("pg2", "10.0.0.12", 5433, http_host="10.0.0.12"),
        HaproxyNode("pg3", "10.1.0.13", 5434, 8018, 8019, http_host="10.0.0.13", agent_host="10.2.0.13"),
    ]


def test_a_witness_is_no_node(tmp_path: Path) -> None:
    text = 'name: w1\nwitness: true\npeers: [{name: pg1, url: "http://10.0.0.11:8008"}]\n'
    assert [node.name for node in nodes_in(tmp_path, text)] == ["pg1"]


def test_an_entry_for_this_node_says_how_others_reach_it(tmp_path: Path) -> None:
    text = CONFIGURATION + '  - {name: pg2, url: "http://192.0.2.2:8008"}\n'
    assert [node.host for node in nodes_in(tmp_path, text)] == ["10.0.0.11", "192.0.2.2", "10.1.0.13"]


def test_members_behind_a_dns_name_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="peers: HAProxy needs each node by name"):
        nodes_in(tmp_path, "name: pg1\npeers: {dns: pg.db.svc, expected: 3}\n")


@pytest.mark.parametrize(
    ("scheme", "secure"), [pytest.param("http", False, id="http"), pytest.param("https", True, id="https")]
)
def test_whether_agents_use_tls_is_read_from_their_urls(tmp_path: Path, scheme: str, secure: bool) -> None:
    text = f'name: w1\nwitness: true\npeers: [{{name: pg1, url: "{scheme}://10.0.0.11:8008"}}]\n'
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    assert agents_use_tls(load(file, environment={}).settings) is secure


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    haproxy.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["haproxy", *arguments])
    assert parsed.command == haproxy.run
    return haproxy.run(parsed)


NODES = [
    "--node",
    "pg1=10.0.0.11",
    "--node",
    "pg2=10.0.0.12:5432,http=8008,agent=8009",
    "--node",
    "pg3=10.0.0.13",
]


def test_the_command_writes_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", *NODES) == 0
    assert capsys.readouterr() == (render(THREE, Options()), "")
    assert run("config", *NODES, "--simple", "--write-port", "6000", "--read-port", "6001") == 0
    assert capsys.readouterr().out == render(THREE, Options(simple=True, write_port=6000, read_port=6001))


def test_the_command_reads_the_agents_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(CONFIGURATION)
    assert run("config", "-c", str(file)) == 0
    assert lines_of(capsys.readouterr().out, "backend pg_primary", "server") == [
        "server pg1 10.0.0.11:5432",
        "server pg2 10.0.0.12:5433",
        "server pg3 10.1.0.13:5434",
    ]


def test_the_command_reports_every_problem_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    bad = ["--node", "a b=h", "--node", "x=h:99999", "--node", "y", "--bind", "eth0", "--stats-port", "5000"]
    assert run("config", *bad) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(": ")[0] for line in err.splitlines()] == [
        "--write-port, --stats-port",
        "--bind",
        "--node 'y'",
        "node 'a b'",
        "node x",
        "nodes",
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param([], "nodes: must be given, got none: use -c FILE or --node", id="nothing given"),
        pytest.param(
            [*NODES, "-c", "x"], "nodes: must come from one place, got -c and --node", id="two sources"
        ),
        pytest.param(
            ["--server-template", "a=b"], "--server-template: needs --simple", id="template and gate"
        ),
        pytest.param(["-c", "/nowhere/agent.yaml"], "/nowhere/agent.yaml: ", id="no such file"),
        pytest.param([*NODES, "--tls-crt", "me.pem"], "--tls-crt: needs --tls-ca", id="certificate alone"),
        pytest.param(
            [*NODES, "--tls-ca", "ca.pem", "--tls-insecure"],
            "--tls-insecure: must not stand beside --tls-ca",
            id="believe all and some",
        ),
    ],
)
def test_the_command_refuses(
    arguments: Sequence[str],
    problem: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HEALTHAGENT_CONFIG", raising=False)
    assert run("config", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(problem)


def test_the_command_asks_how_to_trust_agents_on_https(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text('name: w1\nwitness: true\npeers: [{name: pg1, url: "https://10.0.0.11:8008"}]\n')
    assert run("config", "-c", str(file)) == 2
    assert capsys.readouterr().err.startswith("--tls-ca: the agents answer over https: must be given")
    assert run("config", "-c", str(file), "--tls-ca", "/etc/ca.pem") == 0
