"""What a VM has left for instances in it, and what they get of it."""

from __future__ import annotations

import pytest

from bulkhead import limits
from bulkhead.isolation import vmm
from bulkhead.limits.usage import InnerUse, parse_inner_use
from bulkhead.model import Plan

MIB = 1 << 20
PLAN = Plan(memory=256 * MIB, cpus=1, disk=64 * MIB)


@pytest.mark.parametrize("memory", [16, 64, 128, 500, 512, 1024, 4096])
def test_a_machine_made_for_a_plan_has_room_for_it_and_little_more(memory: int) -> None:
    plan = PLAN.model_copy(update={"memory": memory * MIB, "iops": 100, "swap": MIB})
    machine = limits.machine_for(plan)
    assert limits.inner_memory(machine.memory) >= plan.memory
    assert limits.inner_memory(machine.memory - 4 * MIB) < plan.memory
    assert machine.memory % (2 * MIB) == 0
    assert (machine.cpus, machine.pids) == (plan.cpus, plan.pids)
    assert (machine.swap, machine.iops) == (0, None)


def test_a_machine_keeps_something_for_itself() -> None:
    assert 0 < limits.inner_memory(PLAN.memory) < PLAN.memory - 64 * MIB
    assert limits.inner_memory(64 * MIB) == 0


def test_a_share_of_the_guests_cores_is_one_of_what_the_machine_has() -> None:
    slow = PLAN.model_copy(update={"cpus": 2, "ghz": 1.0})
    written = [
        str(operation.arguments[1])
        for operation in limits.inner_program(
            PLAN.model_copy(update={"cpus": 1, "ghz": 0.5}), "a" * 32, machine=slow
        ).prepare
        if str(operation.arguments[0]).endswith("cpu.max")
    ]
    assert written == ["50000 100000"]


def test_what_a_guest_tells_of_use_is_read_with_care() -> None:
    net = "Inter-|\n face |\n    lo: 1 0 0 0 0 0 0 0 1 0\n  eth0: 862 5 0 0 0 0 0 0 1100 9 0 0 0 0 0 0\n"
    disks = "254:32 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=5 dios=0\n254:96 rbytes=100 wbytes=0 rios=1 wios=0\n"
    reports = ["4096\n", "inactive_file 1000\n", "8192\n", "oom_kill 2\n", "usage_usec 1500000\n", "3\n", disks, net]
    found = parse_inner_use(reports)
    used = found.usage
    assert (used.memory, used.memory_working, used.memory_peak, used.pids) == (4096, 3096, 8192, 3)
    assert (used.cpu_seconds, used.oom_kills, found.received, found.sent) == (1.5, 2, 862, 1100)
    assert (found.read, found.written) == (4196, 8192)


@pytest.mark.parametrize("reports", [[], ["x"] * 7, ["9" * 400] * 7, ["-1"] * 7, ["\u0661"] * 7, [""] * 99])
def test_nonsense_counts_as_nothing(reports: list[str]) -> None:
    assert parse_inner_use(reports) == InnerUse()


def test_a_machine_takes_so_many_layers() -> None:
    assert [vmm.spare_layers(inner) for inner in (0, 1, 2, 3, 16)] == [0, 4, 4, 6, 32]
    assert vmm.spare_count(16) == 48, "six slots of eight functions"
