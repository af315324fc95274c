"""What a VM starts from: its kernel, its hypervisor's root, its files in place of what the host would mount."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from bulkhead import limits
from bulkhead.engine import attaching, bundles, kernels, merging
from bulkhead.engine.admission import SHARED_NETWORKS
from bulkhead.engine.context import Context
from bulkhead.engine.warming import WarmGuest
from bulkhead.errors import BulkheadError, Conflict, Problem, Refused
from bulkhead.host import facts, processes
from bulkhead.images import Image
from bulkhead.isolation import vmm
from bulkhead.isolation.base import Boot, Bundle, MountedVolume, Room
from bulkhead.model import Instance, Isolation, Plan, Spec
from bulkhead.quantities import format_size
from bulkhead.tenancy.names import qualified

DEVICES = ("c 10:232 rwm", "c 10:200 rwm")
"""What a hypervisor may open beyond what every instance may: kvm and net/tun."""
_GROWN = "disk.grown"
"""In a bundle: the disk's file has been made larger, and perhaps not yet the file system in it."""


def is_machine(spec: Spec) -> bool:
    """Whether an instance is a VM or a unikernel: what a hypervisor runs."""
    return spec.isolation in (Isolation.VM, Isolation.UNIKERNEL)


def claim(context: Context, spec: Spec, image: Image) -> Spec:
    """`spec` under the id of a guest that waits for one like it, where there is one."""
    kernel = kernels.prepare(kernels.find(context.images, spec.kernel or None), context.config)
    networked = spec.network not in SHARED_NETWORKS
    return context.warm.claim(spec, kernel, room(context, spec.plan), layers=len(image.layers), networked=networked)


def boot(context: Context, instance: Instance, *, networked: bool, warm: WarmGuest | None, always: ExitStack) -> Boot:
    """Everything but the network. From here on the instance's disk is the guest's for good.

    `always` lets go of what is needed for the start alone.
    """
    spec, directory = instance.spec, context.bundle_dir(instance)
    kernel = kernels.prepare(kernels.find(context.images, spec.kernel or None), context.config)
    digests = bundles.read_layers(directory)
    slots, saved, resumed = 0, None, bundles.saved_memory(directory)
    if not spec.cold and not (resumed or warm):
        disks = 1 + len(digests) + len(spec.mounts)
        most = room(context, spec.plan)
        slots, saved = context.templates.find(
            kernel, spec.plan, most, disks=disks, inner=spec.inner, networked=networked, cpu_model=spec.cpu_model
        )
    if saved:
        always.callback(os.close, saved.ram)
    return Boot(
        vmm=context.hypervisor.root(),
        kernel=kernel.elf,
        initrd=kernel.initrd,
        kernel_digest=kernel.digest,
        disk=None if spec.only_for else context.disks.give(spec.id, directory / "disk.img"),
        layers=tuple(context.images.erofs_path(digest) for digest in digests),
        accelerator=context.hypervisor.accelerator(),
        guest_limits=limits.guest_program(spec.plan, system=spec.init == "system"),
        slots=slots,
        saved=saved,
        room=room(context, spec.plan),
        grow_disk=(directory / _GROWN).exists(),
        resumed=resumed,
        inner=spec.inner,
        largest=largest_inner(context, spec),
        warm=warm.handle if warm else None,
        attached=attaching.opened(context, spec, always),
        merges=merging.merges(context, spec),
    )


def can_be_warm(context: Context, spec: Spec) -> bool:
    """Whether a guest that was started before it was asked for may become it: its memory was made for anybody."""
    if context.fleet_networks.find(spec.network_key):
        return False  # its address was anybody's too, and a fleet's are given by the fleet
    return is_machine(spec) and not spec.powered and not merging.merges(context, spec)


