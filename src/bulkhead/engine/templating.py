"""Templates of virtual machines: found for a start, made in the background, dropped when nothing can use them."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bulkhead.boot.templates import RAM, STATE, Makers, TemplateKey, Templates
from bulkhead.config import Config
from bulkhead.engine import bundles
from bulkhead.engine.hypervisor import Hypervisor
from bulkhead.engine.kernels import ReadyKernel
from bulkhead.errors import BulkheadError
from bulkhead.host import facts
from bulkhead.isolation import vmm
from bulkhead.isolation.base import Boot, Bundle, Limits, Room, Saved
from bulkhead.isolation.vm import VmDriver
from bulkhead.model import Isolation, Plan, Spec
from bulkhead.network import taps

log = logging.getLogger(__name__)
UIDS = 0xFFFE_0000
"""First uid of the range that a template's hypervisor runs with. Instances get theirs from the other end."""
_DISK = 1 << 30


class MachineTemplates:
    """One per daemon. `limits` gives what holds a hypervisor of a plan, by instance id."""

    def __init__(
        self, config: Config, hypervisor: Hypervisor, driver: VmDriver, limits: Callable[[Plan, str], Limits]
    ) -> None:
        self._config = config
        self._hypervisor = hypervisor
        self._driver = driver
        self._limits = limits
        self._stored = Templates(config.cache_dir / "templates", max_bytes=config.template_space)
        self._makers = Makers(self._make, failed=self._failed)
        self._kernels: dict[str, ReadyKernel] = {}

    def find(
        self, kernel: ReadyKernel, plan: Plan, room: Room, *, disks: int, networked: bool
    ) -> tuple[int, Saved | None]:
        """Slots for disks and what to start from: None where there is no template yet, and one is being made.

        The caller closes `ram`.
        """
        slots = next(count for count in vmm.SLOTS if count >= disks)
        if self._config.template_space == 0:
            return slots, None
        key = self._key(kernel, plan, room, slots, networked=networked)
        found = self._stored.find(key)
        if found:
            return slots, Saved(found.ram, found.state)
        self._kernels[key.name] = kernel
        self._makers.want(key)
        return slots, None

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

    def _key(self, kernel: ReadyKernel, plan: Plan, room: Room, slots: int, *, networked: bool) -> TemplateKey:
        return TemplateKey(
            kernel=kernel.digest,
            initrd=kernel.initrd.name,
            vmm=self._hypervisor.vmm().digest,
            processor=self._processor(),
            memory=plan.memory,
            vcpus=vmm.vcpus(plan),
            most_memory=room.memory,
            most_vcpus=room.vcpus,
            disks=slots,
            network=networked,
        )

    def _processor(self) -> str:
        # Under TCG the guest's processor is QEMU's own, whatever the host's is.
        accelerator = self._hypervisor.accelerator()
        return f"kvm {facts.processor()}" if accelerator == "kvm" else "tcg"

    def _make(self, key: TemplateKey) -> None:
        began = time.monotonic()
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
            self._driver.make_template(self._bundle(key, directory, work / RAM, netns_fd), work / STATE)
        log.info("made template %s in %.1f s", key.name[:12], time.monotonic() - began)

    def _bundle(self, key: TemplateKey, directory: Path, ram: Path, netns_fd: int | None) -> Bundle:
        spec = _spec(key)
        kernel = self._kernels[key.name]
        boot = Boot(
            vmm=self._hypervisor.root(),
            kernel=kernel.elf,
            initrd=kernel.initrd,
            disk=None,
            layers=(),
            accelerator=self._hypervisor.accelerator(),
            tap=taps.TAP if netns_fd is not None else "",
            slots=key.disks,
            ram=ram,
            room=Room(key.most_memory, key.most_vcpus),
        )
        return Bundle(
            directory=directory,
            spec=spec,
            limits=self._limits(spec.plan, spec.id),
            netns_fd=netns_fd,
            uid_start=UIDS,
            boot=boot,
        )

    def _failed(self, key: TemplateKey, error: Exception) -> None:
        log.warning("template %s could not be made, machines of this size boot slowly: %s", key.name[:12], error)


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
        hostname="template",
        network="none",
        created=time.time(),
    )
