"""The contract of drivers whose instances can go to another host while they run. See docs/design/0031."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from bulkhead.errors import Problem
from bulkhead.isolation.base import Bundle, Handle
from bulkhead.moves import Blueprint, Flow

To = Literal["disk", "memory"]
"""What a stream of bytes between two hypervisors is of."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How far one of the streams is. Bytes."""

    done: int
    total: int
    rate: float = 0.0
    """Bytes per second by which the guest changes it again; 0: unknown."""


Told = Callable[[To, Amount], None]
"""Is told again and again how far it is; what it raises ends the migration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How a machine is to go."""

    downtime: float
    """Seconds for which it may stand still for its last changes, aside from what the hosts have to say."""
    patience: float
    """Seconds in which its memory has to come to an end of changes that small."""
    rate: int | None
    """Bytes per second; None: as fast as can be."""


class Departure(Protocol):
    """A machine that is on its way. Each step raises AgentError, HostError, Unavailable; `stay` then undoes it all."""

    def listen(self) -> socket.socket:
        """Where the hypervisor is about to connect for its disk."""

    def mirror(self, wishes: Wishes, told: Told) -> None:
        """Send the disk, and from then on every change of it; returns when the two are equal but for what is new."""

    def memory(self) -> socket.socket:
        """What the hypervisor is about to send its memory by."""

    def converge(self, wishes: Wishes, told: Told) -> None:
        """Send the memory until the rest is small, then let the guest stand still; returns when it does."""

    def switch(self) -> Flow:
        """Send the rest of disk and memory: all is there then, and the machine here is stopped, whole."""

    def close(self) -> None:
        """Let go of the hypervisor; it goes on with what it does."""


def problems(machine: Blueprint, *, hypervisor: str, accelerator: str, processor: str) -> list[Problem]:
    """Why a host with this root of QEMU, accelerator and processor cannot make another one's machine."""
    found = []
    hint = "move it with --stop: it boots there"
    if machine.accelerator != accelerator:
        found.append(Problem(f"it runs with {machine.accelerator}, that host runs guests with {accelerator}", hint))
    if machine.hypervisor != hypervisor:
        what = f"that host has another QEMU, or other firmware ({hypervisor[:19]}, not {machine.hypervisor[:19]})"
        found.append(Problem(what, "install the same packages on both, or move it with --stop"))
    if machine.accelerator == accelerator == "kvm" and machine.processor not in ("", processor):
        found.append(Problem("its guest uses the processor directly, and that host's is another or can do less", hint))
    return found


@runtime_checkable
class Migrates(Protocol):
    """A driver whose running instances can go on on another host, with memory and disk."""

    def describe(self, bundle: Path, handle: Handle) -> Blueprint:
        """What another host has to make. Raises Refused, with every reason, where this one cannot go while it runs."""

    def depart(self, bundle: Path, handle: Handle) -> Departure:
        """Begin to let one go."""

    def stay(self, bundle: Path, handle: Handle) -> None:
        """Let it run on here, wherever its departure was left; also after a crash. Idempotent."""

    def expect(self, bundle: Bundle, machine: Blueprint) -> Handle:
        """Make the machine that another host's is to go on in: it waits, and runs nothing. Leaves nothing on errors."""

    def opened(self, bundle: Path, to: To) -> socket.socket:
        """The end of a stream in a machine that waits."""

    def complete(self, bundle: Path) -> None:
        """Make sure that all has come, and take nothing more. Nothing runs."""

    def go_on(self, bundle: Path, handle: Handle) -> None:
        """Let a machine that is complete run, with the time that it is now. Idempotent."""
