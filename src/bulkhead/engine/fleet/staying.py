"""Why an instance cannot leave its host, as that host knows it; and which of its files go with it."""

from __future__ import annotations

from pathlib import Path

from bulkhead.engine import bundles, inside
from bulkhead.engine.context import Context
from bulkhead.errors import Problem
from bulkhead.fleet import Host, HostState
from bulkhead.model import Instance, Isolation, Spec, State
from bulkhead.moves import Judgement

MOVED_FROM = (State.CREATED, State.EXITED, State.RUNNING)
_FILES = (bundles.DISK, "seed.img", "uefi.vars", "own.json", "disk.grown")


def files(bundle: Path) -> list[str]:
    """Names of those that the target gets."""
    logs = sorted(path.name for path in bundle.glob("log*") if path.name == "log" or path.suffix[1:].isdecimal())
    return [name for name in (*_FILES, *logs) if (bundle / name).is_file()]


def problems(context: Context, instance: Instance, host: Host, *, here: str) -> list[Problem]:
    """Everything that stands in the way on this side. `here`: this host's id."""
    spec = instance.spec
    name = spec.name
    found = pinned(context, spec)
    if host.id == here:
        found.append(Problem(f"{name} is on host {host.name} already", "see: bulkhead host ls"))
    elif host.state is not HostState.READY:
        what = f"host {host.name} is {host.state}: it takes no instances"
        found.append(Problem(what, f"bulkhead host undrain {host.name}"))
    bundle = context.bundle_dir(instance)
    if instance.state is State.PAUSED:
        found.append(Problem(f"{name} is paused: it cannot be stopped in order", f"bulkhead unpause {name}"))
    elif instance.state not in MOVED_FROM:
        found.append(Problem(f"{name} is {instance.state}", "try again in a moment"))
    if bundles.saved_memory(bundle):
        what = f"{name} is to go on with the memory of a snapshot, which stays here"
        found.append(Problem(what, f"bulkhead start {name}"))
    if bundles.read_move(bundle) or bundles.read_leaving(bundle):
        found.append(Problem(f"{name} is being moved already", "try again in a moment"))
    return found


def pinned(context: Context, spec: Spec) -> list[Problem]:
    """What stays behind and is needed, or cannot be told apart from the host."""
    name, found = spec.name, []
    for mount in spec.mounts:
        what = f"volume {mount.source}" if mount.kind == "volume" else f"the host's {mount.source}"
        hint = f"bulkhead cp its files into {name}, and make it anew without -v"
        found.append(Problem(f"{name} has {what}, which stays on its host", hint))
    found += [Problem(f"{name} has the host's disk {disk.source}", "close its room first") for disk in spec.disks]
    found += [
        Problem(f"{name} has the secret {use.source}, which stays on its host", "make it anew on the other host")
        for use in spec.secrets
    ]
    if snapshots := [snapshot.reference for snapshot in context.state.snapshots(spec.id)]:
        listed = ", ".join(snapshots)
        found.append(Problem(f"{name} has snapshots, which stay on its host: {listed}", "bulkhead snapshot rm them"))
    if spec.inside or spec.only_for:
        found.append(Problem(f"{name} is in a VM: it does not leave it", "move the VM, or make it anew"))
    if held := [each.spec.name for each in inside.held(context, spec)]:
        found.append(Problem(f"{name} holds {', '.join(held)}, which need a VM to run in", "remove them first"))
    if spec.auto_remove or spec.room or spec.build:
        what = f"{name} is removed as soon as it has ended"
        found.append(Problem(what, "run it without --rm"))
    if spec.isolation is Isolation.UNIKERNEL:
        found.append(Problem(f"{name} is a unikernel, which does not move between hosts yet", "make it anew there"))
    return found


def objections(judgement: Judgement) -> list[Problem]:
    """The other host's."""
    return [Problem(each.what, each.hint) for each in judgement.objections]
