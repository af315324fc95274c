"""What two hypervisors must have in common for a saved guest to move from one to the other."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from bulkhead.errors import HostError, Problem
from bulkhead.isolation import vmm
from bulkhead.isolation.base import Bundle
from bulkhead.quantities import format_size


class Shape(BaseModel):
    """Of a machine: what its guest knows of it, and what runs it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    memory: int
    vcpus: int
    most_memory: int
    most_vcpus: int
    """How far it can grow while it runs: its guest's kernel has made ready for that."""
    disks: int
    """Disks that the guest knows of, placeholders among them."""
    inner: int = 0
    """Instances that it can hold."""
    network: bool
    accelerator: str
    cpu_model: str = ""
    """One of QEMU's processors; "": all that the accelerator has."""
    hypervisor: str
    """Name of the root that QEMU ran in: it is made of QEMU's version."""

    def encode(self) -> str:
        """As JSON, for a handle."""
        return self.model_dump_json()


def shape_of(bundle: Bundle) -> Shape:
    """The shape of the machine that a bundle makes."""
    boot, plan = vmm.require_boot(bundle), bundle.spec.plan
    most = boot.room or vmm.started(bundle)
    return Shape(
        memory=plan.memory,
        vcpus=vmm.vcpus(plan),
        most_memory=most.memory,
        most_vcpus=most.vcpus,
        disks=vmm.disks(bundle),
        inner=boot.inner,
        network=bool(boot.tap),
        accelerator=boot.accelerator,
        cpu_model=bundle.spec.cpu_model,
        hypervisor=boot.vmm.name,
    )


def decode(text: str | bytes) -> Shape:
    """What `Shape.encode` made. Raises HostError where it is something else."""
    try:
        return Shape.model_validate_json(text)
    except ValidationError as error:
        raise HostError(f"what is known of a saved machine makes no sense: {error.errors()[0]['msg']}") from error


def problems(saved: Shape, bundle: Bundle) -> list[Problem]:
    """Why the machine of a bundle cannot go on from a saved one; empty when it can."""
    wanted, found = shape_of(bundle), []
    if wanted.memory != saved.memory:
        what = f"the saved machine has {format_size(saved.memory)} of memory, this one {format_size(wanted.memory)}"
        found.append(Problem(what, f"--memory {format_size(saved.memory)}"))
    if wanted.vcpus != saved.vcpus:
        what = f"the saved machine has {saved.vcpus} processors, this one {wanted.vcpus}"
        found.append(Problem(what, f"--cpus {saved.vcpus}"))
    if wanted.disks > saved.disks:
        found.append(Problem(f"the saved machine knows of {saved.disks} disks, this one has {wanted.disks}"))
    if wanted.inner != saved.inner:
        what = f"the saved machine can hold {saved.inner} instances, this one {wanted.inner}"
        found.append(Problem(what, f"--inner {saved.inner}"))
    if wanted.network != saved.network:
        has, hint = ("a", "leave out --network none") if saved.network else ("no", "--network none")
        found.append(Problem(f"the saved machine has {has} network interface", hint))
    if wanted.cpu_model != saved.cpu_model:
        has, wants = (model or "its host's own processor" for model in (saved.cpu_model, wanted.cpu_model))
        found.append(Problem(f"the saved machine has {has}, this one {wants}", "take its disk alone"))
    if (wanted.accelerator, wanted.hypervisor) != (saved.accelerator, saved.hypervisor):
        what = f"the machine was saved by another QEMU ({saved.accelerator}, {saved.hypervisor[:19]})"
        found.append(Problem(what, "take its disk alone"))
    return found
