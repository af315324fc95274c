"""A part of the bench whose memory is bounded: everything that it starts, page cache and kernel memory included.

The bound is a group of v1's memory controller. Within, a cgroup namespace makes it the root of the tree, so that every
engine makes its groups below it without knowing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.timing import Unusable

TREE = Path("/sys/fs/cgroup/memory")
GRACE = 240.0
"""Seconds beyond its own limit after which what runs within is ended: near the bound everything is slow."""


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes."""

    charged: int
    """All that counts: programs, kernel memory, page cache."""
    droppable: int
    """Page cache that nobody has touched for a while."""
    killed: int
    """How often the kernel has ended a process for want of memory."""

    @property
    def needed(self) -> int:
        """What stays when the kernel wants memory."""
        return self.charged - self.droppable


@contextmanager
def bound(name: str, size: int) -> Iterator[Path]:
    """A group of `size` bytes with nobody in it. Raises Unusable where v1 has no memory controller."""
    if not (TREE / "memory.limit_in_bytes").exists() and not (TREE / "cgroup.procs").exists():
        raise Unusable("the bound is made with v1's memory controller, which this host does not have")
    group = TREE / name
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(size))
        yield group
    finally:
        _remove(group)


def run(group: Path, module: str, arguments: Sequence[str], *, seconds: float) -> str:
    """Run a module of the bench within: in namespaces of its own, all of which end with it. What it prints.

    Raises Unusable with the reason where it fails or takes too long.
    """
    command = ["sh", "-c", 'echo 0 >"$0/tasks" && exec "$@"', str(group), "setpriv", "--pdeathsig=KILL", "unshare"]
    command += ["--cgroup", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said, _ = process.communicate(timeout=seconds + GRACE)
    except subprocess.TimeoutExpired as error:
        raise Unusable(f"it was not through after {seconds + GRACE:g} s") from error
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise Unusable(f"it ended with {process.returncode}: {said.strip()[-300:] or 'no message'}")
    return said


def enter() -> None:
    """Within: make the bound the root of the memory controller's tree, as everybody in here sees it."""
    subprocess.run(["umount", str(TREE)], check=True)
    subprocess.run(["mount", "-t", "cgroup", "-o", "memory", "none", str(TREE)], check=True)


def use() -> Use:
    """Within: what of the bound is used."""
    stat = dict(line.split() for line in (TREE / "memory.stat").read_text().splitlines())
    oom = dict(line.split() for line in (TREE / "memory.oom_control").read_text().splitlines())
    return Use(
        charged=int((TREE / "memory.usage_in_bytes").read_text()),
        droppable=int(stat["total_inactive_file"]),
        killed=int(oom["oom_kill"]) + sum(_kills(each) for each in TREE.rglob("memory.oom_control")),
    )


def _kills(file: Path) -> int:
    with suppress(OSError):
        return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])
    return 0


def _remove(group: Path) -> None:
    """Remove a group with all below it, whose processes have been killed."""
    for parent, _, _ in os.walk(group, topdown=False):
        for _ in range(100):
            try:
                Path(parent).rmdir()
                break
            except OSError:
                with suppress(OSError):
                    for pid in (Path(parent) / "cgroup.procs").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
                time.sleep(0.05)
