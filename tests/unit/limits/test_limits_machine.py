"""A VM's plan: what the host holds its hypervisor to, what holds within the guest, and how it is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bulkhead.agent.operations import Code
from bulkhead.errors import Conflict
from bulkhead.limits import check, check_guest_use, enforced, guest_program, vmm_plan
from bulkhead.limits.machine import workload_memory
from bulkhead.model import Isolation, Plan
from tests.unit.limits.hosts import FACTS, V1

PLAN = Plan(memory=512 << 20, cpus=1.5, ghz=1.0, disk=5 << 30, iops=100, disk_bps=1 << 20, pids=64)
ID = "0123456789abcdef" * 2


def test_the_hypervisor_has_the_plans_cores_and_memory_of_its_own() -> None:
    held = vmm_plan(PLAN, "tcg")
    assert (held.cpus, held.ghz) == (PLAN.cpus, PLAN.ghz)
    assert held.memory - PLAN.memory == 176 << 20
    assert held.pids > 64 + 2
    assert (held.iops, held.disk_bps) == (None, None)


def test_the_guest_limits_processes_and_leaves_cores_to_the_host() -> None:
    made = guest_program(PLAN)
    written = {str(o.arguments[0]).rpartition("/")[2]: o.arguments[1] for o in made.prepare if o.code is Code.WRITE}
    assert written["pids.max"] == "64"
    assert str(written["cpu.max"]).startswith("max")
    assert "io.max" not in written
    assert made.join == ("/sys/fs/cgroup/bulkhead/instance/cgroup.procs",)
    assert made.kill == "/sys/fs/cgroup/bulkhead/instance/cgroup.kill"


@pytest.mark.parametrize("memory", [80 << 20, 128 << 20, 512 << 20, 1 << 30, 64 << 30])
def test_the_workload_has_less_than_its_guest(memory: int) -> None:
    """So that it runs out of memory before its kernel does; not much less."""
    assert 48 << 20 < memory - workload_memory(memory) < (160 << 20) + memory // 16
    assert workload_memory(memory) >= 20 << 20
    assert workload_memory(1 << 20) > 0


@pytest.mark.parametrize("reports", [["200000000\n", "inactive_file 100\n"], ["200000000", "nonsense"]])
def test_less_than_the_workload_uses_is_refused(reports: list[str]) -> None:
    small = PLAN.model_copy(update={"memory": 128 << 20})
    with pytest.raises(Conflict, match="uses more than the new limit allows"):
        check_guest_use(PLAN, small, reports)
    check_guest_use(small, PLAN, reports)
    for fine in (["200000000\n", "x 1\ninactive_file 199999999\ny 2"], ["1" * 1000], []):
        check_guest_use(PLAN, small, fine)


def test_what_holds_a_machine_is_told() -> None:
    rows = {row.field: row.mechanism for row in enforced(PLAN, facts=FACTS, layout=V1, isolation=Isolation.VM)}
    assert "hypervisor" in rows["memory"]
    assert "guest" in rows["pids"]
    assert "hypervisor" in rows["iops"]
    assert "hypervisor" in rows["disk_bps"]
    assert "devices" not in rows


def test_a_host_without_block_io_limits_can_still_throttle_a_machine() -> None:
    bare = replace(V1, v1={name: path for name, path in V1.v1.items() if name != "blkio"})
    bare = replace(bare, abilities=bare.abilities - {"blkio.throttle"})
    told = check(PLAN, facts=FACTS, layout=bare, isolation=Isolation.CONTAINER)
    assert any("iops" in problem.what for problem in told)
    told = check(PLAN, facts=FACTS, layout=bare, isolation=Isolation.VM)
    assert not any("iops" in problem.what for problem in told)
