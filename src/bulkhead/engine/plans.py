"""Named plans, and what a request's plan comes to."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from bulkhead import limits
from bulkhead.engine.context import Context
from bulkhead.errors import Conflict, Problem, Refused
from bulkhead.host.facts import HostFacts
from bulkhead.model import Isolation, NamedPlan, Plan, PlanRequest

DEFAULT_MEMORY = 512 << 20
DEFAULT_CPUS = 2.0
DEFAULT_DISK = 5 << 30


def default_plan(facts: HostFacts) -> Plan:
    """The plan "default" where the operator has made none: 512M, 2 cpus (fewer on a smaller host), 5G."""
    return Plan(memory=DEFAULT_MEMORY, cpus=min(DEFAULT_CPUS, facts.cores), disk=DEFAULT_DISK)


def put_over(base: Plan, asked: PlanRequest) -> Plan:
    """`base` with the single fields that were asked for put over it. Raises Refused with every problem."""
    fields = base.model_dump()
    fields.update({key: value for key, value in asked.model_dump(exclude={"name"}).items() if value is not None})
    try:
        return Plan.model_validate(fields)
    except ValidationError as error:
        raise Refused(
            Problem(f"plan: {item['loc'][0]} {item['input']}: {item['msg'].lower()}", "see docs/reference/plans.md")
            for item in error.errors()
        ) from error


class Plans:
    """The plans that have a name."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def prepare(self) -> None:
        """Make the default plan where there is none."""
        context = self._context
        if context.config.default_plan not in {plan.name for plan in context.state.plans()}:
            context.state.save_plan(NamedPlan(name=context.config.default_plan, plan=default_plan(context.facts)))

    def resolve(self, asked: PlanRequest) -> Plan:
        """The named plan, or the default one, with the fields that were given."""
        return put_over(self.get(asked.name or self._context.config.default_plan).plan, asked)

    def change(self, plan: Plan, changes: PlanRequest) -> Plan:
        """Another named plan, or this one, with the fields that were given."""
        return put_over(self.get(changes.name).plan if changes.name else plan, changes)

    def list(self) -> Sequence[NamedPlan]:
        """Every named plan."""
        return self._context.state.plans()

    def get(self, name: str) -> NamedPlan:
        """One plan. Raises NotFound."""
        return self._context.state.plan(name)

    def create(self, plan: NamedPlan) -> NamedPlan:
        """Name a plan that this host can enforce. Raises Refused, or Conflict when the name is taken."""
        context = self._context
        problems = limits.check(
            plan.plan, facts=context.facts, layout=context.layout, isolation=Isolation.CONTAINER, network="default"
        )
        if problems:
            raise Refused(problems)
        context.state.create_plan(plan)
        return plan

    def remove(self, name: str) -> None:
        """Forget a plan. Instances that were made with it keep what they have."""
        if name == self._context.config.default_plan:
            raise Conflict(f"plan {name} is the default", hint="name another one as default_plan in the configuration")
        self.get(name)
        self._context.state.delete_plan(name)
