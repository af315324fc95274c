"""bulkhead rescue --on-host: a disk of the user's own, opened by this host's kernel, without the daemon."""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bulkhead.boot import rescue
from bulkhead.errors import HostError, Problem, Refused
from bulkhead.host import foreground, loop, processes
from bulkhead.images import Bounds, diskformats

TOOLS = {"lsblk": "util-linux", "blkid": "util-linux", "findfs": "util-linux", "unshare": "util-linux"}
_MOST = 64


def main(target: str, words: list[str], command: list[str], *, write: bool) -> int:
    """Open it, run the command; its exit code. What was mounted was so in a mount namespace that is gone then."""
    problems = [] if os.geteuid() == 0 else [Problem(f"only root can mount {target}", "use sudo")]
    if "--tools" in words:
        problems.append(Problem("--tools: on a host its own tools are at hand", "leave out --tools or --on-host"))
    if problems:
        raise Refused(problems)
    for program, package in TOOLS.items():
        processes.require(program, package)
    with ExitStack() as stack:
        devices = _devices(Path(target), stack, write=write)
        named = [word for device in devices for word in ("--on-host", device)]
        return foreground.run(["sh", rescue.script_path(), *words, *named, "--", *command])


def _devices(target: Path, stack: ExitStack, *, write: bool) -> list[str]:
    """Block devices of a disk's partitions that nobody uses: loop devices that go with this process.

    Not the kernel's own partitions: some kernels know of none, and those of a file would have to be looked for first.
    """
    try:
        path = target.resolve(strict=True)
        mode = path.stat().st_mode
        if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
            raise Refused(f"{target} is neither a file nor a block device", hint="name a disk")
        # Of a device that is mounted, or part of one that is, EXCL is refused.
        exclusive = os.O_EXCL if stat.S_ISBLK(mode) else 0
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | exclusive)
    except OSError as error:
        hint = "unmount it first; what uses it? lsblk says" if error.errno == errno.EBUSY else "check the path"
        raise Refused(f"{target} cannot be opened: {error.strerror}", hint=hint) from error
    stack.callback(os.close, descriptor)
    if stat.S_ISREG(mode):
        _check(target, path, descriptor)
    found = []
    for part in _parts(path):
        attached = loop.attach(path, direct_io=False, read_only=not write, part=part)
        stack.callback(attached.close)
        found.append(str(attached.loop.path))
    return found


def _parts(path: Path) -> list[tuple[int, int]]:
    """Offsets and sizes in bytes of a disk's partitions; the whole of one that has none."""
    try:
        table = json.loads(processes.run(["sfdisk", "--json", path], package="fdisk"))["partitiontable"]
    except HostError:
        return [(0, 0)]  # no partition table
    sector = int(table.get("sectorsize", diskformats.SECTOR))
    return [(int(part["start"]) * sector, int(part["size"]) * sector) for part in table.get("partitions", [])][:_MOST]


def _check(target: Path, path: Path, descriptor: int) -> None:
    found = diskformats.examine(descriptor, replace(Bounds(), total=1 << 50))
    problems = []
    if found.form != "raw":
        problems.append(Problem(f"{target} is a {found.form}: a host reads raw disks alone", "leave out --on-host"))
    if device := loop.find(path):
        problems.append(Problem(f"{target} is in use as {device.path}", f"losetup -d {device.path}"))
    if problems:
        raise Refused(problems)