def largest_inner(context: Context, spec: Spec) -> int:
    """Bytes of the largest disk that an instance within a VM can have, where the daemon cannot allow more later."""
    if spec.only_for:
        return context.state.get(spec.only_for).spec.plan.disk
    return context.state.plan(context.config.default_plan).plan.disk if spec.inner else 0


def prefetch(context: Context, spec: Spec, layers: int, *, networked: bool) -> None:
    """Have the template that a VM of this spec starts from, so that its start need not wait for it."""
    if spec.cold:
        return
    kernel = kernels.prepare(kernels.find(context.images, spec.kernel or None), context.config)
    disks, most = 1 + layers + len(spec.mounts), room(context, spec.plan)
    _, saved = context.templates.find(
        kernel, spec.plan, most, disks=disks, inner=spec.inner, networked=networked, cpu_model=spec.cpu_model
    )
    if saved:
        os.close(saved.ram)


def kernel_report(context: Context, instance: Instance) -> dict[str, str] | None:
    """The kernel that a VM runs, or would be started with: name, digest, release. None where there is none."""
    if not is_machine(instance.spec) or instance.spec.program:
        return None
    handle = bundles.read_handle(context.bundle_dir(instance)) if instance.pid else None
    running = handle.data.get("kernel", "") if handle else ""
    try:
        image = kernels.find(context.images, running or instance.spec.kernel or None)
    except BulkheadError:
        return {"name": "", "digest": running, "release": ""} if running else None
    return {
        "name": next(iter(image.references), ""),
        "digest": image.digest,
        "release": image.annotations.get("org.bulkhead.kernel.release", ""),
    }


def explained(context: Context, spec: Spec, image: Image, bundle: Bundle) -> Bundle:
    """The bundle with what a VM would boot from, for a dry run: nothing is made."""
    kernel = kernels.find(context.images, spec.kernel or None)
    made = Boot(
        vmm=context.config.run_dir / "vmm",
        kernel=kernels.elf_of(kernel),
        initrd=context.config.cache_dir / "initrd",
        disk=bundle.directory / "disk.img",
        layers=tuple(layer.erofs for layer in image.layers),
        accelerator=context.hypervisor.accelerator(),
        guest_limits=limits.guest_program(spec.plan, system=spec.init == "system"),
        room=room(context, spec.plan),
        inner=spec.inner,
    )
    return Bundle(
        directory=bundle.directory, spec=spec, limits=bundle.limits, uid_start=context.config.uid_base, boot=made
    )


def problems(context: Context, spec: Spec, image: Image) -> list[Problem]:
    """What stands in the way of a VM of this image: no kernel, too many layers."""
    found = kernel_problems(context, spec)
    disks = 1 + len(image.layers) + len(spec.mounts) + len(spec.disks)
    if disks > vmm.MAX_DISKS:
        what = f"{spec.image} has {len(image.layers)} layers: with its own and the volumes these are {disks} disks"
        found.append(Problem(f"{what}, a VM takes {vmm.MAX_DISKS}", "import the image's root file system as one layer"))
    return found


def kernel_problems(context: Context, spec: Spec) -> list[Problem]:
    """There is no kernel for a VM, or the plan has too little memory for it."""
    try:
        kernel = kernels.find(context.images, spec.kernel or None)
        least = kernels.least_memory(kernel)
    except BulkheadError as error:
        return list(error.problems)
    if spec.plan.memory >= least:
        return []
    name = next(iter(kernel.references), kernel.digest)
    what = f"memory {format_size(spec.plan.memory)} is too little for {name}, the kernel"
    return [Problem(what, f"at least --memory {format_size(least)}")]


def processor_problems(context: Context, spec: Spec) -> list[Problem]:
    """A VM has a processor by name, and this host cannot give a guest all of it."""
    if not spec.cpu_model or not is_machine(spec):
        return []
    missing = context.hypervisor.processors().get(spec.cpu_model)
    if missing == ():
        return []
    why = f"lacks {', '.join(missing[:8])}" if missing else "does not know it"
    what = f"{spec.name} has the processor {spec.cpu_model}, and this host {why}"
    return [Problem(what, "bulkhead host ls --format json tells the processors that each host can run")]


