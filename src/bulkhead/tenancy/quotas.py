"""Quotas: how much a tenant may have in all, whatever it is divided into."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from bulkhead.errors import Problem
from bulkhead.model import Instance, Model, Plan, Volume
from bulkhead.quantities import format_size


class Quota(Model):
    """The most that a tenant may have; None: no limit but the host's."""

    instances: int | None = Field(default=None, ge=0, description="instances, running or not")
    memory: int | None = Field(default=None, ge=0, description="bytes of memory of all plans")
    cpus: float | None = Field(default=None, ge=0, description="cores of all plans")
    disk: int | None = Field(default=None, ge=0, description="bytes of disk of all plans, volumes and snapshots")
    volumes: int | None = Field(default=None, ge=0, description="volumes")
    networks: int | None = Field(default=None, ge=0, description="networks")
    addresses: int | None = Field(default=None, ge=0, description="instances that have an address of their own")
    ports: int | None = Field(default=None, ge=0, description="published ports")
    images: int | None = Field(default=None, ge=0, description="bytes of its own images")


class Used(Model):
    """What a tenant has, in the units of Quota."""

    instances: int = 0
    memory: int = 0
    cpus: float = 0.0
    disk: int = 0
    volumes: int = 0
    networks: int = 0
    addresses: int = 0
    ports: int = 0
    images: int = 0

    def plus(self, other: Used) -> Used:
        """Both together."""
        return Used(**{name: getattr(self, name) + getattr(other, name) for name in Used.model_fields})


SIZES = frozenset({"memory", "disk", "images"})


def of_plan(plan: Plan, *, outside: bool, addresses: int, ports: int) -> Used:
    """What one instance takes. Within a VM (`outside` False) memory, cpus and disk are the VM's, taken once."""
    return Used(
        instances=1,
        memory=plan.memory + plan.swap if outside else 0,
        cpus=plan.cpus if outside else 0.0,
        disk=plan.disk,
        addresses=addresses,
        ports=ports,
    )


def of_instance(instance: Instance, plan: Plan | None = None) -> Used:
    """What an instance takes, with another plan where one is given."""
    spec = instance.spec
    networked = spec.network not in ("none", "host")
    return of_plan(plan or spec.plan, outside=not spec.inside, addresses=int(networked), ports=len(spec.ports))


def total(instances: Iterable[Instance], volumes: Iterable[Volume], *, more: Used | None = None) -> Used:
    """What a tenant takes in all."""
    used = more or Used()
    for instance in instances:
        used = used.plus(of_instance(instance))
    for volume in volumes:
        used = used.plus(Used(volumes=1, disk=volume.size))
    return used


def problems(tenant: str, quota: Quota, used: Used, more: Used) -> list[Problem]:
    """Everything of which `more` on top of what is `used` would be too much. What is not asked for is not judged."""
    found = []
    for name in Quota.model_fields:
        most, wanted, has = getattr(quota, name), getattr(more, name), getattr(used, name)
        if most is None or wanted <= 0 or has + wanted <= most + 1e-9:
            continue
        show = format_size if name in SIZES else _number
        what = f"tenant {tenant} may have {show(most)} of {name}, has {show(has)}, and this takes {show(wanted)} more"
        found.append(Problem(what, "remove or shrink something, or ask the operator for more"))
    return found


def _number(value: float) -> str:
    return f"{value:g}"
