"""The host's cgroup hierarchies: how they are laid out, and ours in them.

A host has v2 alone (one tree), v1 alone (a tree per controller) or both ("hybrid"). What matters for a limit is only
which version holds its controller, so `Layout` answers that per controller.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bulkhead.errors import HostError
from bulkhead.host import mounts

V1_CONTROLLERS = frozenset({"memory", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio", "pids"})
THROTTLE_FILES = ("read_bps", "write_bps", "read_iops", "write_iops")
"""The four device limits of v1's blkio controller: `blkio.throttle.<name>_device`."""
DIRTY_PAGES = Path("/sys/class/bdi")
"""A directory per device, "7:0": how much of memory may wait to be written to it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the controllers are. `v1` maps a controller to its tree's mount point; `v2` holds those of `unified`.

    `abilities` are what the kernel was built with, found by looking for the file: "memory.swap", "cpu.quota",
    "blkio.throttle", "memory.peak".
    """

    kind: Literal["v1", "hybrid", "v2"]
    v1: dict[str, Path] = field(default_factory=dict)
    unified: Path | None = None
    v2: frozenset[str] = frozenset()
    abilities: frozenset[str] = frozenset()

    def version(self, controller: str) -> Literal[0, 1, 2]:
        """Which version has the controller; 0: this host has it not. v2's "io" is v1's "blkio"."""
        if controller in self.v1:
            return 1
        return 2 if controller in self.v2 else 0

    def path(self, controller: str, cgroup: str = "") -> Path:
        """The directory of a cgroup ("bulkhead/<id>") in the tree of a controller. HostError where there is none."""
        if controller in self.v1:
            return self.v1[controller] / cgroup if cgroup else self.v1[controller]
        if self.unified is not None and controller in self.v2:
            return self.unified / cgroup if cgroup else self.unified
        raise HostError(f"this host has no cgroup controller {controller!r}")

    @property
    def trees(self) -> tuple[Path, ...]:
        """Every tree's mount point, once."""
        roots = [*self.v1.values(), *((self.unified,) if self.unified else ())]
        return tuple(dict.fromkeys(roots))


def detect() -> Layout:
    """The layout of this host, from what is mounted. HostError where no cgroups are."""
    return layout_of(mounts.table())


def layout_of(table: Collection[mounts.MountEntry]) -> Layout:
    """The layout that a mount table describes; the first mount of a hierarchy counts, as long as it shows its root."""
    v1: dict[str, Path] = {}
    unified: Path | None = None
    for entry in table:
        if entry.root != "/":
            continue
        if entry.kind == "cgroup2" and unified is None:
            unified = entry.target
        if entry.kind == "cgroup":
            for name in V1_CONTROLLERS.intersection(entry.super_options):
                v1.setdefault(name, entry.target)
    v2 = frozenset(_words(unified / "cgroup.controllers")) if unified else frozenset[str]()
    if not v1 and not v2:
        hint = "mount -t cgroup2 none /sys/fs/cgroup"
        raise HostError("no cgroup controllers are mounted on this host", hint=hint)
    kind: Literal["v1", "hybrid", "v2"] = "v2" if not v1 else "hybrid" if unified else "v1"
    return Layout(kind, dict(sorted(v1.items())), unified, v2, _abilities(v1, unified, v2))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except FileNotFoundError:
        return []


