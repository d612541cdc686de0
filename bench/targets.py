"""What is measured: this agent, Patroni beside its own PostgreSQL, and a bare aiohttp handler."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from healthagent.demo.binaries import Binaries
from healthagent.demo.ports import free_port
from healthagent.demo.postgres import Node

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "bench"
PATRONI = "patroni[etcd3,psycopg3]==4.1.5"
UP_WITHIN = 60.0  # seconds


@dataclass(frozen=True)
class Target:
    """Something that answers /primary."""

    name: str
    url: str
    pid: int
    postgres_port: int | None  # of the PostgreSQL that it asks


def wait_200(url: str) -> int:
    """Wait until `url` is 200; returns the length of the body."""
    deadline = time.monotonic() + UP_WITHIN
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return len(answer.read())
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"{url} was not 200 within {UP_WITHIN:g} s") from None
            time.sleep(0.1)


@contextmanager
def process(*command: str, log: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the end of the block."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]  # options of Popen, passed on
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextmanager
def agent(folder: Path, node: Node) -> Iterator[Target]:
    """This agent beside a primary, at its defaults."""
    port = free_port()
    command = [sys.executable, "-m", "healthagent", "run", "--name", "pg1", "--dsn", node.dsn()]
    environment = {**os.environ, "HEALTHAGENT_STATE_DIR": str(folder / "state")}
    with process(
        *command, "--listen", f"127.0.0.1:{port}", log=folder / "agent.log", env=environment
    ) as running:
        wait_200(f"http://127.0.0.1:{port}/primary")
        yield Target("healthagent", f"http://127.0.0.1:{port}/primary", running.pid, node.port)


@contextmanager
def bare(folder: Path, size: int) -> Iterator[Target]:
    """aiohttp alone, with a body of `size` bytes."""
    port = free_port()
    with process(
        sys.executable, "-m", "bench.bare", str(port), str(size), log=folder / "bare.log"
    ) as running:
        wait_200(f"http://127.0.0.1:{port}/primary")
        yield Target("bare aiohttp", f"http://127.0.0.1:{port}/primary", running.pid, None)


def patroni_program() -> str:
    """Patroni of PyPI, installed once into the checkout's cache."""
    folder = CACHE / "patroni"
    program = folder / "bin" / "patroni"
    if not program.exists():
        print("installing Patroni into the cache", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "-q", PATRONI], check=True)
    return str(program)


@contextmanager
def patroni(folder: Path, binaries: Binaries, user: int, group: int) -> Iterator[Target]:
    """Patroni with etcd and a PostgreSQL of its own, at its documented defaults."""
    if shutil.which("etcd") is None:
        raise SystemExit("the benchmark needs etcd: apt-get install -y --no-install-recommends etcd-server")
    client, peer, rest, postgres = (free_port() for _ in range(4))
    home = folder / "patroni"
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, user, group)
    configuration = home / "patroni.yml"
    configuration.write_text(json.dumps(_patroni_configuration(home, binaries, client, rest, postgres)))
    etcd = [
        "etcd",
        f"--data-dir={home}/etcd",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
    ]
    options = {"user": user, "group": group, "extra_groups": []} if os.geteuid() == 0 else {}
    with (
        process(*etcd, log=folder / "etcd.log"),
        process(
            patroni_program(), str(configuration), log=folder / "patroni.log", cwd=home, **options
        ) as running,
    ):
        wait_200(f"http://127.0.0.1:{rest}/primary")
        yield Target("Patroni", f"http://127.0.0.1:{rest}/primary", running.pid, postgres)


def _patroni_configuration(
    home: Path, binaries: Binaries, etcd: int, rest: int, postgres: int
) -> dict[str, object]:
    return {
        "scope": "bench",
        "name": "pg1",
        "restapi": {"listen": f"127.0.0.1:{rest}", "connect_address": f"127.0.0.1:{rest}"},
        "etcd3": {"host": f"127.0.0.1:{etcd}"},
        "bootstrap": {"dcs": {"ttl": 30, "loop_wait": 10, "retry_timeout": 10}, "initdb": ["data-checksums"]},
        "postgresql": {
            "listen": f"127.0.0.1:{postgres}",
            "connect_address": f"127.0.0.1:{postgres}",
            "data_dir": f"{home}/data",
            "bin_dir": str(binaries.bin),
            "pgpass": f"{home}/pgpass",
            "authentication": {
                "superuser": {"username": "postgres", "password": "bench"},
                "replication": {"username": "replicator", "password": "bench"},
            },
            "parameters": {"unix_socket_directories": str(home), "fsync": "off"},
            "pg_hba": ["host all all 127.0.0.1/32 trust", "local all all trust"],
        },
    }
