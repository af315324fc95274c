"""Whether an instance can be put behind another wall, and what its spec is there. All objections at once."""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead.engine import bundles, inits, inside, machines, selling, snapshotting
from bulkhead.engine.admission import DEFAULT_INNER, SHARED_NETWORKS
from bulkhead.engine.context import Context
from bulkhead.engine.images import ImageCatalog
from bulkhead.engine.plans import Plans
from bulkhead.errors import BulkheadError, Conflict, Problem, Refused
from bulkhead.model import Instance, Isolation, PlanRequest, Spec, State
from bulkhead.storage import foreign

LEVELS = (Isolation.CHROOT, Isolation.CONTAINER, Isolation.VM)
"""Between which an instance can move."""
MOVED_FROM = (State.CREATED, State.EXITED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Walls:
    """Judges moves."""

    context: Context
    plans: Plans
    images: ImageCatalog

    def admit(self, instance: Instance, level: Isolation, plan: PlanRequest, network: str | None) -> Spec:
        """The spec behind the other wall. Raises Refused with every problem, Conflict for the instance's state."""
        context, spec = self.context, instance.spec
        self._check_state(instance)
        problems = _impossible(spec, level)
        if within := [each.spec.name for each in inside.held(context, spec)]:
            what = f"{spec.name} holds {', '.join(within)}, which need a VM to run in"
            problems.append(Problem(what, "remove them first"))
        if problems:
            raise Refused(problems)
        wanted, problems = self.plans.resolve(plan, base=spec.plan)
        after = spec.model_copy(
            update={
                "isolation": level,
                "choice": None,
                "plan": wanted,
                "plan_name": plan.name or (spec.plan_name if wanted == spec.plan else ""),
                "network": network or spec.network,
                "inner": DEFAULT_INNER if level is Isolation.VM and not spec.powered else 0,
            }
        )
        known = {one.name for one in context.state.networks(spec.tenant)}
        if after.network not in SHARED_NETWORKS and after.network not in known:
            hint = f"bulkhead network create {after.network}"
            problems.append(Problem(f"network {after.network!r} does not exist", hint))
        problems += self._network_problems(spec, after) or context.driver_of(after).check(after)
        problems += self.plans.problems(wanted, isolation=level, network=after.network)
        problems += inits.problems(after, level, context.layout)
        problems += self._machine_problems(spec, after)
        problems += self._disk_problems(instance, after)
        problems += selling.problems(context, selling.growth(context, instance, after))
        if problems:
            raise Refused(list(dict.fromkeys(problems)))
        return after

    def _check_state(self, instance: Instance) -> None:
        name = instance.spec.name
        if instance.state is State.PAUSED:
            raise Conflict(f"instance {name} is paused: it cannot be stopped in order", hint=f"bulkhead unpause {name}")
        if instance.state not in MOVED_FROM:
            raise Conflict(f"instance {name} is {instance.state}", hint="try again in a moment")
        snapshotting.require_no_memory(self.context, instance)

    def _network_problems(self, spec: Spec, after: Spec) -> list[Problem]:
        """A chroot alone has the host's network for good, a VM never."""
        level, name = after.isolation, spec.name
        fleet = self.context.fleet_networks
        if after.network != spec.network and (fleet.find(spec.network_key) or fleet.find(after.network_key)):
            what = f"{name} would go from network {spec.network} to {after.network}: what is on a fleet's stays there"
            return [Problem(what, "make it anew")]
        if level is Isolation.VM and after.network == "host":
            return [Problem(f"{name} has the host's network, which a vm cannot have", "add --network default, or none")]
        if level is Isolation.CHROOT and after.network != "host" and not spec.ports:
            what = f"{name} is on the network {after.network}, a chroot has the host's"
            return [Problem(what, "add --network host: it loses its own address")]
        return []

    def _machine_problems(self, spec: Spec, after: Spec) -> list[Problem]:
        problems: list[Problem] = []
        if after.isolation is Isolation.VM:
            try:
                problems += machines.problems(self.context, after, self.images.resolve(spec.image_digest))
            except BulkheadError as error:
                problems += error.problems
        if Isolation.VM in (spec.isolation, after.isolation):
            # Who writes a volume last decides who may mount it, and there is no way back from a guest.
            problems += [
                Problem(
                    f"volume {mount.source} of {spec.name} is written to: the host does not mount what a guest "
                    "has written, and a volume is not copied",
                    f"bulkhead cp its files into {spec.name}, and make it anew without -v; or mount it read-only (:ro)",
                )
                for mount in spec.mounts
                if mount.kind == "volume" and not mount.read_only
            ]
        return problems

    def _disk_problems(self, instance: Instance, after: Spec) -> list[Problem]:
        context, spec = self.context, instance.spec
        disk = context.bundle_dir(instance) / bundles.DISK
        try:
            if after.isolation is not Isolation.VM and foreign.is_marked(disk):
                context.disks.check_room(spec.id, disk, disk.parent)
                return []
            if foreign.is_marked(disk) and after.plan.disk != spec.plan.disk:
                return [Problem("its disk was written by a guest", "change its size with bulkhead update")]
            context.disks.check_extension(disk, after.plan.disk)
        except Refused as error:
            return list(error.problems)
        return []


def _impossible(spec: Spec, level: Isolation) -> list[Problem]:
    """What no other field of the request can change."""
    name = spec.name
    if spec.isolation is level:
        return [Problem(f"{name} is a {level} already", f"bulkhead update {name} changes its plan")]
    if level not in LEVELS or spec.isolation not in LEVELS:
        known = ", ".join(LEVELS)
        what = f"{name} cannot move from {spec.isolation} to {level}: its image is of another kind"
        return [Problem(what, f"it goes between {known}")]
    problems = []
    if spec.inside or spec.only_for:
        what = f"{name} is in a VM: it does not leave it"
        problems.append(Problem(what, "bulkhead cp its files into another instance"))
    if spec.system:
        what = f"{name} is an unmodified operating system: it boots a kernel of its own, and no {level} has one"
        problems.append(Problem(what, "leave it a vm"))
    if spec.auto_remove:
        what = f"{name} is removed as soon as it has ended (--rm)"
        problems.append(Problem(what, "run it without --rm"))
    return problems
