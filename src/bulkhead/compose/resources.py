"""What a service may use: the limits of a compose file, old and new, and x-bulkhead, as one plan."""

from __future__ import annotations

from bulkhead.compose.reading import Reader
from bulkhead.quantities import parse_rate, parse_size

Fields = dict[str, Reader]


class Plan:
    """Fields of a plan, each with where it was said. The same one may be said in several places, if they agree."""

    def __init__(self) -> None:
        self.values: dict[str, float | str] = {}
        self._said: dict[str, Reader] = {}

    def set(self, field: str, value: float | str | None, said: Reader) -> None:
        """One field; None: there was nothing, or it was wrong."""
        if value is None:
            return
        known = self.values.setdefault(field, value)
        first = self._said.setdefault(field, said)
        if known != value:
            said.wrong(f"{value} is not the {known} of {first.path}, and both are the plan's {field}", "say it once")


def read_plan(service: Fields, own: Fields, deploy: Fields) -> dict[str, float | str]:
    """The plan that a service asks for: `own` is x-bulkhead, `deploy` the service's deploy."""
    plan = Plan()
    _own(own, plan)
    limits = deploy["resources"].fields("resources") if "resources" in deploy else {}
    _limits(limits["limits"].fields("limits") if "limits" in limits else {}, plan)
    _older(service, plan)
    return plan.values


def _own(own: Fields, plan: Plan) -> None:
    for name, reader in own.items():
        match name:
            case "memory" | "swap" | "disk" | "disk_bps":
                plan.set(name, reader.parsed(parse_size), reader)
            case "cpus" | "ghz":
                plan.set(name, reader.number(more=True), reader)
            case "iops" | "pids":
                plan.set(name, reader.whole(low=1), reader)
            case "bandwidth":
                plan.set(name, reader.parsed(parse_rate), reader)
            case "plan":
                plan.set("name", reader.text(), reader)


def _limits(limits: Fields, plan: Plan) -> None:
    for name, reader in limits.items():
        match name:
            case "cpus":
                plan.set("cpus", reader.number(more=True), reader)
            case "memory":
                plan.set("memory", reader.size(), reader)
            case "pids":
                plan.set("pids", reader.whole(low=1), reader)


def _older(service: Fields, plan: Plan) -> None:
    if limit := service.get("mem_limit"):
        plan.set("memory", limit.size(), limit)
    if cpus := service.get("cpus"):
        plan.set("cpus", cpus.number(more=True), cpus)
    if pids := service.get("pids_limit"):
        plan.set("pids", pids.whole(low=1), pids)
    if storage := service.get("storage_opt"):
        for key, value, _ in storage.entries():
            if key == "size":
                plan.set("disk", value.size(), value)
            else:
                value.wrong("is not honoured: the plan's disk has a size alone")
    _quota(service, plan)
    _swap(service, plan)


def _quota(service: Fields, plan: Plan) -> None:
    quota, period = service.get("cpu_quota"), service.get("cpu_period")
    if quota is None:
        if period:
            period.wrong("says nothing without cpu_quota")
        return
    microseconds = quota.whole(low=1)
    per = period.whole(low=1) if period else 100_000
    if microseconds is not None and per is not None:
        plan.set("cpus", microseconds / per, quota)


def _swap(service: Fields, plan: Plan) -> None:
    limit = service.get("memswap_limit")
    if limit is None:
        return
    total, memory = limit.size(), plan.values.get("memory")
    if total is None:
        return
    if not isinstance(memory, int):
        limit.wrong("it is memory and swap together, and there is no mem_limit", "use x-bulkhead: {swap: ...}")
    elif total < memory:
        limit.wrong(f"{total} is less than the memory, {memory}")
    else:
        plan.set("swap", total - memory, limit)
