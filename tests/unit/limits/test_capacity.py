"""What a host can sell, and what is told where it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bulkhead.amounts import LIMITLESS, NOTHING, RESOURCES, Amounts
from bulkhead.config import Config
from bulkhead.host.facts import HostFacts
from bulkhead.limits import capacity, how_many, plan_amounts, room_problems, weigh
from bulkhead.model import Isolation, Plan, Spec

GIB = 1 << 30
FACTS = HostFacts(
    cores=2, online=(0, 1), ghz=2.5, ghz_source="test", memory=24 * GIB, swap=0, kernel="6.1", memory_nodes=(0,)
)
PLAN = Plan(memory=512 << 20, cpus=2, disk=5 * GIB)


def spec(**fields: object) -> Spec:
    usual: dict[str, object] = {
        "id": "0" * 32,
        "name": "web",
        "image": "box",
        "image_digest": "sha256:0",
        "isolation": "container",
        "plan": PLAN,
        "argv": ("true",),
        "hostname": "web",
        "network": "default",
        "created": 1.0,
    }
    return Spec.model_validate({**usual, **fields})


def test_what_the_reserve_leaves_is_sold_as_often_as_the_ratio_says() -> None:
    has = capacity(FACTS, Config(), disk=100 * GIB)
    assert has.shares["memory"].sellable == 24 * GIB - 24 * GIB // 16
    assert has.shares["cpu"].sellable == round(2 * 0.95 * 2_500_000 * 4)
    assert has.shares["disk"].sellable == 95 * GIB
    given = Config(reserve_memory=4 * GIB, reserve_cpus=1, reserve_disk=0, overcommit_memory=2, overcommit_cpu=1)
    has = capacity(FACTS, given, disk=100 * GIB)
    assert [has.shares[name].sellable for name in ("memory", "cpu", "disk")] == [40 * GIB, 2_500_000, 100 * GIB]


@pytest.mark.parametrize(("memory", "kept"), [(4, 0.5), (24, 1.5), (256, 4)])
def test_the_usual_reserve_follows_the_hosts_memory_within_bounds(memory: int, kept: float) -> None:
    has = capacity(replace(FACTS, memory=memory * GIB), Config(), disk=GIB)
    assert has.shares["memory"].reserve == kept * GIB


def test_a_reserve_beyond_the_host_leaves_nothing_and_no_less() -> None:
    assert capacity(FACTS, Config(reserve_memory=99 * GIB), disk=GIB).shares["memory"].sellable == 0


def test_the_network_and_the_disks_speed_are_sold_where_the_operator_says_what_there_is() -> None:
    assert capacity(FACTS, Config(), disk=GIB).free(NOTHING).bandwidth == LIMITLESS
    has = capacity(FACTS, Config(host_bandwidth=10**9, host_iops=1000, overcommit_iops=2), disk=GIB)
    assert has.free(Amounts(bandwidth=4 * 10**8, iops=500)).bandwidth == 6 * 10**8
    assert has.free(Amounts(iops=500)).iops == 1500
    assert [found.what for found in room_problems(Amounts(bandwidth=7 * 10**8), has, Amounts(bandwidth=4 * 10**8))] == [
        "bandwidth: 700Mbit/s asked for, 600Mbit/s left: 400Mbit/s of 1Gbit/s are sold"
    ]


def test_cores_are_sold_by_their_speed_and_by_their_baseline() -> None:
    def cpu(**fields: object) -> int:
        return plan_amounts(PLAN.model_copy(update=fields), FACTS, isolation=Isolation.CONTAINER, accelerator="").cpu

    assert cpu() == 5_000_000
    assert cpu(ghz=1.0) == 2_000_000
    assert cpu(baseline=0.1) == 250_000
    assert cpu(baseline=0.1, ghz=1.0) == 100_000
    assert cpu(baseline=3.0) == 5_000_000, "never more than it may use"
    unknown = replace(FACTS, ghz=None)
    assert plan_amounts(PLAN, unknown, isolation=Isolation.CONTAINER, accelerator="").cpu == 2_000_000


def test_a_machine_takes_what_its_hypervisor_may_and_what_is_in_it_takes_of_it() -> None:
    container = weigh(spec(), FACTS, accelerator="")
    machine = weigh(spec(isolation="vm"), FACTS, accelerator="kvm")
    assert machine.memory - container.memory == 96 << 20
    assert weigh(spec(isolation="vm"), FACTS, accelerator="tcg").memory - container.memory == 176 << 20
    within = weigh(spec(inside="1" * 32), FACTS, accelerator="")
    assert within == Amounts(disk=5 * GIB), "memory and cores are the machine's, sold once"
    made = weigh(spec(isolation="vm", only_for="1" * 32, argv=()), FACTS, accelerator="kvm")
    assert (made.disk, made.memory) == (0, machine.memory)


def test_every_resource_that_is_short_is_told_with_all_its_figures() -> None:
    has = capacity(FACTS, Config(), disk=100 * GIB)
    sold = Amounts(memory=22 * GIB, cpu=18_500_000, disk=94 * GIB)
    found = room_problems(Amounts(memory=GIB, cpu=1_000_000, disk=5 * GIB), has, sold)
    assert [problem.what for problem in found] == [
        "memory: 1G asked for, 512M left: 22G of 22.5G are sold",
        "cpu: 1 GHz asked for, 0.5 GHz left: 18.5 GHz of 19 GHz are sold",
        "disk: 5G asked for, 1G left: 94G of 95G are sold",
    ]
    assert all("bulkhead host info" in problem.hint for problem in found)
    assert "overcommit_cpu" in found[1].hint
    assert not room_problems(Amounts(memory=512 << 20), has, sold), "the last byte is sold"


def test_what_takes_nothing_more_is_never_short_even_where_too_much_is_sold() -> None:
    has = capacity(FACTS, Config(), disk=GIB)
    assert not room_problems(Amounts(memory=0, cpu=0), has, Amounts(memory=99 * GIB, cpu=10**9))
    assert has.free(Amounts(memory=99 * GIB)).memory < 0
    assert room_problems(Amounts(memory=1), has, Amounts(memory=99 * GIB))[0].what.startswith(
        "memory: 1 asked for, 0 left"
    )


def test_how_many_more_fit_and_what_ends_it() -> None:
    free = Amounts(memory=10 * GIB, cpu=3_000_000, disk=100 * GIB)
    assert how_many(Amounts(memory=GIB, cpu=1_000_000, disk=GIB), free) == (3, "cpu")
    assert how_many(Amounts(memory=4 * GIB), free) == (2, "memory")
    assert how_many(Amounts(memory=GIB), Amounts(memory=-GIB)) == (0, "memory")
    assert how_many(NOTHING, free) == (0, "")


def test_as_many_as_are_told_fit_really() -> None:
    has = capacity(FACTS, Config(), disk=200 * GIB)
    one = plan_amounts(PLAN.model_copy(update={"baseline": 0.1}), FACTS, isolation=Isolation.CONTAINER, accelerator="")
    more, ends = how_many(one, has.free(NOTHING))
    sold = NOTHING
    for _ in range(more):
        assert not room_problems(one, has, sold)
        sold += one
    assert [problem.what.partition(":")[0] for problem in room_problems(one, has, sold)] == [ends]


def test_amounts_are_told_by_all_their_names() -> None:
    assert tuple(NOTHING.as_dict()) == RESOURCES
    assert Amounts(memory=1, cpu=5).at_least(Amounts(memory=3, cpu=2)) == Amounts(memory=3, cpu=5)
