"""Templates of what hypervisors run: found for a start, made in the background, dropped when nothing can use them."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from bulkhead.boot.templates import RAM, STATE, Makers, TemplateKey, Templates
from bulkhead.config import Config
from bulkhead.engine import bundles
from bulkhead.engine.hypervisor import Hypervisor
from bulkhead.engine.kernels import ReadyKernel
from bulkhead.errors import BulkheadError
from bulkhead.host import facts
from bulkhead.isolation import vmm
from bulkhead.isolation.base import Boot, Bundle, Limits, ProgramBoot, Room, Saved
from bulkhead.model import Isolation, Plan, Spec
from bulkhead.network import taps

log = logging.getLogger(__name__)
UIDS = 0xFFFE_0000
"""First uid of the range that a template's hypervisor runs with. Instances get theirs from the other end."""
_DISK = 1 << 30


class Boots(Protocol):
    """A driver that can boot a guest without an instance to where it can be gone on from."""

    def make_template(self, bundle: Bundle, state: Path) -> None:
        """Leave its memory in the bundle's `ram`, its devices in the new file `state`; nothing of it runs then."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a guest that becomes a template is booted."""

    driver: Boots
    bundle: Callable[[Bundle, Path], Bundle]
    """Given a bundle without anything to boot, and the file that is to be the guest's memory: the whole."""


