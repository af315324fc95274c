"""lxcfs as a daemon keeps it, and what a container under a plan sees through it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bulkhead.agent.operations import Operation, mkdir, rmdir, write
from bulkhead.config import Config
from bulkhead.host import cgroups, mounts, processes
from bulkhead.host.lxcfs import Lxcfs
from bulkhead.isolation.container import ContainerDriver
from bulkhead.isolation.supervised import Outside
from tests.harness.abilities import require
from tests.integration.isolation.lab import Lab

MEMORY = 48 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Lxcfs]:
    """A server of its own."""
    require("root", "mount namespaces", "lxcfs")
    made = Lxcfs(tmp_path / "run")
    yield made
    made.stop()


def test_one_server_is_started_once_and_found_again(server: Lxcfs, tmp_path: Path) -> None:
    assert not server.is_healthy()
    directory = server.ensure()
    first = server._identity()
    assert server.is_healthy()
    assert (directory / "proc/meminfo").read_text().startswith("MemTotal")
    again = Lxcfs(tmp_path / "run")
    assert again.ensure() == directory
    assert again._identity() == first
    assert len([entry for entry in mounts.table() if entry.target == directory]) == 1


def test_a_dead_server_is_replaced(server: Lxcfs) -> None:
    directory = server.ensure()
    identity = server._identity()
    assert identity
    os.kill(identity[0], signal.SIGKILL)
    assert processes.wait_gone(*identity, timeout=5)
    assert not server.is_healthy()
    assert server.ensure() == directory
    assert server._identity() != identity
    assert server.is_healthy()


def test_stop_leaves_nothing_and_can_be_repeated(server: Lxcfs, tmp_path: Path) -> None:
    server.ensure()
    server.stop()
    server.stop()
    assert list((tmp_path / "run").iterdir()) == []
    assert not mounts.below(tmp_path)


@dataclass(frozen=True)
class MemoryLimit:
    """A memory cgroup of the test's own, v1 or v2."""

    directory: Path
    v2: bool
    kill: str = ""

    @property
    def prepare(self) -> Sequence[Operation]:
        """Make and limit it."""
        file = "memory.max" if self.v2 else "memory.limit_in_bytes"
        return [mkdir(self.directory), write(self.directory / file, str(MEMORY))]

    @property
    def join(self) -> Sequence[str]:
        """Its tasks."""
        return [str(self.directory / ("cgroup.procs" if self.v2 else "tasks"))]

    @property
    def beside(self) -> Sequence[str]:
        """The same for commands."""
        return self.join

    @property
    def delegated(self) -> str:
        """None."""
        return ""

    @property
    def finish(self) -> Sequence[Operation]:
        """Remove it."""
        return [rmdir(self.directory)]


def test_a_container_sees_its_own_memory_and_cgroup(lab: Lab, server: Lxcfs) -> None:
    layout = cgroups.detect()
    tree = layout.v1.get("memory")
    limit = MemoryLimit((tree or layout.unified or Path("/")) / lab.config.cgroup, v2=tree is None)
    lab.driver = ContainerDriver(
        Config(run_dir=lab.directory), Outside(lambda _: None, lambda _: False), lxcfs=server.ensure
    )
    script = """
    head -n1 /proc/meminfo
    cat /sys/fs/cgroup/memory*/memory.limit_in_bytes /sys/fs/cgroup/memory.max
    ls -A /dev/.host
    """
    bundle = replace(lab.bundle(["sh", "-c", script]), limits=limit)
    handle = lab.driver.start(bundle)
    lines = [line for line in lab.wait(bundle, handle).lines if "No such file" not in line]
    lab.driver.delete(bundle.directory, bundle.spec.id)
    assert lines[0].split() == ["MemTotal:", str(MEMORY >> 10), "kB"]
    assert lines[1:] == [str(MEMORY)]
    free = subprocess.run(["free", "-k"], check=True, capture_output=True, text=True).stdout
    assert str(MEMORY >> 10) not in free, "the host's own figures are as before"
