"""What a fleet's instances say of themselves: facts for the analysis by their labels, and where they may be.

Labels `advice.*` tell what metering cannot: whose program it is, what a breach would disclose, what an hour without it
costs. Where an instance may be is what placement goes by: hard constraints and affinity; wishes (~) are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from bulkhead.advise.entries import TEXT, WorkloadEntry

PREFIX = "advice."
FACTS = ("trust", "hostile_input", "needs_kernel", "data", "latency", "downtime", "outage_hour", "licence_per_core")
"""Labels `advice.FACT` of an instance, with the values that the columns of an estate have."""
Told = Mapping[str, Any]


def facts(spec: Told, notes: list[str]) -> dict[str, Any]:
    """What its labels tell; what is wrong with them is left out, with a note."""
    told = {key.removeprefix(PREFIX): value for key, value in spec.get("labels", {}).items() if key.startswith(PREFIX)}
    given = {key: value for key, value in told.items() if key in FACTS}
    wrong = {key: "there is no such fact" for key in told if key not in FACTS}
    try:
        found = WorkloadEntry.model_validate({"name": "w", "server": "", **given}, context=TEXT)
    except ValidationError as error:
        wrong |= {str(each["loc"][0]): str(each["msg"]).removeprefix("Value error, ") for each in error.errors()}
        good = {key: value for key, value in given.items() if key not in wrong}
        found = WorkloadEntry.model_validate({"name": "w", "server": "", **good}, context=TEXT)
    notes += [f"label {PREFIX}{key} of {spec['name']} counts for nothing: {why}" for key, why in sorted(wrong.items())]
    return {key: getattr(found, key) for key in given if key not in wrong}


def near_and_apart(spec: Told, others: Sequence[Told]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Instances of its tenant that it has to be with, and those that it must not be with, as TENANT@NAME or NAME."""
    where = spec.get("where") or {}
    mine = [each for each in others if each["tenant"] == spec["tenant"] and each["id"] != spec["id"]]

    def meant(terms: Iterable[str]) -> tuple[str, ...]:
        hard = [term for term in terms if not term.startswith("~")]
        return tuple(sorted(name_of(each) for each in mine if any(_matches(term, each) for term in hard)))

    return meant(where.get("affinity", ())), meant(where.get("anti_affinity", ()))


def _matches(term: str, spec: Told) -> bool:
    key, equals, value = term.partition("=")
    return bool(spec.get("labels", {}).get(key) == value if equals else spec["name"] == key)


def name_of(spec: Told) -> str:
    """As it is told of in a report."""
    tenant, name = str(spec["tenant"]), str(spec["name"])
    return name if tenant == "default" else f"{tenant}@{name}"


def allowed(spec: Told, hosts: Sequence[Told]) -> frozenset[str] | None:
    """Names of the hosts that hold its constraints and take instances; its own always may. None: all of them."""
    constraints: Collection[str] = (spec.get("where") or {}).get("constraints", ())
    found = frozenset(
        str(host["name"])
        for host in hosts
        if host.get("state", "ready") == "ready"
        and host.get("alive", True)
        and all(_holds(each, host.get("labels") or {}) for each in constraints)
    )
    return None if len(found) == len(hosts) else found


def _holds(constraint: str, labels: Mapping[str, str]) -> bool:
    """KEY, !KEY, KEY=VALUE|VALUE, KEY!=VALUE."""
    key, equals, values = constraint.partition("=")
    absent = key.startswith("!") or key.endswith("!")
    key = key.strip("!")
    return (key in labels and (not equals or labels[key] in values.lstrip("=").split("|"))) is not absent