class MachineTemplates:
    """One per daemon. `limits` gives what holds a hypervisor of a plan, by instance id."""

    def __init__(
        self,
        config: Config,
        hypervisor: Hypervisor,
        *,
        machines: Boots,
        programs: Boots,
        limits: Callable[[Plan, str], Limits],
    ) -> None:
        self._config = config
        self._hypervisor = hypervisor
        self._machines = machines
        self._programs = programs
        self._limits = limits
        self._stored = Templates(config.cache_dir / "templates", max_bytes=config.template_space)
        self._makers = Makers(self._make, failed=self._failed)
        self._recipes: dict[str, Recipe] = {}

    def find(
        self, kernel: ReadyKernel, plan: Plan, room: Room, *, disks: int, inner: int, networked: bool, cpu_model: str
    ) -> tuple[int, Saved | None]:
        """Slots for disks and what to start from: None where there is no template yet, and one is being made.

        The caller closes `ram`.
        """
        slots = next(count for count in vmm.SLOTS if count >= disks)
        if self._config.template_space == 0:
            return slots, None
        key = self._key(
            kernel.digest,
            plan,
            room,
            disks=slots,
            inner=inner,
            networked=networked,
            initrd=kernel.initrd.name,
            cpu_model=cpu_model,
        )
        return slots, self._find(key, Recipe(self._machines, partial(self._machine, key, kernel)))

    def find_program(self, spec: Spec, boot: ProgramBoot, *, networked: bool) -> Saved | None:
        """What to start a unikernel from; None where there is no template yet, and one is being made.

        The caller closes `ram`. Its template holds its image and nothing else.
        """
        if self._config.template_space == 0 or spec.program is None:
            return None
        room = Room(spec.plan.memory, vmm.vcpus(spec.plan))
        key = self._key(spec.image_digest, spec.plan, room, disks=int(spec.program.disk), networked=networked)
        return self._find(key, Recipe(self._programs, partial(_program, spec, boot)))

    def _find(self, key: TemplateKey, recipe: Recipe) -> Saved | None:
        found = self._stored.find(key)
        if found:
            return Saved(found.ram, found.state)
        self._recipes[key.name] = recipe
        self._makers.want(key)
        return None

    def keep(self, images: Collection[str]) -> None:
        """Drop those of kernels and unikernels whose images are not among these."""
        self._stored.retain(lambda key: key.kernel in images)

    def recover(self) -> list[str]:
        """Drop what a crash left, and what this QEMU, agent or processor cannot go on from; says what it was."""
        if not self._stored.stored():
            return self._stored.retain(lambda _: True)
        try:
            version, processor = self._hypervisor.vmm().digest, self._processor()
        except BulkheadError:  # without QEMU none is of use
            return self._stored.retain(lambda _: False)
        return self._stored.retain(lambda key: (key.vmm, key.processor) == (version, processor))

    def settle(self) -> None:
        """Wait until those that are wanted have been made, or have failed."""
        self._makers.settle()

    def close(self) -> None:
        """Finish the one that is being made; guests that run keep their memory."""
        self._makers.close()
        self._stored.close()

    def _key(
        self,
        image: str,
        plan: Plan,
        room: Room,
        *,
        disks: int,
        networked: bool,
        initrd: str = "",
        inner: int = 0,
        cpu_model: str = "",
    ) -> TemplateKey:
        return TemplateKey(
            kernel=image,
            initrd=initrd,
            vmm=self._hypervisor.vmm().digest,
            processor=self._processor(),
            cpu_model=cpu_model,
            memory=plan.memory,
            vcpus=vmm.vcpus(plan),
            most_memory=room.memory,
            most_vcpus=room.vcpus,
            disks=disks,
            inner=inner,
            network=networked,
        )

    def _processor(self) -> str:
        # Under TCG the guest's processor is QEMU's own, whatever the host's is.
        accelerator = self._hypervisor.accelerator()
        return f"kvm {facts.processor()}" if accelerator == "kvm" else "tcg"

    def _make(self, key: TemplateKey) -> None:
        began = time.monotonic()
        recipe = self._recipes.pop(key.name)
        with self._stored.making(key) as work, ExitStack() as always:
            # A bundle among the others: after a crash it is found there, and ended, as one without a record.
            directory = self._config.instances_dir / key.name
            bundles.remove(directory)
            directory.mkdir(mode=0o700)
            always.callback(bundles.remove, directory)
            descriptor = os.open(work / RAM, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.ftruncate(descriptor, key.memory)
            os.close(descriptor)
            netns_fd = taps.make_alone(owner=UIDS) if key.network else None
            if netns_fd is not None:
                always.callback(os.close, netns_fd)
            spec = _spec(key)
            limits = self._limits(spec.plan, spec.id)
            bare = Bundle(directory=directory, spec=spec, limits=limits, netns_fd=netns_fd, uid_start=UIDS)
            recipe.driver.make_template(recipe.bundle(bare, work / RAM), work / STATE)
        log.info("made template %s in %.1f s", key.name[:12], time.monotonic() - began)

    def _machine(self, key: TemplateKey, kernel: ReadyKernel, bare: Bundle, ram: Path) -> Bundle:
        boot = Boot(
            vmm=self._hypervisor.root(),
            kernel=kernel.elf,
            initrd=kernel.initrd,
            disk=None,
            layers=(),
            accelerator=self._hypervisor.accelerator(),
            tap=_tap(bare),
            slots=key.disks,
            inner=key.inner,
            ram=ram,
            room=Room(key.most_memory, key.most_vcpus),
        )
        return replace(bare, boot=boot)

    def _failed(self, key: TemplateKey, error: Exception) -> None:
        log.warning("template %s could not be made, machines of this size boot slowly: %s", key.name[:12], error)


def _program(spec: Spec, boot: ProgramBoot, bare: Bundle, ram: Path) -> Bundle:
    """Of the instance that asks for it there is its image alone."""
    settings = bare.spec.model_copy(update={"isolation": Isolation.UNIKERNEL, "program": spec.program, "argv": ()})
    return replace(bare, spec=settings, program=replace(boot, disk=None, tap=_tap(bare), ram=ram, saved=None))


def _tap(bare: Bundle) -> str:
    return taps.TAP if bare.netns_fd is not None else ""


def _spec(key: TemplateKey) -> Spec:
    """A guest with nothing in it: what its hypervisor is to be given."""
    return Spec(
        id=key.name,
        name="template",
        image="",
        image_digest="",
        isolation=Isolation.VM,
        plan=Plan(memory=key.memory, cpus=float(math.ceil(key.vcpus)), disk=_DISK),
        argv=("none",),
        cpu_model=key.cpu_model,
        hostname="template",
        network="none",
        created=time.time(),
    )
