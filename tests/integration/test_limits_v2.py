"""What only a host with cgroup v2 alone can show. On any other these run in a guest: see test_nested.py."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from bulkhead.host import cgroups
from bulkhead.limits import read_usage
from tests.integration.limited import PLAN, Limited, Make, end, first_line, only_on

WAIT = "import sys\nprint('go', flush=True)\nsys.stdin.read()"
EAT = """
import sys
print("go", flush=True)
sys.stdin.readline()
x = bytearray(int(sys.argv[1]) << 20)
for i in range(0, len(x), 4096): x[i] = 1
print("eaten", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def limited(make: Make) -> Limited:
    """One with the usual plan."""
    made = make(cpuset=(0,))
    for controller in ("memory", "cpu", "pids", "io", "cpuset"):
        only_on(made.layout, controller, 2)
    return made


def test_every_file_says_what_the_plan_does(limited: Limited) -> None:
    """And nothing that the plan does not say is limited."""
    told = {
        name: limited.read(name.partition(".")[0], name)
        for name in ("memory.max", "memory.high", "memory.low", "memory.oom.group", "pids.max", "cpuset.cpus", "io.max")
    }
    assert told == {
        "memory.max": str(PLAN.memory),
        "memory.high": "max",
        "memory.low": "0",
        "memory.oom.group": "1",
        "pids.max": str(PLAN.pids),
        "cpuset.cpus": "0",
        "io.max": "",
    }
    assert limited.read("cpu", "cpu.max").split() == ["max", "100000"]
    assert limited.read("cpuset", "cpuset.cpus.effective") == "0"
    swap = limited.layout.path("memory", limited.group) / "memory.swap.max"
    assert not swap.exists() or swap.read_text() == "0\n"


def test_nothing_is_left_of_an_instance_that_is_out_of_memory(limited: Limited) -> None:
    """Not the one process alone that asked for too much: half an instance is worth nothing."""
    modest = limited.start(WAIT)
    assert first_line(modest) == "go"
    hog = limited.start(EAT, "512")
    assert first_line(hog) == "go"
    assert hog.stdin
    hog.stdin.write("\n")
    hog.stdin.flush()
    assert hog.wait(timeout=60) == -signal.SIGKILL
    assert modest.wait(timeout=60) == -signal.SIGKILL
    end(hog), end(modest)
    assert read_usage(limited.layout, limited.cgroup, limited.id).oom_kills >= 2
    ended = limited.finish()
    assert ended.oom
    assert ended.memory_peak is not None and 48 << 20 < ended.memory_peak <= PLAN.memory


def test_less_memory_than_is_in_use(make: Make) -> None:
    """What can be written back or dropped is; beyond that the instance is out of memory."""
    limited = make(PLAN.model_copy(update={"memory": 256 << 20}))
    only_on(limited.layout, "memory", 2)
    process = limited.start(EAT, "100")
    assert first_line(process) == "go"
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()
    assert first_line(process) == "eaten"
    limited.change(PLAN.model_copy(update={"memory": 192 << 20}))
    assert process.poll() is None
    limited.change(PLAN)
    assert process.wait(timeout=60) == -signal.SIGKILL
    end(process)
    assert limited.finish().oom


def test_groups_below_are_frozen_and_ended_as_well(limited: Limited) -> None:
    """By cgroup.freeze and cgroup.kill of the instance's own group."""
    below = limited.layout.path("pids", limited.group) / "a" / "b"
    below.mkdir(parents=True)
    process = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    (below / "cgroup.procs").write_text(str(process.pid))
    cgroups.freeze(limited.layout, limited.group)
    assert "frozen 1" in (below / "cgroup.events").read_text()
    before = read_usage(limited.layout, limited.cgroup, limited.id).cpu_seconds
    time.sleep(0.2)
    assert read_usage(limited.layout, limited.cgroup, limited.id).cpu_seconds == before
    assert limited.program.kill.endswith("/cgroup.kill")
    Path(limited.program.kill).write_text("1")
    assert process.wait(timeout=60) == -signal.SIGKILL
    cgroups.kill_and_remove(limited.layout, limited.cgroup, limited.id)
    assert cgroups.list_instances(limited.layout, limited.cgroup) == []


def test_throttling_is_told(make: Make) -> None:
    """How long the quota has held it back."""
    limited = make(PLAN.model_copy(update={"cpus": 0.1}))
    only_on(limited.layout, "cpu", 2)
    assert limited.read("cpu", "cpu.max") == "10000 100000"
    process = limited.start("print('go', flush=True)\nwhile True: pass")
    assert first_line(process) == "go"
    deadline = time.monotonic() + 60
    while read_usage(limited.layout, limited.cgroup, limited.id).throttled_seconds < 0.1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    limited.finish()
    end(process)