def volumes(context: Context, spec: Spec) -> tuple[MountedVolume, ...]:
    """The files of a VM's volumes, which nobody else may be using."""
    return tuple(
        MountedVolume(
            source=context.volumes.give(qualified(spec.tenant, mount.source), read_only=mount.read_only),
            target=mount.target,
            read_only=mount.read_only,
            volume=True,
        )
        for mount in spec.mounts
    )


def check_volumes(context: Context, spec: Spec) -> None:
    """Raise Conflict where a volume is in use and it or its other user is a VM: one kernel at a time."""
    for other in context.state.instances():
        if not other.pid or other.spec.id == spec.id or not (is_machine(spec) or is_machine(other.spec)):
            continue
        shared = {m.source for m in spec.mounts if m.kind == "volume"} & {m.source for m in other.spec.mounts}
        if shared:
            raise Conflict(
                f"volume {', '.join(sorted(shared))} is in use by {other.spec.name}, and a VM shares no volume",
                hint=f"bulkhead stop {other.spec.name}",
            )


def hypervisor_plan(context: Context, plan: Plan) -> Plan:
    """What the host holds a VM to."""
    return limits.vmm_plan(plan, context.hypervisor.accelerator())


def room(context: Context, plan: Plan) -> Room:
    """How far a VM of this plan can grow while it runs."""
    memory = plan.memory if facts.counts_promises() else context.facts.memory
    return vmm.room(plan, memory=memory, cores=context.facts.cores)


def check_use(context: Context, instance: Instance, plan: Plan) -> None:
    """Raise Conflict where a VM's hypervisor uses more memory than a plan allows: cgroup v2 would end it."""
    used = limits.read_usage(context.layout, context.config.cgroup, instance.spec.id).memory_working
    most = hypervisor_plan(context, plan).memory
    if used > most:
        what = f"{instance.spec.name} holds {format_size(used)} of this host's memory, its plan would allow"
        raise Conflict(f"{what} {format_size(most)}", hint="stop it first")


def check_disk(context: Context, instance: Instance, size: int) -> None:
    """Raise Refused where the disk cannot become as large, or not while it runs."""
    context.disks.check_extension(context.bundle_dir(instance) / "disk.img", size)
    if instance.pid and not processes.can_write(instance.pid, size):
        what = "the disk of a running VM cannot grow here: the daemon lacks CAP_SYS_RESOURCE"
        raise Refused(what, hint="stop the instance first")


def mark_grown(context: Context, instance: Instance) -> None:
    """The disk's file is about to become larger."""
    (context.bundle_dir(instance) / _GROWN).touch(mode=0o600)


def forget_grown(context: Context, instance: Instance) -> None:
    """The file system in the disk is as large as its file. Fine where it was not larger."""
    (context.bundle_dir(instance) / _GROWN).unlink(missing_ok=True)


def transferred(instance: Instance) -> tuple[int, int]:
    """Bytes that the hypervisor has read from and written to files; zeros when it does not run."""
    return (transferred_by(instance.pid) if instance.pid else None) or (0, 0)


def transferred_by(pid: int) -> tuple[int, int] | None:
    """The same of a process; None when it has gone."""
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except OSError:
        return None
    counters = dict(line.split(": ", 1) for line in text.splitlines())
    return int(counters.get("read_bytes", 0)), int(counters.get("write_bytes", 0))


def disk_usage(context: Context, instance: Instance) -> tuple[int, int]:
    """Bytes that the disk takes on the host, and its size: what is in it is for the guest alone to tell."""
    try:
        status = (context.bundle_dir(instance) / "disk.img").stat()
    except FileNotFoundError:
        return 0, instance.spec.plan.disk
    return status.st_blocks * 512, status.st_size
