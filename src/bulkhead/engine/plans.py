"""Named plans, and what a request's plan comes to."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from bulkhead import limits
from bulkhead.engine.context import Context
from bulkhead.errors import Conflict, NotFound, Problem, Refused
from bulkhead.host.facts import HostFacts
from bulkhead.model import Isolation, NamedPlan, Plan, PlanRequest

DEFAULT_MEMORY = 512 << 20
DEFAULT_CPUS = 2.0
DEFAULT_BASELINE = 0.1
"""Cores that an instance is sold whose owner has asked for none in particular: it may use more, where there are more
than others have paid for, and so many fit on a host that memory or disk end first. See docs/design/0020."""
DEFAULT_DISK = 5 << 30
REQUIRED = ("memory", "cpus", "disk")
"""What a plan cannot be without."""


def default_plan(facts: HostFacts) -> Plan:
    """The plan "default" where the operator has made none: 512M, 2 cpus (fewer on a smaller host), 5G."""
    cpus = min(DEFAULT_CPUS, facts.cores)
    return Plan(memory=DEFAULT_MEMORY, cpus=cpus, baseline=DEFAULT_BASELINE, disk=DEFAULT_DISK)


def put_over(base: Plan, asked: PlanRequest) -> tuple[Plan, list[Problem]]:
    """`base` with the single fields that were asked for put over it; those that are wrong are left out, and told."""
    fields, given = base.model_dump(), asked.model_dump(exclude={"name"}, exclude_none=True)
    try:
        return _bounded(Plan.model_validate({**fields, **given}), asked)
    except ValidationError as error:
        wrong = error.errors()
        left_out = {item["loc"][0] for item in wrong}
    good = {key: value for key, value in given.items() if key not in left_out}
    hint = "see docs/reference/plans.md"
    problems = [Problem(f"plan: {item['loc'][0]} {item['input']}: {item['msg'].lower()}", hint) for item in wrong]
    plan, more = _bounded(Plan.model_validate({**fields, **good}), asked)
    return plan, problems + more


def _bounded(plan: Plan, asked: PlanRequest) -> tuple[Plan, list[Problem]]:
    """The plan with no more cores sold than it may use: refused where that was asked for."""
    if plan.baseline is None or plan.baseline <= plan.cpus:
        return plan, []
    problems = []
    if asked.baseline is not None:
        what = f"plan: baseline {plan.baseline:g} is more than the {plan.cpus:g} cpus that it may use"
        problems.append(Problem(what, f"at most --baseline {plan.cpus:g}, or more --cpus"))
    return plan.model_copy(update={"baseline": plan.cpus}), problems


class Plans:
    """The plans that have a name."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def prepare(self) -> None:
        """Make the default plan where there is none."""
        context = self._context
        if context.config.default_plan not in {plan.name for plan in context.state.plans()}:
            context.state.save_plan(NamedPlan(name=context.config.default_plan, plan=default_plan(context.facts)))

    def default(self) -> Plan:
        """The plan of those who ask for nothing."""
        return self.get(self._context.config.default_plan).plan

    def resolve(self, asked: PlanRequest, *, base: Plan | None = None) -> tuple[Plan, list[Problem]]:
        """The named plan, else `base` (the default one), with the fields that were given; and what is wrong with it.

        What is wrong is left out, so that the rest can be judged in the same round.
        """
        problems: list[Problem] = []
        if asked.name:
            try:
                base = self.get(asked.name).plan
            except NotFound as error:
                problems += error.problems
        plan, wrong = put_over(base or self.default(), asked)
        return plan, problems + wrong

    def problems(self, plan: Plan, *, isolation: Isolation, network: str) -> list[Problem]:
        """What this host cannot enforce of a plan."""
        context = self._context
        return limits.check(plan, facts=context.facts, layout=context.layout, isolation=isolation, network=network)

    def list(self) -> Sequence[NamedPlan]:
        """Every named plan."""
        return self._context.state.plans()

    def get(self, name: str) -> NamedPlan:
        """One plan. Raises NotFound."""
        return self._context.state.plan(name)

    def create(self, name: str, asked: PlanRequest) -> NamedPlan:
        """Name a plan that this host can enforce. Raises Refused with every problem, or Conflict when it is there."""
        lacking = [field for field in REQUIRED if getattr(asked, field) is None]
        problems = [Problem(f"plan: {field} is missing", "see docs/reference/plans.md") for field in lacking]
        if asked.name is not None:
            problems.append(Problem(f"plan {name} is made of fields, not of plan {asked.name}", "leave plan.name out"))
        # Of what has a name to be sold by, all is sold.
        base = default_plan(self._context.facts).model_copy(update={"baseline": None})
        plan, wrong = put_over(base, asked)
        problems += [*wrong, *self.problems(plan, isolation=Isolation.CONTAINER, network="default")]
        if problems:
            raise Refused(problems)
        named = NamedPlan(name=name, plan=plan)
        self._context.state.create_plan(named)
        return named

    def remove(self, name: str) -> None:
        """Forget a plan. Instances that were made with it keep what they have."""
        if name == self._context.config.default_plan:
            raise Conflict(f"plan {name} is the default", hint="name another one as default_plan in the configuration")
        self.get(name)
        self._context.state.delete_plan(name)
