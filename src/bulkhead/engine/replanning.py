"""Whether an instance can have another plan: on this host, in its VM, as it runs."""

from __future__ import annotations

from bulkhead.engine import inside, machines, selling
from bulkhead.engine.context import Context
from bulkhead.engine.plans import Plans
from bulkhead.errors import Problem, Refused
from bulkhead.model import Instance, Plan, PlanRequest


def admit(context: Context, plans: Plans, instance: Instance, asked: PlanRequest) -> Plan:
    """The plan that is asked for. Raises Refused with every problem; nothing is changed."""
    spec = instance.spec
    changed, problems = plans.resolve(asked, base=spec.plan)
    problems += _plan_problems(context, plans, instance, changed)
    wanted = spec.model_copy(update={"plan": changed})
    if machines.is_machine(spec):
        problems += context.driver(instance).check(wanted)
        problems += [] if spec.powered else machines.kernel_problems(context, wanted)
    problems += selling.problems(context, selling.growth(context, instance, wanted))
    if problems:
        raise Refused(problems)
    return changed


def _plan_problems(context: Context, plans: Plans, instance: Instance, plan: Plan) -> list[Problem]:
    """What this host, or the VM that it is in, cannot keep of another plan."""
    spec = instance.spec
    if spec.inside:
        machine = inside.machine_of(context, spec)
        return inside.plan_problems(context, machine, plan, without=spec.id) if machine else []
    found = plans.problems(plan, isolation=spec.isolation, network=spec.network)
    return found + inside.machine_problems(context, instance, plan)
