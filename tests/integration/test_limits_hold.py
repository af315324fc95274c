"""Limits on real cgroups: each is run into."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bulkhead.config import Config
from bulkhead.host import cgroups, facts
from bulkhead.limits import read_usage
from tests.integration.limited import PLAN, Make, end, first_line, only_on

HOG = "x = bytearray(512 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1"
BOMB = """
import os, sys, time
made = 0
try:
    for _ in range(1000):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except BlockingIOError:
    print(made, flush=True)
    time.sleep(60)
"""
ENDLESS_BOMB = """
import os
print("go", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
SPIN = "print('go', flush=True)\nwhile True: pass"
WAIT = "import sys\nprint('go', flush=True)\nsys.stdin.read()"


def test_memory(make: Make) -> None:
    """A hog is ended by KILL, which is told as out of memory; a modest program is not."""
    hog, modest = make(), make()
    assert hog.run(HOG)[0] == -signal.SIGKILL
    assert read_usage(hog.layout, hog.cgroup, hog.id).oom_kills >= 1
    ended = hog.finish()
    assert ended.oom
    assert ended.memory_peak is not None and 48 << 20 < ended.memory_peak <= 64 << 20
    assert modest.run("x = bytearray(16 << 20)")[0] == 0
    ended = modest.finish()
    assert not ended.oom
    assert ended.cpu_seconds is not None and 0 < ended.cpu_seconds < 10


def test_memory_files_count(make: Make) -> None:
    """What is written to a tmpfs is memory too."""
    limited = make()
    code = "import os\nf = os.memfd_create('x')\nfor _ in range(256): os.write(f, b'x' * (1 << 20))"
    assert limited.run(code)[0] == -signal.SIGKILL
    assert limited.finish().oom


def test_pids(make: Make) -> None:
    """Processes up to the plan's number, one being the first itself; a fork beyond it fails."""
    limited = make(PLAN.model_copy(update={"pids": 20}))
    process = limited.start(BOMB)
    assert first_line(process) == "19"
    assert read_usage(limited.layout, limited.cgroup, limited.id).pids == 20
    limited.finish()
    end(process)


def test_a_fork_bomb_is_ended(make: Make) -> None:
    """Killing is faster than forking."""
    limited = make(PLAN.model_copy(update={"pids": 50}))
    process = limited.start(ENDLESS_BOMB)
    assert first_line(process) == "go"
    limited.finish()
    end(process)
    assert cgroups.processes(limited.layout, limited.group) == set()
    assert cgroups.list_instances(limited.layout, limited.cgroup) == []


@pytest.mark.parametrize(("cpus", "ghz_share", "cores"), [(0.2, 1.0, 0.2), (0.5, 0.5, 0.25)])
def test_cpu(make: Make, cpus: float, ghz_share: float, cores: float) -> None:
    """Time of a core as the plan says, GHz counted in: never more, however idle the host."""
    host = facts.facts(Config())
    ghz = round((host.ghz or 1.0) * ghz_share, 6)
    limited = make(PLAN.model_copy(update={"cpus": cpus, "ghz": ghz}))
    process = limited.start(SPIN)
    assert first_line(process) == "go"
    before, began = read_usage(limited.layout, limited.cgroup, limited.id).cpu_seconds, time.monotonic()
    time.sleep(1.5)
    used = read_usage(limited.layout, limited.cgroup, limited.id).cpu_seconds - before
    assert 0 < used <= (time.monotonic() - began + 0.1) * cores * 1.1
    limited.finish()
    end(process)


def test_cores(make: Make) -> None:
    """The instance sees as many as it may use."""
    limited = make(cpuset=(0,))
    assert limited.run("import os\nprint(len(os.sched_getaffinity(0)))") == (0, "1\n")
    everywhere = make()
    assert everywhere.run("import os\nprint(len(os.sched_getaffinity(0)))") == (0, f"{everywhere.facts.cores}\n")


def test_devices(make: Make) -> None:
    """The usual ones open; the host's do not, even as root of the host."""
    limited = make()
    only_on(limited.layout, "devices", 1)
    code = """
import os, sys
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDWR))
        print(path, "open")
    except PermissionError:
        print(path, "denied")
"""
    assert limited.run(code, "/dev/null", "/dev/zero", "/dev/loop-control") == (
        0,
        "/dev/null open\n/dev/zero open\n/dev/loop-control denied\n",
    )
    with Path("/dev/loop-control").open():
        pass


def test_updates_of_a_running_instance(make: Make) -> None:
    """Every limit up and down again, in an order that the kernel takes."""
    limited = make(cpuset=(0,))
    process = limited.start(WAIT)
    assert first_line(process) == "go"
    for memory, swap, pids in ((1 << 30, 0, 10), (32 << 20, 0, 300), (128 << 20, 0, 64)):
        limited.change(PLAN.model_copy(update={"memory": memory, "swap": swap, "pids": pids}))
        if limited.layout.version("memory") == 1:
            assert limited.read("memory", "memory.limit_in_bytes") == str(memory)
            assert limited.read("memory", "memory.memsw.limit_in_bytes") == str(memory + swap)
        assert limited.read("pids", "pids.max") == str(pids)
    limited.cpuset = ()
    limited.change(PLAN)
    assert len(os.sched_getaffinity(process.pid)) == limited.facts.cores
    process.communicate()


def test_a_limit_below_what_is_used_is_refused_by_v1(make: Make) -> None:
    """The old one stays in force."""
    limited = make(PLAN.model_copy(update={"memory": 256 << 20}))
    only_on(limited.layout, "memory", 1)
    process = limited.start("import sys\nx = b'x' * (100 << 20)\nprint('go', flush=True)\nsys.stdin.read()")
    assert first_line(process) == "go"
    with pytest.raises(OSError, match="busy"):
        limited.change(PLAN)
    assert limited.read("memory", "memory.limit_in_bytes") == str(256 << 20)
    process.communicate()


def test_freezing(make: Make) -> None:
    """Nothing runs while it is frozen; a frozen one can be ended."""
    limited = make()
    process = limited.start(SPIN)
    assert first_line(process) == "go"
    cgroups.freeze(limited.layout, f"{limited.cgroup}/{limited.id}")
    before = read_usage(limited.layout, limited.cgroup, limited.id).cpu_seconds
    time.sleep(0.2)
    assert read_usage(limited.layout, limited.cgroup, limited.id).cpu_seconds == before
    limited.finish()
    end(process)


def test_prepare_and_finish_come_twice_without_harm(make: Make) -> None:
    """A start after a crash finds what the one before has made."""
    limited = make()
    limited.prepare()
    limited.finish()
    limited.finish()
    assert limited.finish().memory_peak is None


def test_removal_takes_groups_that_were_made_inside(make: Make) -> None:
    """Also with processes in them, and when only some trees have them."""
    limited = make()
    below = limited.layout.path("pids", limited.group) / "a" / "b"
    below.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "600"])
    (below / "cgroup.procs").write_text(str(process.pid))
    if limited.layout.version("memory") == 1:
        limited.layout.path("memory", limited.group).rmdir()
    for _ in range(2):
        cgroups.kill_and_remove(limited.layout, limited.cgroup, limited.id)
    assert process.wait(timeout=10) == -signal.SIGKILL
    assert cgroups.list_instances(limited.layout, limited.cgroup) == []
