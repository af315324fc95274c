"""The rules of `--isolation auto`, read as a table and tried with every workload."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from bulkhead.advise import RULES, Workload, choose, may_share
from bulkhead.model import Isolation

HEIGHT = {Isolation.CHROOT: 0, Isolation.CONTAINER: 1, Isolation.VM: 2}
TRUST = ("public", "partner", "own")
EVERY = [
    Workload(trust, hostile, kernel, system, shared, worth)  # type: ignore[arg-type]
    for trust, hostile, kernel, system, shared, worth in product(TRUST, *[(False, True)] * 5)
]


@pytest.mark.parametrize(
    ("workload", "level", "rule"),
    [
        (Workload("own", system=True), Isolation.VM, 1),
        (Workload("own", needs_kernel=True), Isolation.VM, 2),
        (Workload("public"), Isolation.VM, 3),
        (Workload("public", shares_network=True), Isolation.VM, 3),
        (Workload("partner", hostile_input=True), Isolation.VM, 4),
        (Workload("own", shares_network=True, worth_a_kernel=True), Isolation.VM, 5),
        (Workload("partner"), Isolation.CONTAINER, 6),
        (Workload("own", hostile_input=True, shares_network=True), Isolation.CONTAINER, 7),
        (Workload("own", shares_network=True), Isolation.CHROOT, 8),
        (Workload("own"), Isolation.CONTAINER, 9),
    ],
)
def test_each_rule_decides_what_it_is_for(workload: Workload, level: Isolation, rule: int) -> None:
    chosen = choose(workload)
    assert (chosen.level, chosen.number) == (level, rule)


def test_rules_are_numbered_as_they_stand_and_none_is_idle() -> None:
    assert [rule.number for rule in RULES] == list(range(1, len(RULES) + 1))
    assert {choose(workload).number for workload in EVERY} == {rule.number for rule in RULES}


@pytest.mark.parametrize("workload", EVERY)
def test_more_risk_never_lowers_the_wall(workload: Workload) -> None:
    here = HEIGHT[choose(workload).level]
    riskier = [
        replace(workload, hostile_input=True),
        replace(workload, needs_kernel=True),
        replace(workload, worth_a_kernel=True),
        replace(workload, trust=TRUST[max(0, TRUST.index(workload.trust) - 1)]),
    ]
    assert all(HEIGHT[choose(other).level] >= here for other in riskier)


@pytest.mark.parametrize("workload", EVERY)
def test_a_kernel_is_shared_with_other_tenants_unless_the_risk_alone_calls_for_an_own(workload: Workload) -> None:
    """What brings a kernel for another reason may still be of somebody who is trusted."""
    hostile = workload.trust == "public" or (workload.trust == "partner" and workload.hostile_input)
    assert may_share(workload) is not hostile
    if not may_share(workload):
        assert choose(workload).level is Isolation.VM
