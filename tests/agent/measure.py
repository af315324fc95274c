"""Prints what a start, an exec and a supervisor cost here. Run as root: python -m tests.agent.measure [COUNT]"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bulkhead.agent.operations import Code, Operation, simple
from tests.agent.box import Box, cgroup_name, command
from tests.agent.conftest import make_busybox_root
from tests.agent.wire import DATA, EXEC, Agent, Connection

V1 = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "cpu", "pids", "blkio")
LIMITS = {
    "memory": ("memory.limit_in_bytes", "67108864"),
    "cpu": ("cpu.cfs_quota_us", "50000"),
    "pids": ("pids.max", "64"),
}


def say(name: str, took: list[float]) -> None:
    took = sorted(took)
    middle, high = statistics.median(took) * 1000, took[len(took) * 9 // 10] * 1000
    sys.stdout.write(f"{name:34} median {middle:7.2f} ms   p90 {high:7.2f}   min {took[0] * 1000:7.2f}\n")


def clocked(took: list[float], action: Callable[[], object]) -> object:
    begin = time.perf_counter()
    result = action()
    took.append(time.perf_counter() - begin)
    return result


def limits(number: int) -> dict[str, Any]:
    """The cgroups of one instance, as an engine would ask for them."""
    groups = {name: V1 / name / cgroup_name(f"measure{number}") for name in CONTROLLERS}
    return {
        "prepare": [
            *(simple(Code.MKDIR, str(path), 0o755) for path in groups.values()),
            *(simple(Code.WRITE, str(groups[name] / file), value) for name, (file, value) in LIMITS.items()),
        ],
        "join": [str(path / "tasks") for path in groups.values()],
        "kill": str(groups["pids"] / "cgroup.procs"),
        "finish": [
            Operation(Code.READ, (str(groups["memory"] / "memory.max_usage_in_bytes"),), report=True),
            *(simple(Code.RMDIR, str(path)) for path in groups.values()),
        ],
    }


def starts(make: Callable[[int], Box], count: int, *, network: bool, cgroups: bool) -> None:
    launch: list[float] = []
    start: list[float] = []
    end: list[float] = []
    for number in range(count):
        box = make(number)
        clocked(launch, box.agent.launch)
        connection = box.agent.connect()
        stream = connection.attach()
        request = box.request("true", network=network, **(limits(number) if cgroups else {}))
        clocked(start, partial(connection.start, request))
        clocked(end, partial(connection.collect, stream))
        connection.close()
        box.end()
    with_what = " + ".join(["start", *(["network"] if network else []), *(["cgroups"] if cgroups else [])])
    say(f"{with_what}: to OK", start)
    say("   from OK to EXIT", end)
    say("   both", [first + second for first, second in zip(start, end, strict=True)])
    say("   launch (python's fork and exec)", launch)


def running(box: Box, count: int) -> None:
    connection = box.launch()
    connection.start(box.request("sleep", "1000"))
    memory(box.agent.pid, "after the start")
    took: list[float] = []
    for _ in range(count):
        clocked(took, lambda: connection.exec(command("true")))
    say("exec of true, to EXIT", took)
    memory(box.agent.pid, f"after {count} execs")
    stream = connection.open(EXEC, command("head", "-c", str(64 << 20), "/dev/zero"))
    connection.answer(stream)
    clocked(took := [], lambda: swallow(connection, stream))
    say("64 MiB of output", took)
    memory(box.agent.pid, "after that")
    connection.quit()


def swallow(connection: Connection, stream: int) -> None:
    while connection.next(stream).type == DATA:
        pass


def memory(pid: int, when: str) -> None:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    private = sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
    shown = ", ".join(
        f"{name} {fields[name].split()[0]} kB" for name in ("Pss", "Private_Dirty", "Private_Clean", "Rss")
    )
    sys.stdout.write(f"supervisor {when}: {shown}, private {private} kB\n")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    source = Path(__file__).resolve().parents[2] / "agent"
    with tempfile.TemporaryDirectory(prefix="bulkhead-measure-", dir="/var/tmp") as directory:
        top = Path(directory)
        subprocess.run(["make", "-s", "-C", source, f"OUT={top / 'build'}", "-j2"], check=True)
        root = make_busybox_root(top / "root")

        def make(number: int) -> Box:
            bundle = top / f"bundle{number}"
            return Box.make(bundle, root, Agent(top / "build/agent", bundle))

        starts(make, count, network=False, cgroups=False)
        starts(make, count, network=False, cgroups=True)
        starts(make, count, network=True, cgroups=True)
        box = make(0)
        try:
            running(box, count)
        finally:
            box.end()
        shutil.rmtree(top / "root")


if __name__ == "__main__":
    assert os.geteuid() == 0
    main()
