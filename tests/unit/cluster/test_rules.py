"""Each rule by itself: where it refuses, in which words, and where it does not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.amounts import Amounts
from bulkhead.cluster.placing import feasible, place
from bulkhead.cluster.policies import POLICIES, Policy
from bulkhead.cluster.rules import Reason, Rule, check
from bulkhead.cluster.snapshot import Able, HostView, Label, Need, Placed, Term, Wanted
from bulkhead.errors import NoRoom
from bulkhead.model import Isolation
from tests.unit.cluster.fleets import (
    FAST,
    GIB,
    OVERHEAD,
    SLOW,
    any_fleet,
    any_wanted,
    capacity,
    fleet,
    host,
    placed,
    seeds,
    wanted,
)


def broken(view: HostView, it: Wanted) -> dict[Rule, Reason]:
    return {reason.rule: reason for reason in check(view, it)}


def only(view: HostView, it: Wanted) -> Reason:
    (reason,) = check(view, it)
    return reason


def test_an_ordinary_host_takes_an_ordinary_instance() -> None:
    assert check(host(1), wanted()) == ()


@pytest.mark.parametrize("state", ["draining", "unreachable", "fenced"])
def test_a_host_that_is_not_ready_takes_nothing(state: str) -> None:
    reason = only(host(1, state=state), wanted())
    assert (reason.rule, reason.what) == (Rule.STATE, f"h1 is {state}")
    assert (reason.hint == "bulkhead host undrain h1") is (state == "draining")


def test_a_processor_by_name_is_to_be_had_whole() -> None:
    able = host(1, cpu_models=frozenset({"Nehalem"}))
    assert check(able, wanted(level=Isolation.VM, cpu_model="Nehalem")) == ()
    reason = only(host(2), wanted(level=Isolation.VM, cpu_model="Nehalem"))
    assert reason.rule is Rule.BASELINE
    assert "h2 cannot run the processor Nehalem" in reason.what and "--cpu-baseline" in reason.hint


def test_one_host_can_be_asked_for_by_name_or_id() -> None:
    views = fleet(host(1), host(2))
    for asked in ("h2", "00002"):
        found = feasible(views, wanted(host=asked))
        assert found["00002"] is None
        assert [reason.what for reason in found["00001"].reasons] == [f"--host {asked} was asked for"]  # type: ignore[union-attr]


def test_a_host_that_refused_is_not_asked_again() -> None:
    assert only(host(1), wanted(avoid=frozenset({"00001"}))).rule is Rule.REFUSED


def test_the_architecture_is_the_images() -> None:
    reason = only(host(1, architecture="arm64"), wanted())
    assert (reason.rule, reason.what) == (Rule.ARCHITECTURE, "the image is for amd64, h1 is arm64")


def test_a_level_that_its_probe_found_not_to_work_is_refused_in_the_probes_words() -> None:
    view = host(1, abilities={Isolation.CONTAINER: Able(False, "no user namespaces", "sysctl ...")})
    reason = only(view, wanted())
    assert (reason.rule, reason.hint) == (Rule.LEVEL, "sysctl ...")
    assert reason.what == "container does not work on h1: no user namespaces"
    assert only(view, wanted(level=Isolation.VM)).what == "vm does not work on h1: nothing is known of it"


@pytest.mark.parametrize(
    ("label", "holds"),
    [
        (Label("rack", ("1",)), True),
        (Label("rack", ("2", "1")), True),
        (Label("rack", ("2",)), False),
        (Label("rack"), True),
        (Label("ssd"), False),
        (Label("ssd", absent=True), True),
        (Label("rack", ("1",), absent=True), False),
    ],
)
def test_labels_that_are_required(label: Label, *, holds: bool) -> None:
    found = check(host(1, labels={"rack": "1"}), wanted(requires=(label,)))
    assert [reason.rule for reason in found] == ([] if holds else [Rule.LABELS])


def test_every_resource_of_which_too_little_is_left_is_told_with_its_figures() -> None:
    view = host(1, placed(memory=60 * GIB, cpu=47_000_000, disk=999 * GIB))
    found = broken(view, wanted(memory=8 * GIB))
    assert found[Rule.MEMORY].what == "memory: 8G asked for, 4G left: 60G of 64G are sold"
    assert found[Rule.CPU].what == "cpu: 2 GHz asked for, 1 GHz left: 47 GHz of 48 GHz are sold"
    assert Rule.DISK in found
    assert check(view, wanted(memory=4 * GIB, cpu=1_000_000, disk=GIB)) == ()


def test_what_a_host_does_not_sell_by_is_no_limit_there() -> None:
    it = wanted(need=Need(Amounts(memory=GIB, iops=10**8)))
    assert check(host(1), it) == ()
    assert only(host(1, has=capacity(iops=1000)), it).rule is Rule.IOPS


def test_the_same_ghz_are_the_same_work_on_a_slower_host() -> None:
    """8 cores of 2 GHz, each of which does nine tenths in a cycle, are 14.4 GHz."""
    view = host(1, speed=SLOW, has=capacity(cpu=8 * SLOW.core))
    assert check(view, wanted(cpu=14_400_000)) == ()
    assert only(view, wanted(cpu=14_500_000)).rule is Rule.CPU
    assert only(view, wanted(need=Need(Amounts(memory=GIB, cpu=2_000_000), core_khz=2_000_000))).what == (
        "ghz 2 is faster than the cores of h1 (1.8 GHz)"
    )
    assert only(view, wanted(need=Need(Amounts(memory=GIB), widest=9))).rule is Rule.CORES


def test_a_plan_without_ghz_takes_cores_as_they_are() -> None:
    need = Need(Amounts(memory=GIB), cores=2, overhead=OVERHEAD)
    assert need.on(FAST) == Amounts(memory=GIB + OVERHEAD["kvm"], cpu=6_000_000)
    assert need.on(SLOW) == Amounts(memory=GIB + OVERHEAD["tcg"], cpu=3_600_000)


# --- who shares a kernel

SHARING = [Isolation.CHROOT, Isolation.CONTAINER]


@pytest.mark.parametrize("first", SHARING)
@pytest.mark.parametrize("second", SHARING)
@pytest.mark.parametrize(("here", "comes"), [(True, False), (False, True), (False, False)])
def test_a_tenant_that_is_not_trusted_shares_no_kernel_with_another(
    first: Isolation, second: Isolation, *, here: bool, comes: bool
) -> None:
    """Whichever of the two was there before."""
    view = host(1, placed(tenant="t1", level=first, trusted=here))
    reason = only(view, wanted(tenant="t2", level=second, trusted=comes))
    assert (reason.rule, reason.hint) == (Rule.KERNEL, "--isolation vm has a kernel of its own")
    assert check(view, wanted(tenant="t1", level=second, trusted=comes)) == (), "a tenant may share with itself"


@pytest.mark.parametrize("own", [Isolation.VM, Isolation.UNIKERNEL])
def test_who_has_a_kernel_of_its_own_may_be_beside_anybody(own: Isolation) -> None:
    hostile = {"tenant": "t1", "trusted": False}
    assert check(host(1, placed(**hostile, level=own)), wanted(tenant="t2")) == ()
    assert check(host(1, placed(tenant="t2")), wanted(**hostile, level=own)) == ()
    inside = placed(**hostile, level=Isolation.CONTAINER, inside="some-vm")
    assert check(host(1, inside), wanted(tenant="t2")) == (), "in a VM its kernel is the VM's"


def test_trusted_tenants_share_a_kernel() -> None:
    assert check(host(1, placed(tenant="t1")), wanted(tenant="t2")) == ()


def test_a_tenant_that_is_to_be_alone_is() -> None:
    assert only(host(1, placed(tenant="t1")), wanted(tenant="t2", dedicated=True)).rule is Rule.TENANTS
    view = host(1, placed(tenant="t1", dedicated=True))
    assert only(view, wanted(tenant="t2", level=Isolation.VM)).what == "h1 is for tenant t1 alone"
    assert check(view, wanted(tenant="t1", level=Isolation.VM)) == ()


# --- affinity


def test_near_and_away_by_label_and_by_name() -> None:
    view = host(1, placed("db", labels={"app": "shop"}))
    assert check(view, wanted(terms=(Term("db"),))) == ()
    assert check(view, wanted(terms=(Term("shop", "app"),))) == ()
    assert only(view, wanted(terms=(Term("cache"),))).what == "cache is not on h1"
    assert only(view, wanted(terms=(Term("shop", "app", away=True),))).what == "app=shop is on h1"
    assert check(view, wanted(terms=(Term("cache", hard=False), Term("db", away=True, hard=False)))) == ()


def test_whoever_is_to_be_away_from_something_keeps_it_away_as_well() -> None:
    view = host(1, placed("db", terms=(Term("batch", "kind", away=True),)))
    assert only(view, wanted("job", labels={"kind": "batch"})).what == "db on h1 is to be away from kind=batch"


def test_other_tenants_instances_are_neither_near_nor_in_the_way() -> None:
    view = host(1, placed("db", tenant="t1", terms=(Term("new", away=True),)))
    assert check(view, wanted(tenant="t2", terms=(Term("db", away=True),))) == ()
    assert only(view, wanted(tenant="t2", terms=(Term("db"),))).rule is Rule.NEAR


def test_the_first_of_those_that_are_to_be_together_goes_anywhere_and_the_next_follows() -> None:
    it = wanted("a", labels={"app": "shop"}, terms=(Term("shop", "app"),))
    empty = fleet(host(1), host(2))
    first = place(empty, it, "spread").require()
    there = empty.having(empty.host(first.id).holding(Placed(it, it.need.on(FAST))))
    second = place(there, replace(it, id="b", name="b"), "spread")
    assert second.require().id == first.id
    assert set(second.counts) == {Rule.NEAR}


def test_nowhere_is_told_with_counts_and_an_example_for_each_rule() -> None:
    views = fleet(host(1, state="draining"), host(2, state="draining"), host(3, placed(memory=64 * GIB)))
    with pytest.raises(NoRoom) as refused:
        place(views, wanted(), "pack").require()
    assert [problem.what for problem in refused.value.problems] == [
        "2 of 3 hosts: the host takes nothing new, such as h1: h1 is draining",
        "1 of 3 hosts: not enough memory left, such as h3: memory: 2G asked for, 0 left: 64G of 64G are sold",
    ]
    with pytest.raises(NoRoom, match="no host"):
        place(fleet(), wanted(), "pack").require()


@settings(max_examples=200, deadline=None)
@given(seeds, st.sampled_from(POLICIES))
def test_what_is_chosen_breaks_nothing_and_the_same_comes_out_again(seed: int, policy: Policy) -> None:
    dice = random.Random(seed)
    snapshot, it = any_fleet(dice), any_wanted(dice)
    decision = place(snapshot, it, policy)
    again = place(snapshot, it, policy)
    assert decision == again
    assert decision.feasible + len(decision.refusals) == len(snapshot.hosts)
    assert sum(decision.counts.values()) == len(decision.refusals)
    if decision.chosen:
        view = snapshot.host(decision.chosen.id)
        assert view.state == "ready"
        takes = it.need.on(view.speed)
        free = view.free
        assert all(takes.of(name) <= max(0, free.of(name)) for name in ("memory", "cpu", "disk", "iops"))
        assert decision.chosen.version == view.version
