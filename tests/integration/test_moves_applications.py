"""Databases under a writer through container -> vm -> container: every write that was acknowledged is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.harness.daemon import Daemon
from tests.harness.images import rootfs_tar
from tests.harness.kernels import kernel_layout
from tests.integration.lives import until, with_image
from tests.integration.test_applications import ask
from tests.integration.test_moves import leftovers, level, move

PLAN = ("--memory", "512M", "--cpus", "2", "--disk", "1G")
WITHIN = ("--within", "300")
PORT = 7100
POSTGRES = """
set -e
bin=$(echo /usr/lib/postgresql/*/bin); data=/var/lib/postgresql/data
[ -e $data/PG_VERSION ] || $bin/initdb -D $data > /dev/null
exec $bin/postgres -D $data -k /tmp
"""
OWNERS = "find /var/lib -user {0} | sort | xargs stat -c '%n %a %U %G' | grep -v -e postmaster -e pg_ -e temp | md5sum"


@pytest.fixture
def machines(shared_daemon: Daemon) -> Daemon:
    """A daemon with a kernel."""
    if "kernel/debian" not in shared_daemon.cli("image", "ls").stdout:
        shared_daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    return shared_daemon


@contextmanager
def writing(write: Callable[[int], bool]) -> Iterator[list[int]]:
    """Numbers are written all the time; those that `write` has said yes to."""
    acknowledged: list[int] = []
    over = threading.Event()

    def work() -> None:
        number = 0
        while not over.wait(0.005):
            number += 1
            with suppress(OSError, IndexError, TimeoutError):
                if write(number):
                    acknowledged.append(number)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield acknowledged
    finally:
        over.set()
        thread.join()


def through_the_walls(daemon: Daemon, name: str, user: str, write: Callable[[int], bool]) -> list[int]:
    """Up and down again while it is written to; what was acknowledged, some of it behind each wall."""
    owners = daemon.cli("exec", "-u", "root", name, "sh", "-c", OWNERS.format(user)).stdout
    with writing(write) as acknowledged:
        for wall in ("vm", "container"):
            before = len(acknowledged)
            until("it is written to", lambda before=before: len(acknowledged) > before + 3)  # type: ignore[misc]
            told = move(daemon, name, wall, *WITHIN)
            assert level(daemon, name) == wall
            assert told["dropped"] == []
        before = len(acknowledged)
        until("it is written to", lambda: len(acknowledged) > before + 3)
    assert daemon.cli("exec", "-u", "root", name, "sh", "-c", OWNERS.format(user)).stdout == owners
    assert leftovers(daemon) == []
    return acknowledged


def test_redis(machines: Daemon) -> None:
    daemon = with_image(machines, rootfs_tar("servers"), "servers")
    server = ["redis-server", "--dir", "/var/lib/redis", "--protected-mode", "no", "--bind", "0.0.0.0"]
    server += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    health = ("--health-cmd", "redis-cli -e ping", "--health-interval", "1")
    run = ["run", "-d", "--name", "store", "-u", "redis", "-p", f"{PORT}:6379", *health, *PLAN, "servers"]
    daemon.cli(*run, *server)
    until("it answers", lambda: daemon.json("inspect", "store")[0]["health"] == "healthy")

    def write(number: int) -> bool:
        return ask(daemon, PORT, b"SADD there %d" % number) == [b":1"]

    acknowledged = through_the_walls(daemon, "store", "redis", write)
    answers = ask(daemon, PORT, *(b"SISMEMBER there %d" % number for number in acknowledged))
    assert answers == [b":1"] * len(acknowledged)
    daemon.cli("rm", "-f", "store")


def test_postgresql(machines: Daemon) -> None:
    daemon = with_image(machines, rootfs_tar("runtimes"), "runtimes")
    health = ("--health-cmd", "pg_isready", "--health-interval", "1")
    run = ["run", "-d", "--name", "base", "-u", "postgres", "-e", "PGHOST=/tmp", "--stop-signal", "INT", *health, *PLAN]
    daemon.cli(*run, "runtimes", "sh", "-c", POSTGRES)
    until("it takes connections", lambda: daemon.json("inspect", "base")[0]["health"] == "healthy")
    daemon.cli("exec", "base", "psql", "-qc", "create table t (n integer)")

    def write(number: int) -> bool:
        statement = f"insert into t values ({number})"
        return daemon.cli("exec", "base", "psql", "-qc", statement, check=False).returncode == 0

    acknowledged = through_the_walls(daemon, "base", "postgres", write)
    there = daemon.cli("exec", "base", "psql", "-qAtc", "select n from t").stdout.split()
    assert {*acknowledged} <= {int(number) for number in there}
    daemon.cli("rm", "-f", "base")
