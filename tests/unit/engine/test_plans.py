"""What a request's plan comes to: how much of the cores is sold."""

from __future__ import annotations

from bulkhead.engine.plans import default_plan, put_over
from bulkhead.host.facts import HostFacts
from bulkhead.model import Plan, PlanRequest

FACTS = HostFacts(cores=4, online=(0, 1, 2, 3), ghz=2.0, ghz_source="test", memory=8 << 30, swap=0, kernel="6.1")
SOLD = Plan(memory=512 << 20, cpus=2, disk=1 << 30)


def test_who_asks_for_nothing_may_use_two_cores_and_is_sold_a_tenth_of_one() -> None:
    plan = default_plan(FACTS)
    assert (plan.cpus, plan.sold_cpus) == (2, 0.1)
    assert default_plan(FACTS).sold_cpus * 40 < FACTS.cores * 4, "forty are no question of cores"


def test_more_cores_are_no_larger_baseline_and_fewer_never_less_than_it() -> None:
    more, problems = put_over(default_plan(FACTS), PlanRequest(cpus=4))
    assert (more.cpus, more.sold_cpus, problems) == (4, 0.1, [])
    fewer, problems = put_over(default_plan(FACTS), PlanRequest(cpus=0.05))
    assert (fewer.baseline, fewer.sold_cpus, problems) == (0.05, 0.05, [])


def test_a_plan_without_a_baseline_is_sold_whole() -> None:
    assert SOLD.sold_cpus == 2
    assert put_over(SOLD, PlanRequest(cpus=1))[0].sold_cpus == 1


def test_a_baseline_beyond_the_cores_is_refused_with_what_else_is_wrong() -> None:
    _, problems = put_over(SOLD, PlanRequest(baseline=3, memory=1))
    assert [problem.what.split()[1] for problem in problems] == ["memory", "baseline"]
    assert problems[1].hint == "at most --baseline 2, or more --cpus"