def _abilities(v1: dict[str, Path], unified: Path | None, v2: frozenset[str]) -> frozenset[str]:
    """v1 shows its files at the root. v2 hides most there; any group below that has the controller shows them."""
    files = {
        "memory.swap": ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
        "memory.peak": ("memory", "memory.max_usage_in_bytes", "memory.peak"),
        "cpu.quota": ("cpu", "cpu.cfs_quota_us", "cpu.max"),
        "blkio.throttle": ("blkio", "blkio.throttle.read_bps_device", ""),
        "io.max": ("io", "", "io.max"),
    }
    found = {name for name, (controller, file, _) in files.items() if file and _has(v1.get(controller), file)}
    for name, (controller, _, file) in files.items():
        if unified and file and controller in v2 and any(unified.glob(f"*/{file}")):
            found.add(name)
    if unified and "memory" in v2 and not any(unified.glob("*/memory.max")):
        found |= {"memory.swap", "memory.peak"}  # no group to look at yet; every kernel of the last years has them
    if unified and "cpu" in v2 and not any(unified.glob("*/cpu.weight")):
        found.add("cpu.quota")
    if unified and "io" in v2 and not any(unified.glob("*/io.stat")):
        found.add("io.max")
    return frozenset(found)


def _has(tree: Path | None, file: str) -> bool:
    return tree is not None and (tree / file).exists()


def list_instances(layout: Layout, cgroup: str) -> list[str]:
    """Names of the cgroups below ours in any tree."""
    found: set[str] = set()
    for tree in layout.trees:
        found.update(entry.name for entry in _children(tree / cgroup))
    return sorted(found)


def _children(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def processes(layout: Layout, cgroup: str) -> set[int]:
    """Pids in a cgroup and those below it, over every tree."""
    found: set[int] = set()
    for tree in layout.trees:
        for directory in _postorder(tree / cgroup):
            try:
                found.update(map(int, (directory / "cgroup.procs").read_text().split()))
            except (FileNotFoundError, OSError):  # removed meanwhile: ENODEV
                continue
    return found


def kill(layout: Layout, cgroup: str, *, timeout: float = 10.0) -> None:
    """KILL every process of a cgroup; returns when it is empty. HostError when it is not after `timeout` seconds."""
    if layout.version("pids") == 1:
        _write_if_there(layout.path("pids", cgroup) / "pids.max", "0")  # a fork bomb must not outrun the loop below
    thaw(layout, cgroup)
    if layout.unified is not None:
        _write_if_there(layout.unified / cgroup / "cgroup.kill", "1")
    end, pause = time.monotonic() + timeout, 0.0005
    while left := processes(layout, cgroup):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > end:
            hint = "a process in uninterruptible sleep: see `cat /proc/PID/stack`"
            raise HostError(f"processes {sorted(left)[:8]} of cgroup {cgroup} do not end after KILL", hint=hint)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def freeze(layout: Layout, cgroup: str, *, timeout: float = 5.0) -> None:
    """Stop every process of a cgroup where it is; returns when all are. HostError, and none is, where that cannot be.

    A process in the middle of a long wait in the kernel may take its time.
    """
    if layout.version("freezer") == 1:
        directory = layout.path("freezer", cgroup)
        file, words, told, wanted = directory / "freezer.state", "FROZEN", directory / "freezer.state", "FROZEN"
    elif layout.unified is not None:
        directory = layout.unified / cgroup
        file, words, told, wanted = directory / "cgroup.freeze", "1", directory / "cgroup.events", "frozen 1"
    else:
        raise HostError("this host has no freezer cgroup", hint="enable CONFIG_CGROUP_FREEZER, or use cgroup v2")
    if not file.exists():
        raise HostError(f"cgroup {cgroup} cannot be frozen: {file} does not exist")
    end = time.monotonic() + timeout
    _write_if_there(file, words)
    while wanted not in told.read_text():
        if time.monotonic() > end:
            thaw(layout, cgroup)
            raise HostError(
                f"cgroup {cgroup} is not frozen after {timeout:g} s",
                hint="a process waits for a disk or a network file system: try again later",
            )
        time.sleep(0.005)
        _write_if_there(file, words)  # what has been made or moved meanwhile


def thaw(layout: Layout, cgroup: str) -> None:
    """Let every process of a cgroup go on. Idempotent, and fine where there is none."""
    if layout.version("freezer") == 1:
        _write_if_there(layout.path("freezer", cgroup) / "freezer.state", "THAWED")
    elif layout.unified is not None:
        _write_if_there(layout.unified / cgroup / "cgroup.freeze", "0")


def can_reclaim(layout: Layout, cgroup: str) -> bool:
    """Whether a group's memory can be reclaimed here. `cgroup`: a name of which one can be made to look."""
    if layout.version("memory") == 1:
        return (layout.path("memory") / "memory.force_empty").exists()
    if layout.version("memory") == 0:
        return False
    probe = layout.path("memory", f"{cgroup}-probe")
    probe.mkdir(exist_ok=True)
    try:
        return (probe / "memory.reclaim").exists()
    finally:
        probe.rmdir()


def reclaim(layout: Layout, cgroup: str) -> None:
    """Take what can be taken of a group's memory: page cache, and with swap what is not used. Fine when it has gone.

    What is needed comes back as it is needed; a group that cannot give more is no error.
    """
    path = layout.path("memory", cgroup)
    try:
        if layout.version("memory") == 1:
            (path / "memory.force_empty").write_text("0")
        else:
            (path / "memory.reclaim").write_text((path / "memory.current").read_text())
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EBUSY, errno.ENOENT, errno.ENODEV):
            raise


