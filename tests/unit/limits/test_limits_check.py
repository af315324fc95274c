"""What a host refuses of a plan, and what it says then."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.limits import check, choose_cpuset, enforced
from bulkhead.limits.cpu import LONG_PERIOD, MIN_QUOTA, quota, share
from bulkhead.model import Isolation, Plan
from tests.unit.limits.hosts import FACTS, HYBRID, LAYOUTS, V1, V2

PLAN = Plan(memory=512 << 20, cpus=2, ghz=2.0, disk=5 << 30, iops=100, disk_bps=1 << 20, bandwidth=10**8)


def problems(plan: Plan, **changes: object) -> list[str]:
    """What is said of a plan on a host with some changes."""
    settings: dict[str, object] = {
        "facts": FACTS,
        "layout": V1,
        "isolation": Isolation.CONTAINER,
        "network": "default",
        **changes,
    }
    found = check(plan, **settings)  # type: ignore[arg-type]
    assert all(problem.hint for problem in found)
    return [problem.what for problem in found]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_plan_that_holds(kind: str) -> None:
    """On every kind of host."""
    assert problems(PLAN, layout=LAYOUTS[kind]) == []


def test_all_problems_at_once() -> None:
    """With the values asked for and those of the host."""
    greedy = Plan(memory=1 << 40, swap=1 << 40, cpus=64, ghz=3.5, disk=5 << 30, bandwidth=10**6)
    said = problems(greedy, network="host", isolation=Isolation.CONTAINER)
    assert said == [
        "plan: cpus 64 is more than the 4 cores of this host",
        "plan: ghz 3.5 is faster than this host's cores (2.5 GHz, from cpufreq base_frequency)",
        "plan: memory 1T is more than this host has (16G)",
        "plan: swap 1T is more than this host has (4G)",
        "plan: bandwidth 1M cannot be enforced for a container with network 'host'",
    ]


def test_unknown_speed_of_the_host() -> None:
    """Refused only where GHz were asked for."""
    unknown = replace(FACTS, ghz=None, ghz_source="unknown")
    assert problems(PLAN, facts=unknown) == [
        "plan: ghz 2 cannot be enforced: nothing tells the speed of this host's cores"
    ]
    assert problems(PLAN.model_copy(update={"ghz": None}), facts=unknown) == []


def test_missing_controllers() -> None:
    """Each limit names what it lacks."""
    bare = replace(V1, v1={"cpuset": V1.v1["cpuset"]}, abilities=frozenset())
    said = " ".join(problems(PLAN, layout=bare))
    for field in ("cpus", "memory", "pids", "iops 100", "disk_bps 1048576"):
        assert f"plan: {field} cannot be enforced" in said
    assert "no quotas" in " ".join(problems(PLAN, layout=replace(V2, abilities=V2.abilities - {"cpu.quota"})))


def test_swap_without_accounting() -> None:
    """v1 can promise no swap; v2 cannot; nobody can promise an amount. Without swap on the host all is well."""
    for layout, swap, refused in ((V1, 0, False), (V1, 1 << 20, True), (V2, 0, True), (V2, 1 << 20, True)):
        blind = replace(layout, abilities=layout.abilities - {"memory.swap"})
        plan = PLAN.model_copy(update={"swap": swap})
        assert bool(problems(plan, layout=blind)) is refused
    blind = replace(V2, abilities=V2.abilities - {"memory.swap"})
    assert problems(PLAN, layout=blind, facts=replace(FACTS, swap=0)) == []


def test_too_little_time_to_count() -> None:
    """The kernel's smallest quota is 1 ms in 1 s."""
    tiny = Plan(memory=64 << 20, cpus=0.0001, disk=64 << 20)
    assert "less than 1 ms" in problems(tiny)[0]


@given(st.floats(0.001, 64), st.none() | st.floats(0.1, 2.5), st.integers(1, 64))
def test_quota_is_what_was_asked_for(cpus: float, ghz: float | None, cores: int) -> None:
    """Within the rounding to a microsecond, and within what the kernel takes."""
    plan = Plan(memory=64 << 20, cpus=cpus, ghz=ghz, disk=64 << 20)
    found, wanted = quota(plan, FACTS, cores=cores), share(plan, FACTS)
    if found is None:
        assert wanted >= cores
        return
    assert found[0] >= MIN_QUOTA
    assert 1000 <= found[1] <= LONG_PERIOD
    if wanted * LONG_PERIOD >= MIN_QUOTA:
        assert abs(found[0] / found[1] - wanted) <= 1 / found[1]


def test_cpusets_spread() -> None:
    """The least-used cores, ties by number; () for all; cores that went offline do not matter."""
    plan = Plan(memory=64 << 20, cpus=1.5, disk=64 << 20)
    assert choose_cpuset(plan, FACTS, []) == (0, 1)
    assert choose_cpuset(plan, FACTS, [(0, 1)]) == (2, 3)
    assert choose_cpuset(plan, FACTS, [(0, 1), (2, 9), ()]) == (0, 3)
    assert choose_cpuset(plan.model_copy(update={"cpus": 3.2}), FACTS, []) == ()


def test_what_holds_in_words() -> None:
    """A row per field that is set, naming the mechanism."""
    rows = {
        row.field: (row.value, row.mechanism)
        for row in enforced(PLAN, facts=FACTS, layout=HYBRID, isolation=Isolation.CONTAINER, cpuset=(0, 1))
    }
    assert rows["cpus"] == (
        "2 x 2 GHz",
        "cgroup v1 cpu: 1.6 cores' time of 4 at 2.5 GHz; cgroup v1 cpuset: cores 0,1",
    )
    assert rows["disk_bps"] == ("1MB/s each way", "cgroup v1 blkio on the disk's own block device")
    assert list(rows) == ["memory", "swap", "cpus", "pids", "disk", "iops", "disk_bps", "bandwidth", "devices"]
    bare = Plan(memory=512 << 20, cpus=4, disk=5 << 30)
    short = enforced(bare, facts=FACTS, layout=V2, isolation=Isolation.CHROOT)
    assert [row.field for row in short] == ["memory", "swap", "cpus", "pids", "disk"]
    assert short[2].mechanism == "the host has no more than its 4 cores"
