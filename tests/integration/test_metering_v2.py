"""Metering where cgroup v2 counts. On any other host this runs in a guest: see test_nested.py."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from bulkhead.host import cgroups
from tests.harness.daemon import Daemon
from tests.integration.limited import only_on
from tests.integration.lives import state, until, with_image
from tests.integration.test_metering import COMMAND, LEVELS, Witness, assert_counted, usage

PLAN = ("--memory", "64M", "--cpus", "0.3", "--disk", "64M")
KILLS = 3


def test_what_v2_counts_is_counted_once_through_kills(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    layout = cgroups.detect()
    for controller in ("memory", "cpu", "io"):
        only_on(layout, controller, 2)
    daemon = with_image(make_daemon(metering_interval=1, network_pool=0), busybox_tar, "busybox")
    witness = Witness(daemon)
    daemon.cli("run", "-d", "--name", "one", *PLAN, "busybox", "sh", "-c", COMMAND)
    identifier = daemon.api("GET", "/v1/instances/one").body["spec"]["id"]
    group = layout.path("cpu", f"{daemon.config.cgroup}/{identifier}")

    def told() -> int:
        """Nanoseconds that the meter knows of."""
        row = usage(daemon).get(identifier)
        return round(row["cpu_seconds"] * 1e9) if row else 0

    for _ in range(KILLS):
        least = counted(group)
        until("the meter has seen it", lambda least=least: told() >= least > 0)
        said = told()
        assert said <= counted(group), "more than the kernel has counted"
        daemon.kill9()
        daemon.start()
        assert told() >= said, "a daemon's end has lost something"
    end_meanwhile(daemon)
    until("its end is told", lambda: state(daemon, "one") == "exited")
    witness.look()
    daemon.cli("start", "one")
    until("it has run for a while", lambda: counted(group) > 10**8)
    daemon.cli("stop", "-t", "0", "one")
    witness.look()
    runs = list(witness.runs.values())
    assert len(runs) == 2
    assert all(final.counted.cpu and final.counted.memory and final.sent for final, _ in runs), runs
    assert_counted(usage(daemon)[identifier], runs, LEVELS[0])
    daemon.cli("rm", "one")
    assert told() == sum(final.counted.cpu or 0 for final, _ in runs), "its use is there when it is gone"


def counted(group: Path) -> int:
    """Nanoseconds of a core, by the kernel."""
    found = re.search(r"^usage_usec (\d+)$", (group / "cpu.stat").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1000


def end_meanwhile(daemon: Daemon) -> None:
    """Its workload ends while there is no daemon."""
    pid = daemon.api("GET", "/v1/instances/one").body["pid"]
    daemon.kill9()
    os.kill(pid, signal.SIGKILL)
    until("it has ended", lambda: not Path(f"/proc/{pid}").exists())
    daemon.start()