def _write_if_there(file: Path, data: str) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, data.encode())
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise HostError(f"cannot write {data!r} to {file}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def remove(layout: Layout, cgroup: str, *, patience: float = 2.0) -> None:
    """Remove a cgroup and those below it in every tree. Idempotent. HostError when one stays busy."""
    for tree in layout.trees:
        for directory in _postorder(tree / cgroup):
            _rmdir(directory, patience)


def _postorder(directory: Path) -> Iterator[Path]:
    if not directory.is_dir():
        return
    for child in _children(directory):
        yield from _postorder(child)
    yield directory


def _rmdir(directory: Path, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise HostError(f"cannot remove cgroup {directory}: {error.strerror}") from error
            time.sleep(0.002)
        else:
            return


def kill_and_remove(layout: Layout, cgroup: str, instance_id: str) -> None:
    """End every process of an instance's cgroup and remove it. Idempotent, and quick where there is none."""
    if not any(os.path.isdir(f"{tree}/{cgroup}/{instance_id}") for tree in layout.trees):  # noqa: PTH112 - hot path
        return
    kill(layout, f"{cgroup}/{instance_id}")
    remove(layout, f"{cgroup}/{instance_id}")


def throttled(layout: Layout) -> set[tuple[int, int]]:
    """Devices that have a limit in the root group of v1's blkio controller."""
    found: set[tuple[int, int]] = set()
    for line in "".join(_throttle_texts(layout)).splitlines():
        major, _, minor = line.split()[0].partition(":")
        found.add((int(major), int(minor)))
    return found


def clear_throttles(layout: Layout, device: tuple[int, int]) -> None:
    """Take away every limit that a device has in the root group: the next owner of a loop device starts without.

    The bound on its dirty pages, which goes with them, is taken away as well.
    """
    key = f"{device[0]}:{device[1]}"
    dirty = DIRTY_PAGES / key / "strict_limit"
    if layout.version("blkio") == 1 and dirty.exists() and dirty.read_text().strip() == "1":
        _write_if_there(dirty.with_name("max_ratio"), "100")
        _write_if_there(dirty, "0")
    for name, text in zip(THROTTLE_FILES, _throttle_texts(layout), strict=False):
        if any(line.startswith(f"{key} ") for line in text.splitlines()):
            _write_if_there(layout.path("blkio", f"blkio.throttle.{name}_device"), f"{key} 0")


def _throttle_texts(layout: Layout) -> list[str]:
    if layout.version("blkio") != 1 or "blkio.throttle" not in layout.abilities:
        return []
    return [layout.path("blkio", f"blkio.throttle.{name}_device").read_text() for name in THROTTLE_FILES]
