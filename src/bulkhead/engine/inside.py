"""Instances within VMs: which VM, whether it has room, and what a start in it is made of."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead import limits
from bulkhead.agent.operations import Operation
from bulkhead.engine import bundles, plans
from bulkhead.engine.context import Context
from bulkhead.errors import BulkheadError, Conflict, NotFound, Problem, Refused
from bulkhead.host import processes
from bulkhead.images import Image
from bulkhead.isolation import shapes, vmm
from bulkhead.isolation.base import Bundle, Change, Inside, Measures, Resizes
from bulkhead.model import DEFAULT_TENANT, CreateRequest, Instance, Isolation, Plan, PlanRequest, Spec, State
from bulkhead.quantities import format_size

NEW = "new"
"""In the place of a VM's name: one that is made for the one instance."""
LEVELS = (Isolation.CHROOT, Isolation.CONTAINER)
LEAST_CPUS, LEAST_MEMORY = 0.1, 16 << 20
"""What an instance gets at least of what a VM has left, where nobody says how much it is to have."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a VM has for instances that it does not hold yet."""

    memory: int
    cpus: float
    pids: int
    places: int


def held(context: Context, machine: Spec) -> list[Instance]:
    """The instances within a VM, running or not; nothing is looked for in what can hold none."""
    if machine.inner == 0:
        return []
    return [instance for instance in context.state.instances() if instance.spec.inside == machine.id]


def machine_of(context: Context, spec: Spec) -> Instance | None:
    """The VM of an instance within one; None where it has gone."""
    try:
        return context.state.get(spec.inside)
    except NotFound:
        return None


def own_machine(context: Context, spec: Spec) -> Instance | None:
    """The VM that was made for this instance alone, if there is one."""
    machine = machine_of(context, spec) if spec.inside else None
    return machine if machine and machine.spec.only_for == spec.id else None


def left(context: Context, machine: Instance, *, without: str = "") -> Left:
    """What is left of a VM's plan; the instance `without` counts as if it were not there."""
    plan = machine.spec.plan
    there = [each.spec.plan for each in held(context, machine.spec) if each.spec.id != without]
    return Left(
        memory=limits.inner_memory(plan.memory) - sum(each.memory for each in there),
        cpus=plan.cpus - sum(each.cpus for each in there),
        pids=plan.pids - sum(each.pids for each in there),
        places=machine.spec.inner - len(there),
    )


def find(context: Context, request: CreateRequest, level: Isolation) -> tuple[Instance | None, list[Problem]]:
    """The VM that a request names, and why it cannot be in it."""
    problems = []
    if level not in LEVELS:
        what = f"a {level} cannot run in a VM"
        problems.append(Problem(what, "--isolation container or chroot, or leave out --inside"))
    if request.snapshot:
        problems.append(Problem("a clone of a snapshot cannot run in a VM", "leave out --inside"))
    if request.inside in (None, NEW):
        return None, problems
    try:
        machine = context.state.find(request.inside, tenant=request.tenant or DEFAULT_TENANT)
    except BulkheadError as error:
        return None, [*problems, *error.problems]
    problems += _unfit(machine)
    if request.network not in (None, "none", machine.spec.network) and level is not Isolation.CHROOT:
        what = f"{machine.spec.name} is on the network {machine.spec.network}, and so is what runs in it"
        problems.append(Problem(f"{what}, not on {request.network}", "leave out --network, or use none"))
    return machine, problems


def _unfit(machine: Instance) -> list[Problem]:
    """Why nothing can run in it, whatever it is."""
    spec = machine.spec
    if spec.isolation is not Isolation.VM:
        return [Problem(f"{spec.name} is a {spec.isolation}, not a VM", "bulkhead run --isolation vm makes one")]
    if spec.powered:
        return [Problem(f"{spec.name} is an unmodified system: nobody of Bulkhead's is in it", "use another VM")]
    if spec.only_for:
        return [Problem(f"{spec.name} was made for one instance alone", "use another VM, or --inside new")]
    if spec.inner == 0:
        return [Problem(f"{spec.name} was made to hold no instances", "run a VM with --inner 2")]
    return []


