"""Hosts with cgroup v2 alone: the tests of limits run in a guest that Bulkhead boots, which is such a host.

So does a daemon with containers: out of memory, changed while they run, paused when their supervisor is killed,
metered.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import nested
from tests.harness.daemon import Daemon

pytestmark = pytest.mark.minutes(6)
TESTS = (
    "tests/integration/test_limits_hold.py",
    "tests/integration/test_limits_disk.py",
    "tests/integration/test_limits_v2.py",
    "tests/integration/test_lifecycle.py::test_out_of_memory_is_told[container]",
    "tests/integration/test_lifecycle.py::test_update_changes_the_limits_of_a_running_instance",
    "tests/integration/test_lifecycle.py::test_less_memory_than_is_in_use_is_refused",
    "tests/integration/test_pause.py::test_one_whose_supervisor_is_killed",
    "tests/integration/test_metering_v2.py",
    "tests/integration/test_metering.py::test_what_a_run_leaves_is_counted",
    "tests/integration/test_metering.py::test_a_changed_plan_is_sold_from_then_on",
)
EXPECTED_SKIPS = ("for cgroup v1:", "for Linux 6.2 and later:")
"""How the reasons of tests begin that cannot run there; each has its twin."""
AT_LEAST = 32
"""Tests that must have passed: fewer would mean that the selection has lost some."""
MACHINE = ("--memory", "1536M", "--cpus", "2", "--disk", "4G", "--no-template")
SECONDS = 1500


@pytest.mark.timeout(SECONDS + 300)
def test_limits_hold_with_cgroup_v2(daemon: Daemon, tmp_path: Path) -> None:
    daemon.cli("image", "import", nested.parts().layout, "kernel/debian:latest")
    daemon.cli("image", "import", nested.image(tmp_path / "nested.tar"), "nested")
    done = daemon.cli(
        *("run", "--name", "host", "--isolation", "vm", *MACHINE, "nested", *nested.command(TESTS)),
        check=False,
        timeout=SECONDS,
    )
    said = f"exit code {done.returncode} in the guest\n{done.stdout[-20_000:]}\n{done.stderr[-2000:]}"
    assert done.returncode in (0, 1), said
    daemon.cli("cp", f"host:{nested.RESULTS}", tmp_path / "results.xml")
    found = nested.results(tmp_path / "results.xml")
    failed = [result.name for result in found if result.verdict == "failed"]
    assert not failed, f"{failed} failed: {said}"
    lost = [r for r in found if r.verdict == "skipped" and not r.text.startswith(EXPECTED_SKIPS)]
    assert not lost, f"skipped in the guest: {lost}"
    passed = [result.name for result in found if result.verdict == "passed"]
    assert len(passed) >= AT_LEAST, passed
