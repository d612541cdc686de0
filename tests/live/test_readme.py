"""Every example of README.md, run against real servers; see tests/bed/readme.py for how they are marked."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest

from healthagent.demo.postgres import Node, Place, until
from tests.bed.command import healthagent
from tests.bed.haproxy import Haproxy, Missing, find_haproxy, socket_of
from tests.bed.readme import README, Block, Command, blocks, commands, shape
from tests.conftest import StartCluster

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

ROOT = README.parent
STARTED_WITHIN = 60.0  # seconds; it takes one, or ten on a busy machine


@dataclass(frozen=True)
class Terminal:
    """Where examples are typed: a folder, what stands for the README's addresses and files, and variables."""

    folder: Path
    instead: Mapping[str, str]
    variables: Mapping[str, str]

    def here(self, text: str) -> str:
        """The text with the addresses and files of this machine."""
        for theirs, ours in self.instead.items():
            text = text.replace(theirs, ours)
        return text

    def write(self, block: Block) -> Path:
        """Write a file that the README shows; its first line names it."""
        path = self.folder / self.here(block.text.splitlines()[0].removeprefix("# "))
        path.write_text(self.here(block.text))
        return path

    def run(self, block: Block, background: ExitStack) -> None:
        """Run each command of a console block, and compare what it prints; an agent runs on."""
        for command in commands(block):
            if command.typed.startswith("healthagent run "):
                self._start(command, background)
            else:
                self._run(command, f"README.md:{block.place}: {command.typed}")

    def _start(self, command: Command, background: ExitStack) -> None:
        log, wanted = self.folder / "agent.log", shape(command.printed)
        background.enter_context(healthagent(log, *command.typed.split()[1:], **self.variables))
        try:
            until(lambda: wanted.match(log.read_text()) is not None, STARTED_WITHIN, command.typed)
        except TimeoutError:
            pytest.fail(f"{command.typed} printed:\n{log.read_text()}instead of:\n{command.printed}")

    def _run(self, command: Command, where: str) -> None:
        ran = subprocess.run(
            ["bash", "-c", self.here(command.typed)],
            cwd=self.folder,
            env=os.environ | self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
        )
        printed = ran.stdout if not ran.stdout or ran.stdout.endswith("\n") else f"{ran.stdout}\n"
        wanted = shape(self.here(command.printed))
        assert wanted.fullmatch(printed), f"{where} printed:\n{printed}instead of:\n{command.printed}"
        assert ran.returncode == 0, f"{where} exited with {ran.returncode}"


def named(name: str, language: str) -> list[Block]:
    found = [block for block in blocks() if (block.name, block.language) == (name, language)]
    assert found, f"README.md has no {language} block of {name!r}"
    return found


def variables(folder: Path, node: Node) -> dict[str, str]:
    """What makes `healthagent` and `psql` the ones of this test."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "healthagent"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m healthagent "$@"\n')
    program.chmod(0o755)
    return {
        "PATH": f"{programs}:{node.binaries.client}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PGHOST": node.host,
        "PGPORT": str(node.port),
        "PGUSER": "postgres",
        "HEALTHAGENT_STATE_DIR": str(folder / "state"),
    }


def test_install(tmp_path: Path) -> None:
    terminal = Terminal(ROOT, {"/opt/healthagent": str(tmp_path / "venv")}, {})
    with ExitStack() as nothing:
        for block in named("install", "console"):
            terminal.run(block, nothing)


def test_one_node(tmp_path: Path, postgres: Node, free_port: Callable[[], int]) -> None:
    postgres.psql("DROP ROLE healthagent")  # the README creates it
    listen = f"127.0.0.1:{free_port()}"
    terminal = Terminal(
        tmp_path,
        {"127.0.0.1:8008": listen},
        variables(tmp_path, postgres) | {"HEALTHAGENT_LISTEN": listen},
    )
    with ExitStack() as background:
        for block in named("one node", "console"):
            terminal.run(block, background)


@pytest.fixture
def three_nodes(
    tmp_path: Path, start_cluster: StartCluster, free_port: Callable[[], int]
) -> Iterator[Terminal]:
    """The README's three nodes, at 127.0.0.11 to 13 instead of 10.0.0.11 to 13, with its own file for all."""
    port, check_port, postgres_port = free_port(), free_port(), free_port()
    places = [Place(f"pg{number}", f"127.0.0.1{number}", postgres_port) for number in (1, 2, 3)]
    nodes = start_cluster(places).nodes
    config = tmp_path / "healthagent.yaml"
    instead = {
        "/etc/healthagent.yaml": str(config),
        "/etc/haproxy/haproxy.cfg": str(tmp_path / "generated.cfg"),
        "10.0.0.1": "127.0.0.1",
        ":8008": f":{port}",
        "port 8008": f"port {port}",
        ":5432": f":{postgres_port}",
        "*:5000": f"127.0.0.1:{free_port()}",
        "*:5001": f"127.0.0.1:{free_port()}",
    }
    terminal = Terminal(tmp_path, instead, variables(tmp_path, nodes[0]))
    [block] = named("three nodes", "yaml")
    terminal.write(block)
    running = []
    with ExitStack() as agents:
        for node in nodes:
            own = {
                "HEALTHAGENT_NAME": node.name,
                "HEALTHAGENT_LISTEN": f"{node.host}:{port}",
                "HEALTHAGENT_AGENT_CHECK_LISTEN": f"{node.host}:{check_port}",
                "HEALTHAGENT_POSTGRES_DSN": node.dsn(),
                "HEALTHAGENT_STATE_DIR": str(tmp_path / node.name),
            }
            log = tmp_path / f"{node.name}.log"
            running.append(agents.enter_context(healthagent(log, "run", "-c", str(config), **own)))
            if node is nodes[0]:
                terminal = Terminal(tmp_path, instead, {**terminal.variables, **own})
        for node, path in zip(nodes, ("/primary", "/replica", "/replica"), strict=True):
            until(
                partial(answers, node.host, port, path), STARTED_WITHIN, f"{node.name} answers 200 on {path}"
            )
        yield terminal
        for process in running:
            process.terminate()  # all at once; the second signal, one after the other, ends their farewell


def answers(host: str, port: int, path: str) -> bool:
    connection = HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_three_nodes(three_nodes: Terminal) -> None:
    with ExitStack() as nothing:
        for block in named("three nodes", "console"):
            three_nodes.run(block, nothing)


def test_the_tutorials_haproxy_configuration(three_nodes: Terminal) -> None:
    binary = find_haproxy("2.6")
    assert not isinstance(binary, Missing), binary.problem
    [block] = named("three nodes", "haproxy")
    ours = f"global\n    stats socket {socket_of(three_nodes.folder)} level admin\n"
    with Haproxy(binary, ours + three_nodes.here(block.text), three_nodes.folder) as proxy:
        # its servers count as UP until their third failed check, 3 s apart
        proxy.wait_up("writes", {"pg1"}, timeout=30.0)
        proxy.wait_up("reads", {"pg2", "pg3"}, timeout=30.0)
