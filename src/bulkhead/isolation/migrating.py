"""What drivers of machines that can go to another host while they run have in common."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import ClassVar, Literal

from bulkhead.host import facts
from bulkhead.host.qmp import Qmp
from bulkhead.isolation import departing, expecting, vmm
from bulkhead.isolation.base import Handle
from bulkhead.isolation.departing import Departing
from bulkhead.isolation.migration import To
from bulkhead.moves import Blueprint

OTHER_VERSION = "this machine was started by another version of Bulkhead"


class Migrating:
    """Their part of `Migrates` that is the same for all. `node`: QEMU's name of the disk."""

    node: ClassVar[str]
    agent: ClassVar[bool]
    """Whether an agent of ours is in the guest."""

    def depart(self, bundle: Path, handle: Handle) -> Departing:
        """Begin to let one go."""
        return Departing(bundle, Qmp.open(bundle / vmm.DIRECTORY, vmm.QMP), node=self.node, agent=self.agent)

    def stay(self, bundle: Path, handle: Handle) -> None:
        """Let it run on here. Idempotent."""
        departing.stay(bundle, agent=self.agent)

    def opened(self, bundle: Path, to: To) -> socket.socket:
        """The end of a stream in a machine that waits."""
        return expecting.opened(bundle, to)

    def complete(self, bundle: Path) -> None:
        """Make sure that all has come. Raises AgentError."""
        expecting.complete(bundle)

    def go_on(self, bundle: Path, handle: Handle) -> None:
        """Let it run. Idempotent."""
        expecting.go_on(bundle, agent=self.agent)


def machine_of(
    bundle: Path, *, accelerator: str, hypervisor: str, cpu_model: str, kernel: str = "", shape: str = ""
) -> Blueprint:
    """What another host has to make."""
    kind: Literal["kvm", "tcg"] = "kvm" if accelerator == "kvm" else "tcg"
    return Blueprint(
        accelerator=kind,
        hypervisor=hypervisor,
        processor=facts.processor() if kind == "kvm" and not cpu_model else "",
        kernel=kernel,
        shape=shape,
        disk=(bundle / "disk.img").stat().st_size,
    )
