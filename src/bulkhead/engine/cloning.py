"""A request for a clone: what it leaves open is as the snapshot's instance had it.

Not taken over are the name, the host name and the published ports, which the original has, and --rm.
"""

from __future__ import annotations

from bulkhead.errors import Problem
from bulkhead.model import CreateRequest, Isolation, Plan, PlanRequest, Snapshot, Spec

TAKEN_OVER = (
    "isolation",
    "kernel",
    "cold",
    "inner",
    "init",
    "workdir",
    "user",
    "network",
    "mounts",
    "secrets",
    "tty",
    "stdin",
    "restart",
    "health",
    "stop_signal",
    "stop_timeout",
)
OF_A_SYSTEM = ("isolation", "network", "tty", "stdin", "restart", "stop_timeout")
"""What of it there is for an unmodified system, which has a computer as well, and for a unikernel."""
OF_A_START = ("isolation", "init", "workdir", "user", "mounts", "secrets", "tty", "stdin")
OF_ITS_PROGRAM = ("kernel", "command", "entrypoint", "env")
"""What a workload that goes on in the middle cannot be given any more; the latter not even the same again."""
OF_A_MACHINE = ("memory", "cpus", "disk")
"""What of a plan a saved memory depends on."""


def complete(request: CreateRequest, snapshot: Snapshot) -> CreateRequest:
    """The request for an instance of the snapshot's image that has what was asked for, and the rest as it was."""
    given, old = request.model_fields_set, snapshot.spec
    changes: dict[str, object] = {name: getattr(old, name) for name in TAKEN_OVER if name not in given}
    if "kernel" in changes:
        changes["kernel"] = old.kernel or None
    if old.isolation is not Isolation.VM:
        changes.pop("inner", None)
    if "isolation" in given and request.isolation is not old.isolation:
        # Another wall, or one that the rules choose: what belongs to the old one is as usual.
        changes |= {name: getattr(request, name) for name in ("network", "kernel", "cold", "inner")}
    if old.system:
        changes = {name: value for name, value in changes.items() if name in OF_A_SYSTEM}
        changes |= {name: value for name, value in old.system if name not in given}
    elif old.program:
        changes = {name: value for name, value in changes.items() if name in OF_A_SYSTEM}
        changes |= {"command": old.argv} if "command" not in given else {}
    elif not given & {"command", "entrypoint"}:
        changes["entrypoint"] = old.argv
    return request.model_copy(
        update={
            **changes,
            "image": old.image_digest,
            "env": request.env if old.program else (*old.env, *request.env),
            "labels": {**old.labels, **request.labels},
        }
    )


def name_origin(spec: Spec, request: CreateRequest, snapshot: Snapshot) -> Spec:
    """The clone's spec with the names that its image, plan and level were asked for by."""
    old = snapshot.spec
    program = spec.program
    if program and old.program and old.program.disk:
        program = program.model_copy(update={"disk": True})
    return spec.model_copy(
        update={
            "program": program,
            "image": old.image,
            "plan_name": old.plan_name if request.plan == PlanRequest() else spec.plan_name,
            "choice": spec.choice if "isolation" in request.model_fields_set else old.choice,
        }
    )


def resumes(request: CreateRequest, snapshot: Snapshot) -> bool:
    """Whether a clone goes on where the snapshot's memory is, in place of starting anew."""
    return snapshot.memory and not request.cold


def problems(
    request: CreateRequest, snapshot: Snapshot, level: Isolation, plan: Plan, *, disk: int, foreign: bool
) -> list[Problem]:
    """What a clone cannot have, being one. `request` as it came, `disk` the bytes of the snapshot's, `foreign`: a
    guest's kernel has written it."""
    found: list[Problem] = []
    name = snapshot.reference
    if foreign and level not in (Isolation.VM, Isolation.UNIKERNEL):
        what = f"the disk of {name} was written by a virtual machine's own kernel: no {level} on this host mounts it"
        found.append(Problem(what, "leave out --isolation, or copy the files out of a clone (bulkhead cp)"))
    if plan.disk < disk:
        what = f"disk {plan.disk} is less than the {disk} of {name}: a disk cannot shrink"
        found.append(Problem(what, "leave out --disk, or give more"))
    elif foreign and plan.disk != disk:
        what = f"disk {plan.disk} is not the {disk} of {name}, and this host does not grow what a guest has written"
        found.append(Problem(what, "leave out --disk"))
    if resumes(request, snapshot):
        found += _memory_problems(request, snapshot, plan)
    return found


def _memory_problems(request: CreateRequest, snapshot: Snapshot, plan: Plan) -> list[Problem]:
    hint = "add --no-template to boot from the snapshot's disk instead"
    set_ones, old = request.model_fields_set, snapshot.spec
    given = [name for name in OF_A_START if name in set_ones and getattr(request, name) != getattr(old, name)]
    given += [name for name in OF_ITS_PROGRAM if name in set_ones]
    given += [name for name in OF_A_MACHINE if getattr(plan, name) != getattr(old.plan, name)]
    if "network" in set_ones and (request.network == "none") is not (old.network == "none"):
        given.append("network")
    if not given:
        return []
    what = f"a clone of {snapshot.reference} goes on where its memory is: it cannot have another {', '.join(given)}"
    return [Problem(what, hint)]
