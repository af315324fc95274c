"""A cgroup v2 subtree for a system: below its limits on v2, beside those of v1."""

from __future__ import annotations

import pytest

from bulkhead.agent.operations import Code
from bulkhead.host.cgroups import Layout
from bulkhead.limits import LimitProgram, delegation, guest_program, program
from bulkhead.model import Plan
from tests.unit.limits.hosts import FACTS, HYBRID, V2

ID = "0123456789abcdef0123456789abcdef"
PLAN = Plan(memory=512 << 20, cpus=2, disk=5 << 30)
OWNER = 1_000_000_000
TREES = pytest.mark.parametrize("layout", [HYBRID, V2])


def make(layout: Layout, delegate: int | None = OWNER) -> LimitProgram:
    return program(
        PLAN,
        cgroup="bulkhead",
        instance_id=ID,
        layout=layout,
        facts=FACTS,
        cpuset=(),
        device=(7, 3),
        delegate=delegate,
    )


@TREES
def test_what_is_handed_over_has_no_limit_in_it(layout: Layout) -> None:
    made = make(layout)
    own = f"{layout.unified}/bulkhead/{ID}/own"
    given = {o.arguments[0] for o in made.prepare if o.code is Code.CHOWN}
    assert given == {own, *(f"{own}/{name}" for name in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control"))}
    assert {o.arguments[1:] for o in made.prepare if o.code is Code.CHOWN} == {(OWNER, OWNER)}
    assert not [o for o in made.prepare if o.code is Code.WRITE and str(o.arguments[0]).startswith(f"{own}/")]
    written = {str(o.arguments[0]): o.arguments[1] for o in made.prepare if o.code is Code.WRITE}
    assert written[f"{layout.unified}/bulkhead/{ID}/cgroup.max.descendants"] == str(delegation.MAX_GROUPS)
    assert written[f"{layout.unified}/bulkhead/{ID}/cgroup.max.depth"] == str(delegation.MAX_DEPTH)
    assert made.delegated == own


@TREES
def test_the_limits_are_those_of_any_instance(layout: Layout) -> None:
    made, plain = make(layout), make(layout, None)
    whole = [o for o in plain.prepare if "memory.oom.group" not in str(o.arguments[0])]
    assert [o for o in whole if o not in made.prepare] == []
    assert made.kill == plain.kill


@TREES
def test_nothing_runs_in_the_group_with_the_limits(layout: Layout) -> None:
    made, plain = make(layout), make(layout, None)
    group = f"{layout.unified}/bulkhead/{ID}"
    assert f"{group}/cgroup.procs" not in (*made.join, *made.beside)
    assert set(made.join) - {f"{group}/own/cgroup.procs"} == set(plain.join) - {f"{group}/cgroup.procs"}
    assert set(made.beside) - set(made.join) == {f"{group}/own/.exec/cgroup.procs"}


@TREES
def test_the_end_leaves_what_the_system_has_made_to_others(layout: Layout) -> None:
    removed = [str(o.arguments[0]) for o in make(layout).finish if o.code is Code.RMDIR]
    assert not [path for path in removed if path.startswith(f"{layout.unified}/bulkhead")]
    assert len(removed) == (7 if layout is HYBRID else 0)


def test_a_guests_root_needs_no_gift() -> None:
    made = guest_program(PLAN, system=True)
    assert made.delegated == "/sys/fs/cgroup/bulkhead/instance/own"
    assert not [o for o in made.prepare if o.code is Code.CHOWN]
    assert guest_program(PLAN).delegated == ""
