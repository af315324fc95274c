"""Unikernels: what a request for one may say, and what one starts from."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

from bulkhead.engine.context import Context
from bulkhead.errors import HostError, ImageError, Problem, Refused
from bulkhead.images import Image
from bulkhead.images.unikernels import TYPES, check_layers, cmdline_problems, layer_of
from bulkhead.isolation.base import ProgramBoot
from bulkhead.model import CreateRequest, Instance, Isolation, KernelType, Plan, Program, Spec

STOP_SECONDS = 10.0
WAITS_SINCE = 2
"""The version of the small init from which on it can be told at a start who it is."""


def program_of(request: CreateRequest, image: Image) -> Program | None:
    """What an image's hypervisor is to boot; None where it is no unikernel."""
    said = image.unikernel
    if said is None:
        return None
    return Program(
        kernel=said.kernel,
        initrd=said.initrd,
        cmdline=said.cmdline,
        type=cast(KernelType, said.type if said.type in TYPES else "other"),
        own=bool(said.own),
        waits=said.own.isdigit() and int(said.own) >= WAITS_SINCE,
        # Every instance has a disk; a unikernel sees it where one was asked for.
        disk=request.plan.disk is not None,
    )


def problems(request: CreateRequest, image: Image, *, level: Isolation) -> list[Problem]:
    """Everything in a request for a unikernel that has no meaning there, and why its kernel cannot be booted."""
    found = []
    if level is not Isolation.UNIKERNEL:
        what = f"image {request.image} is a unikernel, not a root file system: a {level} cannot run it"
        found.append(Problem(what, "use --isolation unikernel"))
    what_for = {
        "--entrypoint": request.entrypoint is not None,
        "--env": request.env,
        "--workdir": request.workdir,
        "--user": request.user is not None,
        "--volume": request.mounts,
        "--secret": request.secrets,
        "--health-cmd": request.health,
        "--stop-signal": request.stop_signal,
        "--init": request.init != "none",
    }
    found += [
        Problem(f"{flag} has no meaning for {request.image}, a unikernel", _HINTS.get(flag, "leave it out"))
        for flag, given in what_for.items()
        if given
    ]
    if image.unikernel:
        try:
            check_layers(image.unikernel, image.layers)
        except ImageError as error:
            found += error.problems
    return found


_HINTS = {
    "--secret": "it has no files of its own that one could be put beside: the application asks for it by the network",
    "--env": "bulkhead build --unikernel puts an environment into the image",
    "--volume": "--disk gives it the instance's own disk",
    "--stop-signal": "stop presses its power button",
}


def misplaced(image: Image, level: Isolation) -> list[Problem]:
    """A unikernel is asked for, and the image is none."""
    if level is not Isolation.UNIKERNEL:
        return []
    name = image.references[0] if image.references else image.digest
    hint = f"bulkhead build --unikernel {name} makes one of it" if image.kind == "rootfs" else ""
    return [Problem(f"image {name} is a {image.kind}, not a unikernel", hint)]


def boot(context: Context, instance: Instance, *, networked: bool, always: ExitStack) -> ProgramBoot:
    """Everything but the network. The files are those of the image's layers, which are mounted for it, read-only.

    `always` lets go of what is needed for the start alone.
    """
    spec = instance.spec
    if spec.program is None:
        raise ValueError(f"{spec.name} is no unikernel")
    image = context.images.resolve(spec.image_digest)
    initrd = spec.program.initrd
    disk = context.bundle_dir(instance) / "disk.img"
    made = ProgramBoot(
        vmm=context.hypervisor.root(),
        accelerator=context.hypervisor.accelerator(),
        kernel=_file(context, image, spec.program.kernel),
        initrd=_file(context, image, initrd) if initrd else None,
        disk=context.disks.give(spec.id, disk) if spec.program.disk else None,
    )
    if spec.cold or not spec.program.waits:
        return made
    saved = context.templates.find_program(spec, made, networked=networked)
    if saved:
        always.callback(os.close, saved.ram)
    return replace(made, saved=saved)


def explained(context: Context, spec: Spec, directory: Path) -> ProgramBoot:
    """What it would start from, for a dry run: nothing is made."""
    program = spec.program or Program(kernel="/")
    layer = context.config.run_dir / "layers" / "layer"
    return ProgramBoot(
        vmm=context.config.run_dir / "vmm",
        accelerator=context.hypervisor.accelerator(),
        kernel=layer / program.kernel.lstrip("/"),
        initrd=layer / program.initrd.lstrip("/") if program.initrd else None,
        disk=directory / "disk.img" if program.disk else None,
    )


def check_live(instance: Instance, plan: Plan) -> None:
    """Raise Refused with all of a plan that cannot change while a unikernel runs."""
    name, old = instance.spec.name, instance.spec.plan
    fields = [field for field in ("memory", "disk", "cpus") if getattr(old, field) != getattr(plan, field)]
    if fields and instance.pid:
        hint = f"bulkhead stop {name}"
        raise Refused(
            Problem(f"the {field} of {name}, a unikernel that runs, cannot be changed", hint) for field in fields
        )


def _file(context: Context, image: Image, path: str) -> Path:
    """A file of an image on the host. No component of it is a link: `Below` follows none, and found it."""
    layer = layer_of(image.layers, path)
    found = context.layers.mount_layer(layer.diff_id, layer.erofs) / path.lstrip("/")
    if not found.is_file() or found.is_symlink():
        raise HostError(f"{path} of image {image.digest} cannot be read")
    return found


__all__ = ["boot", "check_live", "cmdline_problems", "explained", "misplaced", "problems", "program_of"]
