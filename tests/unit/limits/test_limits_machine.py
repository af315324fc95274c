"""A VM's plan: what the host holds its hypervisor to, what holds within the guest, and how it is told."""

from __future__ import annotations

from dataclasses import replace

from bulkhead.agent.operations import Code
from bulkhead.limits import check, enforced, guest_program, vmm_plan
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
