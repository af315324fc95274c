"""What a plan comes to on each kind of host. `UPDATE_GOLDEN=1 pytest ...` writes the golden files anew."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.agent.operations import MAX_LIST, Code, Operation, describe, encode
from bulkhead.host.cgroups import Layout
from bulkhead.limits import LimitProgram, program, update
from bulkhead.model import Plan
from tests.unit.limits.hosts import FACTS, HYBRID, LAYOUTS, V1, V2

GOLDEN = Path(__file__).parents[2] / "golden" / "limits"
ID = "0123456789abcdef0123456789abcdef"
SMALL = Plan(memory=512 << 20, cpus=2, disk=5 << 30)
FULL = Plan(
    memory=1 << 30,
    swap=256 << 20,
    cpus=1.5,
    ghz=2.0,
    disk=5 << 30,
    iops=1000,
    disk_bps=50 << 20,
    bandwidth=100_000_000,
    pids=256,
)
plans = st.builds(
    Plan,
    memory=st.integers(6 << 20, 1 << 40),
    swap=st.integers(0, 1 << 40),
    cpus=st.floats(0.001, 4, allow_nan=False),
    ghz=st.none() | st.floats(0.5, 2.5),
    disk=st.just(5 << 30),
    iops=st.none() | st.integers(10, 10**9),
    disk_bps=st.none() | st.integers(1 << 16, 1 << 40),
    pids=st.integers(1, 4_194_304),
)
layouts = st.sampled_from(list(LAYOUTS.values()))


def make(plan: Plan, layout: Layout, cpuset: tuple[int, ...] = (1, 2)) -> LimitProgram:
    """The program of an instance whose disk is 7:3."""
    return program(plan, cgroup="bulkhead", instance_id=ID, layout=layout, facts=FACTS, cpuset=cpuset, device=(7, 3))


def change(old: Plan, new: Plan, layout: Layout) -> list[Operation]:
    """An update of the same instance."""
    return update(old, new, cgroup="bulkhead", instance_id=ID, layout=layout, facts=FACTS, cpuset=(0, 3), device=(7, 3))


def compare(name: str, text: str) -> None:
    """With the golden file of that name."""
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("plan_name", ["small", "full"])
def test_program(kind: str, plan_name: str) -> None:
    """Every step in words, in order."""
    made = make({"small": SMALL, "full": FULL}[plan_name], LAYOUTS[kind])
    parts = {
        "prepare": describe(made.prepare),
        "join": "\n".join(made.join),
        "kill": made.kill,
        "finish": describe(made.finish),
        "reports": "\n".join(made.reports),
    }
    compare(f"{kind}-{plan_name}.txt", "".join(f"{title}\n{text}\n\n" for title, text in parts.items()))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_update(kind: str) -> None:
    """From a full plan to a small one and back."""
    layout = LAYOUTS[kind]
    there, back = describe(change(FULL, SMALL, layout)), describe(change(SMALL, FULL, layout))
    compare(f"{kind}-update.txt", f"full to small\n{there}\n\nsmall to full\n{back}\n")


@given(plans, plans)
def test_v1_memory_never_exceeds_memory_and_swap(old: Plan, new: Plan) -> None:
    """The kernel answers EINVAL to a step that would make it so."""
    limit, both = old.memory, old.memory + old.swap
    for operation in change(old, new, V1):
        path, value = str(operation.arguments[0]), operation.arguments[1]
        if path.endswith("memory.limit_in_bytes"):
            limit = int(value)
        elif path.endswith("memory.memsw.limit_in_bytes"):
            both = int(value)
        assert limit <= both
    assert (limit, both) == (new.memory, new.memory + new.swap)


@given(plans, layouts)
def test_programs_are_well_formed(plan: Plan, layout: Layout) -> None:
    """They fit the protocol, leave no group and no device limit behind, and write to nobody else's directory."""
    made = make(plan, layout)
    assert len(encode([*made.prepare, *made.finish])) < MAX_LIST
    groups = {
        str(op.arguments[0]) for op in made.prepare if op.code is Code.MKDIR and str(op.arguments[0]).endswith(ID)
    }
    assert groups == {str(op.arguments[0]) for op in made.finish if op.code is Code.RMDIR}
    assert {str(Path(path).parent) for path in made.join} - groups <= {"/sys/fs/cgroup/blkio"}
    limited = [op for op in made.prepare if "throttle" in str(op.arguments[0])]
    freed = [op for op in made.finish if "throttle" in str(op.arguments[0])]
    assert [op.arguments[0] for op in limited] == [op.arguments[0] for op in freed]
    assert all(op.arguments[1] == "7:3 0" for op in freed)
    for operation in made.prepare:
        if operation.code is Code.WRITE and "subtree_control" not in str(operation.arguments[0]):
            path = str(operation.arguments[0])
            assert "/bulkhead" in path or "blkio.throttle" in path or "/bdi/7:3/" in path


