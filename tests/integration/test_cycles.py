"""Hundreds of instances come and go in one daemon, which keeps nothing of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bulkhead import client as wire
from bulkhead.client import Client
from tests.harness.daemon import Daemon
from tests.harness.leaks import Snapshot, diff, snapshot
from tests.integration.lives import until, with_image

EARLY, LATE = 100, 500
AT_ONCE = 4
POOL = 4
DESCRIPTORS_MORE = 4
"""Connections that are kept for a while may be more or fewer."""
MEMORY_MORE = 6 << 20
"""Bytes of RSS: what the allocator does with its arenas. Keeping 4 KiB of each instance would make 1.6 MB, and each
instance has a record, a bundle, events and sessions many times that size."""
WALLS = ("container", "chroot")


def cycle(daemon: Daemon, number: int) -> None:
    """`run --rm`: create, start, attach, to the end and its removal."""
    request = {
        "image": "busybox",
        "isolation": WALLS[number % 10 == 0],
        "command": ["echo", f"number {number}"],
        "plan": {"memory": 32 << 20, "cpus": 1, "disk": 64 << 20},
        "auto_remove": True,
    }
    said, code = b"", None
    with Client(str(daemon.config.socket_path)).duplex("/v1/run", request) as stream:
        frames = stream.waiting()
        while code is None:
            for kind, _, payload in frames:
                assert kind != wire.PROBLEM, payload
                said += payload if kind == wire.DATA else b""
                code = int.from_bytes(payload[:4], "little") if kind == wire.EXIT else code
            frames = [] if code is not None else stream.receive()
    assert (code, said) == (0, f"number {number}\n".encode())


def descriptors(pid: int) -> Counter[str]:
    """Open files of a process by what they are."""
    found: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
        try:
            found[os.readlink(f"/proc/{pid}/fd/{name}").split(":")[0]] += 1  # noqa: PTH115
        except FileNotFoundError:
            continue
    return found


def field(pid: int, name: str) -> int:
    """A number of /proc/PID/status: VmRSS in bytes, Threads."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    number = int(lines[name].split()[0])
    return number << 10 if name == "VmRSS" else number


def zombies(ancestor: int) -> list[str]:
    """Processes below `ancestor` that nobody has reaped."""
    found, parents = [], {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = text[text.rindex(")") + 2 :].split()[:2]
        parents[int(stat.parent.name)] = int(parent)
        found += [int(stat.parent.name)] if state == "Z" else []

    def below(pid: int) -> bool:
        while pid > 1 and pid != ancestor:
            pid = parents.get(pid, 0)
        return pid == ancestor

    return [str(pid) for pid in found if below(pid)]


def settled(daemon: Daemon) -> Snapshot:
    """What is on the host once the pools are full again."""
    seen = [snapshot(daemon.scope)]

    def quiet() -> bool:
        seen.append(snapshot(daemon.scope))
        return seen[-1] == seen[-2] and seen[-1].found["loop device"].total() == POOL

    until("the pools are full", quiet)
    return seen[-1]


def test_nothing_grows(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    daemon = with_image(make_daemon(disk_pool=POOL, network_pool=POOL), busybox_tar, "busybox")
    with ThreadPoolExecutor(AT_ONCE) as several:
        list(several.map(lambda number: cycle(daemon, number), range(EARLY)))
        until("nothing is left", lambda: list(daemon.config.instances_dir.iterdir()) == [])
        files, memory, threads = descriptors(daemon.pid), field(daemon.pid, "VmRSS"), field(daemon.pid, "Threads")
        host = settled(daemon)
        list(several.map(lambda number: cycle(daemon, number), range(EARLY, LATE)))
    assert daemon.json("ps", "-a", "--format", "json") == []
    until(
        "as many descriptors as before",
        lambda: descriptors(daemon.pid).total() <= files.total() + DESCRIPTORS_MORE,
    )
    assert field(daemon.pid, "VmRSS") <= memory + MEMORY_MORE
    assert field(daemon.pid, "Threads") <= threads + DESCRIPTORS_MORE
    until("no zombies", lambda: zombies(daemon.sandbox.pid) == [])
    # The pools' own links and disks have other names by now, and are no more than they were.
    after = settled(daemon)
    kinds = {kind: (host.found[kind].total(), after.found[kind].total()) for kind in after.found}
    assert {kind: numbers for kind, numbers in kinds.items() if numbers[1] > numbers[0]} == {}, diff(host, after)
    assert "Traceback" not in daemon.log()
