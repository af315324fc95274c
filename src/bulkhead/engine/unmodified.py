"""Unmodified operating systems: what a request for one may say, and what one starts from."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from bulkhead.boot import seed
from bulkhead.boot.seed import Seed
from bulkhead.engine import attaching
from bulkhead.engine.context import Context
from bulkhead.errors import ImageError, Problem, Refused, Unavailable
from bulkhead.images import Image
from bulkhead.isolation import vmm
from bulkhead.isolation.base import SystemBoot
from bulkhead.model import CreateRequest, Firmware, Instance, Isolation, Plan, Spec, System
from bulkhead.quantities import format_size

SEED, VARIABLES = "seed.img", "uefi.vars"
"""In the bundle."""
STOP_SECONDS = 90.0
"""Between the power button and the plug: an operating system ends its services first."""
_WORK = "seed.new"


def system_of(request: CreateRequest, image: Image) -> System | None:
    """The computer for an image's system; None where the image is no disk."""
    if image.disk is None:
        return None
    usual = System()
    firmware: Firmware = "uefi" if image.disk.firmware == "uefi" else "bios"
    return System(
        machine=request.machine or usual.machine,
        disk_bus=request.disk_bus or usual.disk_bus,
        nic=request.nic or usual.nic,
        firmware=request.firmware or firmware,
    )


def misplaced(request: CreateRequest) -> list[Problem]:
    """What is asked for that only a whole system has."""
    given = {
        "--user-data": request.user_data,
        "--machine": request.machine,
        "--disk-bus": request.disk_bus,
        "--nic": request.nic,
        "--firmware": request.firmware,
    }
    flags = ", ".join(flag for flag, value in given.items() if value is not None)
    if not flags:
        return []
    hint = "leave it out, or run the image of a disk (bulkhead image bootstrap --disk, bulkhead image import)"
    return [Problem(f"{flags}: image {request.image} is no whole system", hint)]


def problems(request: CreateRequest, image: Image, plan: Plan, *, level: Isolation) -> list[Problem]:
    """Everything in a request for a whole system that has no meaning there."""
    found = []
    if level is not Isolation.VM:
        what = f"image {request.image} is a disk, not a root file system"
        found.append(Problem(f"{what}: a {level} cannot run it", "use --isolation vm"))
    what_for = {
        "a command": request.command,
        "--entrypoint": request.entrypoint is not None,
        "--env": request.env,
        "--workdir": request.workdir,
        "--user": request.user is not None,
        "--volume": request.mounts,
        "--secret": request.secrets,
        "--health-cmd": request.health,
        "--stop-signal": request.stop_signal,
        "--kernel": request.kernel,
        "--no-template": request.cold,
        "--init": request.init != "none",
    }
    found += [
        Problem(f"{flag} has no meaning for {request.image}, a whole system", _HINTS.get(flag, "leave it out"))
        for flag, given in what_for.items()
        if given
    ]
    if image.disk and plan.disk < image.disk.size:
        what = f"plan: disk {format_size(plan.disk)} is smaller than the disk of {request.image}"
        size = format_size(image.disk.size)
        found.append(Problem(f"{what} ({size})", f"at least --disk {size}"))
    return found


_HINTS = {
    "--secret": "use --user-data",
    "a command": "it starts what it is set up to start; bulkhead exec runs one later, --user-data at its first boot",
    "--env": "use --user-data",
    "--volume": "give it a larger --disk",
    "--stop-signal": "stop presses its power button",
    "--kernel": "it brings its own",
    "--no-template": "it always boots",
}


def stop_seconds(request: CreateRequest) -> float:
    """How long its end may take before the plug is pulled."""
    return STOP_SECONDS if request.stop_timeout is None else request.stop_timeout


def make_disk(context: Context, spec: Spec, image: Image) -> None:
    """A new system's disk: a copy of its image's, grown to the plan."""
    if image.disk is None:
        raise ImageError(f"image {spec.image} is no disk")
    context.disks.copy(spec.id, image.disk.path, context.bundle_dir(spec.id) / "disk.img", spec.plan.disk)


def make_seed(context: Context, spec: Spec, user_data: str | None) -> None:
    """What else a new system's bundle has: its seed, the variables of its UEFI. The caller undoes it."""
    directory = context.bundle_dir(spec.id)
    with ExitStack() as always:
        work = directory / _WORK
        work.mkdir(mode=0o700)
        always.callback(shutil.rmtree, work)
        who = Seed(instance_id=spec.id, hostname=spec.hostname, user_data=(user_data or "").encode())
        seed.write(who, directory / SEED, work=work)
    if spec.system and spec.system.firmware == "uefi":
        variables = context.hypervisor.vmm().variables
        if variables is None:
            raise Unavailable("this host has no UEFI firmware for guests", hint="apt install ovmf")
        shutil.copyfile(variables, directory / VARIABLES)
        (directory / VARIABLES).chmod(0o600)


def boot(context: Context, instance: Instance) -> SystemBoot:
    """Everything but the network."""
    attaching.check_free(context, instance)
    spec, directory = instance.spec, context.bundle_dir(instance)
    uefi = spec.system is not None and spec.system.firmware == "uefi"
    return SystemBoot(
        vmm=context.hypervisor.root(),
        accelerator=context.hypervisor.accelerator(),
        disk=context.disks.give(spec.id, directory / "disk.img"),
        seed=directory / SEED,
        uefi=context.hypervisor.vmm().uefi if uefi else "",
        variables=directory / VARIABLES if uefi else None,
    )


def check_live(instance: Instance, plan: Plan) -> None:
    """Raise Refused with all of a plan that cannot change while a system runs: nothing in it takes part in that."""
    name, old = instance.spec.name, instance.spec.plan
    fields = [field for field in ("memory", "disk") if getattr(old, field) != getattr(plan, field)]
    if vmm.vcpus(old) != vmm.vcpus(plan):
        fields.append("number of processors")
    hint = f"bulkhead stop {name}"
    if fields and instance.pid:
        raise Refused(
            Problem(f"the {field} of {name}, a system that runs, cannot be changed", hint) for field in fields
        )


def explained(context: Context, spec: Spec, directory: Path) -> SystemBoot:
    """What it would start from, for a dry run: nothing is made."""
    uefi = spec.system is not None and spec.system.firmware == "uefi"
    return SystemBoot(
        vmm=context.config.run_dir / "vmm",
        accelerator=context.hypervisor.accelerator(),
        disk=directory / "disk.img",
        seed=directory / SEED,
        uefi=context.hypervisor.vmm().uefi if uefi else "",
        variables=directory / VARIABLES if uefi else None,
    )