@given(plans, plans, layouts)
def test_an_update_ends_where_a_start_would(old: Plan, new: Plan, layout: Layout) -> None:
    """The files that both write end with the same contents."""
    started = {op.arguments[0]: op.arguments[1] for op in make(new, layout, (0, 3)).prepare if op.code is Code.WRITE}
    updated = {op.arguments[0]: op.arguments[1] for op in change(old, new, layout)}
    for path, value in updated.items():
        if "throttle" in str(path) and path not in started:
            assert value == "7:3 0"
        elif "/bdi/" not in str(path):
            assert started.get(path, value) == value
    never = ("memory.oom.group", "memory.swappiness", "devices.", "cpuset.mems", "subtree_control")
    for path in started:
        if ID in str(path) and not any(word in str(path) for word in never):
            assert path in updated


def test_quota_is_of_ghz() -> None:
    """1.5 cpus at 2 GHz of cores with 2.5 GHz are 1.2 cores' time."""
    texts = describe(make(FULL, V1).prepare), describe(make(FULL, V2).prepare)
    assert "cpu.cfs_quota_us 120000" in texts[0]
    assert "cpu.max '120000 100000'" in texts[1]


def test_whole_cores_need_no_quota() -> None:
    """The set of cores is the limit then."""
    assert "cpu.cfs_quota_us -1" in describe(make(SMALL, HYBRID).prepare)
    assert "cpu.max 'max 100000'" in describe(make(SMALL, V2).prepare)
    no_cpuset = replace(HYBRID, v1={name: path for name, path in HYBRID.v1.items() if name != "cpuset"})
    assert "cpu.cfs_quota_us 200000" in describe(make(SMALL, no_cpuset).prepare)


def test_without_swap_accounting_v1_never_swaps() -> None:
    """swappiness 0 in a v1 group: reclaim of the group leaves anonymous memory alone."""
    text = describe(make(SMALL, replace(V1, abilities=V1.abilities - {"memory.swap"})).prepare)
    assert "memory.swappiness 0" in text
    assert "memsw" not in text


def test_disk_limits_want_a_device() -> None:
    """A program error, not the user's."""
    with pytest.raises(ValueError, match="block device"):
        program(FULL, cgroup="b", instance_id=ID, layout=V1, facts=FACTS, cpuset=(), device=None)


def test_devices_of_a_level_come_on_top_of_the_usual_ones() -> None:
    made = program(
        SMALL, cgroup="b", instance_id=ID, layout=V1, facts=FACTS, cpuset=(), device=None, devices=("c 1:1 r",)
    )
    usual = program(SMALL, cgroup="b", instance_id=ID, layout=V1, facts=FACTS, cpuset=(), device=None)
    more = [operation for operation in made.prepare if operation not in usual.prepare]
    assert [operation.arguments[1] for operation in more] == ["c 1:1 r"]


@pytest.mark.parametrize(
    ("layout", "file", "whole", "tenth"), [(V1, "cpu.shares", "2048", "102"), (V2, "cpu.weight", "200", "10")]
)
def test_under_contention_time_is_divided_by_what_is_sold(layout: Layout, file: str, whole: str, tenth: str) -> None:
    burst = SMALL.model_copy(update={"baseline": 0.1})
    before, after = describe(make(SMALL, layout).prepare), describe(make(burst, layout).prepare)
    changed = set(after.splitlines()) - set(before.splitlines())
    assert [line.split()[1:] for line in changed] == [[f"{_of(layout, file)}", tenth]], "all else is as it was"
    assert f"{_of(layout, file)} {whole}" in before


def _of(layout: Layout, file: str) -> str:
    return str(layout.path("cpu", f"bulkhead/{ID}") / file)
