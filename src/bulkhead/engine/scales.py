"""What things take of this host: the scale that what is sold is weighed with."""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead import limits
from bulkhead.amounts import Amounts
from bulkhead.engine.hypervisor import Accelerator, Hypervisor
from bulkhead.errors import BulkheadError
from bulkhead.host.facts import HostFacts
from bulkhead.model import Isolation, Plan, Spec


@dataclass(frozen=True, slots=True)
class Scales:
    """By this host's speed, and by what its machines run with, which is found out for the first of them."""

    facts: HostFacts
    hypervisor: Hypervisor

    def weigh(self, spec: Spec) -> Amounts:
        """What an instance takes, whether it runs or not."""
        return limits.weigh(spec, self.facts, accelerator=self._accelerator(spec.isolation))

    def weigh_plan(self, plan: Plan, level: Isolation) -> Amounts:
        """What an instance of a plan would take behind a wall."""
        return limits.plan_amounts(plan, self.facts, isolation=level, accelerator=self._accelerator(level))

    def _accelerator(self, level: Isolation) -> str:
        return self.accelerator() if level in limits.MACHINES else ""

    def accelerator(self) -> Accelerator:
        """Of machines; where none works here, the one with which they would take more."""
        try:
            return self.hypervisor.accelerator()
        except BulkheadError:
            return "tcg"