def usual(context: Context, machine: Instance, default: Plan) -> Plan:
    """What an instance has of fields that nobody gave: the default plan's, at most half of what the VM has left."""
    rest = left(context, machine)
    return default.model_copy(
        update={
            "memory": min(default.memory, max(LEAST_MEMORY, rest.memory // 2 >> 20 << 20)),
            "cpus": min(default.cpus, max(LEAST_CPUS, int(rest.cpus * 50) / 100)),
            "pids": min(default.pids, max(1, rest.pids // 2)),
            "ghz": machine.spec.plan.ghz,
            "swap": 0,
            "baseline": None,
            "bandwidth": None,
        }
    )


def plan_of(context: Context, request: PlanRequest, machine: Instance, default: Plan) -> tuple[Plan, list[Problem]]:
    """The plan of an instance within `machine`, and what is wrong with what was asked for."""
    if request.name is None:
        return plans.put_over(usual(context, machine, default), request)
    try:
        named = context.state.plan(request.name).plan
    except BulkheadError as error:
        return default, list(error.problems)
    return plans.put_over(named, request)


def plan_problems(context: Context, machine: Instance, plan: Plan, *, without: str = "") -> list[Problem]:
    """What the VM cannot keep of a plan: the sum of all plans within it must fit into its own."""
    name, rest = machine.spec.name, left(context, machine, without=without)
    problems = []
    if rest.places < 1:
        what = f"{name} holds as many instances as it can: {machine.spec.inner}"
        problems.append(Problem(what, "remove one (bulkhead ps --tree), or run a VM with a greater --inner"))
    if plan.memory > rest.memory:
        most = max(0, rest.memory)
        what = f"plan: memory {format_size(plan.memory)} is more than {name} has left ({format_size(most)})"
        hint = f"at most --memory {most >> 20}M, or bulkhead update {name} --memory"
        problems.append(Problem(what, hint))
    if plan.cpus > rest.cpus + 1e-9:
        what = f"plan: cpus {plan.cpus:g} is more than {name} has left ({max(0.0, rest.cpus):.3g})"
        problems.append(Problem(what, "give less --cpus, to this one or to the others in it"))
    if plan.pids > rest.pids:
        what = f"plan: pids {plan.pids} is more than {name} has left ({max(0, rest.pids)})"
        problems.append(Problem(what, "give less --pids, to this one or to the others in it"))
    if machine.pid and not processes.can_write(machine.pid, plan.disk):
        what = f"plan: disk {format_size(plan.disk)} is more than the hypervisor of {name} may write"
        problems.append(Problem(what, "give less --disk: the default plan's is what any VM may hold"))
    fastest = machine.spec.plan.ghz or context.facts.ghz
    if plan.ghz is not None and (fastest is None or plan.ghz > fastest):
        what = f"plan: ghz {plan.ghz:g} is faster than the cores of {name}" + (f" ({fastest:g} GHz)" if fastest else "")
        problems.append(Problem(what, "leave --ghz out"))
    return problems


def machine_problems(context: Context, machine: Instance, plan: Plan) -> list[Problem]:
    """Why a VM that holds instances cannot have another plan: theirs would not fit."""
    if not held(context, machine.spec):
        return []
    rest = left(context, machine.model_copy(update={"spec": machine.spec.model_copy(update={"plan": plan})}))
    short = [name for name in ("memory", "cpus", "pids") if getattr(rest, name) < -1e-9]
    if not short:
        return []
    what = f"{', '.join(short)}: the instances within {machine.spec.name} have been promised more"
    return [Problem(what, "give it more, or let them have less")]


def admit(context: Context, spec: Spec) -> None:
    """In the transaction that records an instance: raise Refused where its VM has no room for it, or has gone."""
    if not spec.inside:
        return
    machine = context.state.get(spec.inside)
    if machine.state is State.DELETING:
        raise Conflict(f"{machine.spec.name} is being removed", hint="use another VM")
    if problems := plan_problems(context, machine, spec.plan):
        raise Refused(problems)


def layer_problems(machine: Spec, image: Image) -> list[Problem]:
    """A VM has so many spare disks for layers."""
    most, count = vmm.spare_layers(machine.inner), len(image.layers)
    if count <= most:
        return []
    what = f"the image has {count} layers, {machine.name} can be given {most}"
    fits = -(-count // vmm.INNER_LAYERS)
    hint = f"run a VM with --inner {fits}" if fits <= vmm.MAX_INNER else "import its root file system as one layer"
    return [Problem(what, hint)]


def made_for(spec: Spec, request: CreateRequest, image: Image) -> Spec:
    """A VM for one instance alone, which takes what the instance does and what its guest needs for itself."""
    places = -(-len(image.layers) // vmm.INNER_LAYERS)
    identifier = secrets.token_hex(16)
    return Spec(
        id=identifier,
        name=f"{spec.name[:60]}-vm",
        tenant=spec.tenant,
        image=spec.image,
        image_digest=spec.image_digest,
        architecture=spec.architecture,
        isolation=Isolation.VM,
        kernel=request.kernel or "",
        cold=request.cold,
        inner=min(vmm.MAX_INNER, max(1, places)),
        only_for=spec.id,
        plan=limits.machine_for(spec.plan),
        argv=(),
        hostname=identifier[:12],
        network=request.network or "default",
        stop_signal="SIGKILL",
        stop_timeout=0.0,
        created=time.time(),
    )


def require_running(context: Context, spec: Spec) -> Instance:
    """The VM that an instance is to be started in. Raises Conflict where it does not run."""
    machine = machine_of(context, spec)
    if machine is None:
        raise Conflict(f"the VM of {spec.name} has gone", hint=f"bulkhead rm {spec.name}")
    if machine.state is not State.RUNNING:
        name, state = machine.spec.name, machine.state
        verb = "unpause" if state is State.PAUSED else "start"
        raise Conflict(f"{spec.name} runs in {name}, which is {state}", hint=f"bulkhead {verb} {name}")
    return machine


def require_free(context: Context, spec: Spec, *, force: bool) -> None:
    """Before a VM is removed: raise Conflict where it was made for an instance, or without `force` holds any."""
    for inner in held(context, spec):
        name, owner = spec.name, inner.spec.name
        if spec.only_for:
            raise Conflict(f"{name} is there for {owner} alone", hint=f"say {owner} in its place")
        if not force:
            raise Conflict(f"{name} holds {owner}", hint=f"remove that first, or bulkhead rm -f {name}")


def require_awake(context: Context, spec: Spec) -> None:
    """Raise Conflict where an instance's VM is paused: nobody in it can answer, and nothing be taken from it."""
    machine = machine_of(context, spec) if spec.inside else None
    if machine and machine.state is State.PAUSED:
        name = machine.spec.name
        raise Conflict(f"{spec.name} runs in {name}, which is paused", hint=f"bulkhead unpause {name}")


def place(context: Context, instance: Instance) -> tuple[Inside, limits.LimitProgram]:
    """What a start in its VM needs, which runs. From here on the instance's disk is a guest's for good."""
    spec, directory = instance.spec, context.bundle_dir(instance)
    machine = require_running(context, spec)
    handle = bundles.require_handle(context.bundle_dir(machine))
    inside = Inside(
        machine=machine.spec.id,
        directory=context.bundle_dir(machine),
        pid=machine.pid,
        disks=shapes.decode(handle.data["shape"]).disks,
        inner=machine.spec.inner,
        disk=context.disks.give(spec.id, directory / bundles.DISK),
        layers=tuple((digest, context.images.erofs_path(digest)) for digest in bundles.read_layers(directory)),
    )
    return inside, program(context, machine.spec.plan, spec)


def program(context: Context, machine: Plan, spec: Spec) -> limits.LimitProgram:
    """The limits of an instance in the guest of a VM."""
    return limits.inner_program(spec.plan, spec.id, machine=speed(context, machine))


def speed(context: Context, machine: Plan) -> Plan:
    """A VM's plan with the speed of its cores, which are the host's where it has not less."""
    return machine.model_copy(update={"ghz": machine.ghz or context.facts.ghz})


def resize(context: Context, instance: Instance, old: Plan, new: Plan) -> None:
    """Enforce another plan on a running one. Raises Conflict where it uses more memory than it would have."""
    spec, directory = instance.spec, context.bundle_dir(instance)
    machine, driver = require_running(context, spec), context.driver(instance)
    assert isinstance(driver, Resizes)
    limits.check_use(old, new, usage(context, instance).usage)
    kept = speed(context, machine.spec.plan)

    def guest(before: Plan, after: Plan) -> list[Operation]:
        return limits.inner_update(before, after, spec.id, machine=kept)

    driver.resize(directory, bundles.require_handle(directory), Change(old, new, guest, lambda *_: ()))


def explained(context: Context, spec: Spec, machine: Plan, inner: int, layers: Sequence[tuple[str, object]]) -> Bundle:
    """For a dry run: nothing is made."""
    directory = context.config.instances_dir / spec.id
    inside = Inside(
        machine=spec.inside,
        directory=directory,
        pid=0,
        disks=2,
        inner=inner,
        disk=directory / bundles.DISK,
        layers=tuple((digest, directory) for digest, _ in layers),
    )
    return Bundle(
        directory=directory,
        spec=spec,
        limits=program(context, machine, spec),
        uid_start=context.config.uid_base,
        inside=inside,
    )


def usage(context: Context, instance: Instance) -> limits.InnerUse:
    """What it uses, as its guest tells; zeros where that does not answer."""
    driver, directory = context.driver(instance), context.bundle_dir(instance)
    handle = bundles.read_handle(directory)
    if not instance.pid or handle is None or not isinstance(driver, Measures):
        return limits.InnerUse()
    try:
        reports = driver.measure(directory, limits.inner_use(instance.spec.id, int(handle.data["guest_pid"])))
    except BulkheadError:
        return limits.InnerUse()
    return limits.parse_inner_use(reports)
