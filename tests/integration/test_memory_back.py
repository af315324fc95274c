"""Memory that nobody uses any more is the host's again: a guest's, an idle container's, and what all share."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.harness.daemon import Daemon
from tests.integration.machines import IMAGE, hypervisor, with_machines

MIB = 1 << 20
PATIENCE = 120.0


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for what must happen."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_what_a_guest_has_freed_comes_back_by_itself(shared_daemon: Daemon, busybox_tar: Path) -> None:
    daemon = with_machines(shared_daemon, busybox_tar)
    size = ("--memory", "256M", "--cpus", "1", "--disk", "64M", "--network", "none")
    daemon.cli(
        *("run", "-d", "--name", "it", "--isolation", "vm", "--no-template", *size, IMAGE, "sleep", "100000"),
    )
    pid = hypervisor(daemon, "it")
    before = resident(pid)
    daemon.cli("exec", "it", "dd", "if=/dev/urandom", "of=/dev/shm/full", "bs=1M", "count=96")
    full = resident(pid)
    assert full > before + 80 * MIB
    daemon.cli("exec", "it", "rm", "/dev/shm/full")
    until(lambda: resident(pid) < full - 64 * MIB, "the host did not get it back")
    daemon.cli("exec", "it", "dd", "if=/dev/urandom", "of=/dev/shm/full", "bs=1M", "count=96")
    assert resident(pid) > before + 80 * MIB, "it can have it again"


def charged(daemon: Daemon, name: str) -> int:
    """Bytes of memory that an instance is charged for."""
    (row,) = daemon.json("stats", "--no-stream", "--format", "json", name)
    return int(row["memory"])


def test_an_idle_container_gives_its_page_cache_back_where_the_operator_says_so(
    make_daemon: Callable[..., Daemon], busybox_tar: Path
) -> None:
    daemon = make_daemon(reclaim_idle=1.0)
    daemon.cli("image", "import", busybox_tar, "box")
    size = ("--memory", "256M", "--disk", "128M", "--network", "none")
    daemon.cli("run", "-d", "--name", "it", *size, "box", "sleep", "100000")
    daemon.cli("exec", "it", "dd", "if=/dev/urandom", "of=/file", "bs=1M", "count=64")
    until(lambda: charged(daemon, "it") < 16 * MIB, "its page cache was not taken")
    daemon.cli("exec", "it", "cmp", "/file", "/file")  # what was taken is read again
    assert daemon.cli("exec", "it", "wc", "-c", "/file").stdout.split()[0] == str(64 * MIB)


def test_two_of_one_image_have_its_files_in_memory_once(
    shared_daemon: Daemon, busybox_tar: Path, tmp_path: Path
) -> None:
    daemon = shared_daemon
    archive = tmp_path / "large.tar"
    shutil.copyfile(busybox_tar, archive)
    (tmp_path / "large").write_bytes(os.urandom(64 * MIB))
    with tarfile.open(archive, "a") as tar:
        tar.add(tmp_path / "large", "large")
    daemon.cli("image", "import", archive, "large")
    size = ("--memory", "256M", "--disk", "32M", "--network", "none")
    for name in ("first", "second"):
        daemon.cli("run", "-d", "--name", name, *size, "large", "sleep", "100000")
        daemon.cli("exec", name, "sh", "-c", "cat /large >/dev/null")
    assert charged(daemon, "first") + charged(daemon, "second") < 96 * MIB, "64 MiB, once"
    assert charged(daemon, "second") < 16 * MIB, "whoever reads it first is charged for it"
