"""`healthagent haproxy`: write an HAProxy configuration, or find the traps in one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from healthagent.commands.config import add_file, load_or_complain
from healthagent.haproxy.finding import shown
from healthagent.haproxy.lint import UnreadableConfiguration, lint, read_configuration
from healthagent.haproxy.members import agents_use_tls, nodes_of
from healthagent.haproxy.nodes import (
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

EXAMPLE = """\
example:
  healthagent haproxy config -c /etc/healthagent.yaml > /etc/haproxy/haproxy.cfg
  healthagent haproxy config --node pg1=10.0.0.11:5432 --node pg2=10.0.0.12:5432,http=8008,agent=8009
  healthagent haproxy lint /etc/haproxy/haproxy.cfg
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `haproxy` to the command line; its arguments name `run` of this module as `command`."""
    parser = subparsers.add_parser(
        "haproxy",
        help="write an HAProxy configuration, or find the traps in one",
        description="Write an HAProxy configuration for these nodes, or find the traps in one.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    writer, linter = (
        actions.add_parser(
            name,
            help=what,
            description=f"{what.capitalize()}.",
            epilog=EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for name, what in (
            ("config", "write a configuration for these nodes to standard output"),
            ("lint", "find the traps in a configuration; exit 1 if there are any"),
        )
    )
    _add_config(writer)
    linter.add_argument("file", metavar="FILE", type=Path, help="the HAProxy configuration")
    parser.set_defaults(command=run)


def _add_config(parser: argparse.ArgumentParser) -> None:
    defaults = Options()
    add_file(parser)
    parser.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="NAME=HOST:PGPORT,http=PORT,agent=PORT",
        help="a node, instead of those of the configuration; ports default to 5432, 8008 and 8009,"
        " agent=none: no agent-check there; may be repeated",
    )
    parser.add_argument(
        "--server-template",
        metavar="PREFIX=FQDN:PGPORT,http=PORT,count=N",
        help="with --simple: one DNS name that answers with the addresses of all nodes",
    )
    parser.add_argument("--simple", action="store_true", help="HTTP checks and a guard, without the gate")
    for name, default, what in (
        ("write", defaults.write_port, "writes"),
        ("read", defaults.read_port, "reads"),
        ("gate", defaults.gate_port, "the gate, on loopback"),
    ):
        parser.add_argument(
            f"--{name}-port", type=int, default=default, metavar="PORT", help=f"for {what} ({default})"
        )
    parser.add_argument(
        "--stats-port",
        type=int,
        default=defaults.stats_port,
        metavar="PORT",
        help="for the stats page and /metrics, on loopback (%(default)s); 0: none",
    )
    parser.add_argument(
        "--bind", default=defaults.bind, metavar="ADDRESS", help="of the write and read listeners (all)"
    )
    parser.add_argument(
        "--admin-socket", default=defaults.admin_socket, metavar="FILE", help="local socket (%(default)s)"
    )
    parser.add_argument(
        "--user",
        default=defaults.user,
        help="user and group to run as (%(default)s); empty: whoever starts HAProxy",
    )
    parser.add_argument("--tls-ca", metavar="FILE", help="check the agents over TLS, signed by this CA")
    parser.add_argument(
        "--tls-insecure", action="store_true", help="check the agents over TLS, believing any certificate"
    )
    parser.add_argument("--tls-crt", metavar="FILE", help="client certificate and key in one PEM file")
    parser.add_argument(
        "--nameserver",
        metavar="HOST:PORT",
        help="follow address changes of host names; resolv.conf: ask those of /etc/resolv.conf",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write or lint; 0, 1 when traps were found, 2 with every problem on standard error."""
    return _lint(arguments.file) if arguments.action == "lint" else _config(arguments)


def _lint(path: Path) -> int:
    try:
        findings = lint(read_configuration(path))
    except OSError as error:
        return _complain([f"{path}: must be a readable file, got: {error.strerror}"])
    except UnreadableConfiguration as error:
        return _complain([f"{path}: {error}"])
    sys.stdout.write("".join(f"{shown(str(path))}:{finding.text()}\n" for finding in findings))
    return 1 if findings else 0


def _config(arguments: argparse.Namespace) -> int:
    options = Options(
        simple=arguments.simple,
        bind=arguments.bind,
        write_port=arguments.write_port,
        read_port=arguments.read_port,
        stats_port=arguments.stats_port or None,
        gate_port=arguments.gate_port,
        admin_socket=arguments.admin_socket,
        user=arguments.user,
        tls=AgentTls(arguments.tls_ca, arguments.tls_crt)
        if arguments.tls_ca or arguments.tls_insecure
        else None,
        nameserver=arguments.nameserver,
    )
    problems = [*_conflicts(arguments), *option_problems(options)]
    if arguments.server_template is not None:
        return _write_template(arguments.server_template, options, problems)
    nodes: list[HaproxyNode] = []
    if arguments.node:
        nodes = _parsed(arguments.node, problems)
    else:
        configuration = load_or_complain(arguments.config)
        if configuration is None:
            return _complain(problems)
        if not configuration.sources:
            return _complain([*problems, "nodes: must be given, got none: use -c FILE or --node for each"])
        try:
            nodes = nodes_of(configuration.settings)
            if agents_use_tls(configuration.settings) and options.tls is None:
                problems.append("--tls-ca: the agents answer over https: must be given, or --tls-insecure")
        except NodeError as error:
            problems.append(str(error))
    if nodes:
        problems.extend(node_problems(nodes))
    elif not problems:
        problems.append("nodes: at least one with PostgreSQL is needed, got none: use --node or -c FILE")
    if problems:
        return _complain(problems)
    sys.stdout.write(render(nodes, options))
    return 0


def _write_template(text: str, options: Options, problems: list[str]) -> int:
    template: ServerTemplate | None = None
    try:
        template = parse_template(text)
        problems.extend(template_problems(template))
    except NodeError as error:
        problems.append(str(error))
    if problems or template is None:
        return _complain(problems)
    sys.stdout.write(render_template(template, options))
    return 0


def _parsed(texts: Sequence[str], problems: list[str]) -> list[HaproxyNode]:
    nodes = []
    for text in texts:
        try:
            nodes.append(parse_node(text))
        except NodeError as error:
            problems.append(str(error))
    return nodes


def _conflicts(arguments: argparse.Namespace) -> list[str]:
    """Find options that cannot stand together."""
    problems = []
    given = [
        name
        for name, value in (
            ("-c", arguments.config),
            ("--node", arguments.node),
            ("--server-template", arguments.server_template),
        )
        if value
    ]
    if len(given) > 1:
        problems.append(f"nodes: must come from one place, got {' and '.join(given)}")
    if arguments.server_template is not None and not arguments.simple:
        problems.append(
            "--server-template: needs --simple, since the gate matches servers by name and each backend fills"
            f" the slots of a template by itself, got {arguments.server_template!r}: use --node for each"
        )
    if arguments.tls_ca and arguments.tls_insecure:
        problems.append(f"--tls-insecure: must not stand beside --tls-ca, got {arguments.tls_ca!r}")
    if arguments.tls_crt and not (arguments.tls_ca or arguments.tls_insecure):
        problems.append(f"--tls-crt: needs --tls-ca or --tls-insecure, got {arguments.tls_crt!r}")
    return problems


def _complain(problems: Sequence[str]) -> int:
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    return 2
