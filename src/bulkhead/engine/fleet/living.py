"""An instance leaves while it runs: a machine is made for it on the other host, its disk and memory go there as it
changes them, and at last it stands still here, whole, until the fleet's record says whose it is. See design 0031.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bulkhead.engine import bundles
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.fleet import staying
from bulkhead.engine.fleet.asking import Peer
from bulkhead.engine.fleet.fencing import is_fenced
from bulkhead.engine.fleet.parcels import PORTION, Sender
from bulkhead.errors import BulkheadError, Problem, Refused, Unavailable
from bulkhead.events import Progress, Step
from bulkhead.host.pipes import Rate
from bulkhead.isolation.migration import Amount, Migrates, To, Wishes
from bulkhead.model import Instance, Isolation, State
from bulkhead.moves import Blueprint, Flow, Leaving, Parcel, Wanted
from bulkhead.quantities import format_size

Phase = Callable[[str], AbstractContextManager[None]]
"""Times a block under its name."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How it went. Seconds of the monotonic clock, bytes."""

    stopped: float
    """When it stood still, or was asked to."""
    bytes: int
    flow: Flow | None
    """Of one that ran meanwhile."""
    digest: str
    """SHA-256 of a disk that was sent as it was."""


@dataclass(frozen=True, slots=True)
class Living:
    """Lets instances of this host go while they run. Under the instance's lock."""

    context: Context

    def machine(self, instance: Instance) -> Blueprint:
        """What the other host has to make. Raises Refused with every reason why it cannot go while it runs."""
        context, spec = self.context, instance.spec
        driver, found = context.driver(instance), list[Problem]()
        if spec.isolation is not Isolation.VM or not isinstance(driver, Migrates):
            what = f"{spec.name} is a {spec.isolation}: only virtual machines move while they run"
            raise Refused(what, hint="move it with --stop")
        if instance.state is not State.RUNNING:
            raise Refused(f"{spec.name} is {instance.state}: there is nothing to move but its disk", hint="--stop")
        if spec.network != "none" and context.fleet_networks.find(spec.network_key) is None:
            what = f"{spec.name} is on network {spec.network} of this host, where its address would be left behind"
            hint = "move it with --stop; on a network of the fleet (network create --fleet) it runs on"
            found.append(Problem(what, hint))
        if is_fenced(spec):
            what = f"{spec.name} is started elsewhere when its host is lost: the other guard has to know of it first"
            found.append(Problem(what, "move it with --stop"))
        directory = context.bundle_dir(instance)
        try:
            machine = driver.describe(directory, bundles.require_handle(directory))
        except Refused as error:
            raise Refused([*found, *error.problems]) from error
        if found:
            raise Refused(found)
        return machine

    def carry(
        self,
        instance: Instance,
        machine: Blueprint,
        leaving: Leaving,
        peer: Peer,
        wanted: Wanted,
        *,
        phase: Phase,
        progress: Progress,
    ) -> Sent:
        """All of it to the other host; it stands still here then. What fails leaves it to `stay`."""
        spec, directory = instance.spec, self.context.bundle_dir(instance)
        wishes = Wishes(downtime=wanted.downtime, patience=wanted.patience, rate=wanted.rate)
        rate, told, move = Rate(wanted.rate), _teller(peer.host.name, progress), leaving.move
        with ExitStack() as always:
            log = _Log(directory / "log", always)
            with phase("machine"):
                progress(Step(f"making its machine on host {peer.host.name}"))
                self._make(instance, machine, leaving, peer, log.begun)
            checkpoint("live.made")
            driver = self.context.driver(instance)
            assert isinstance(driver, Migrates)
            departure = driver.depart(directory, bundles.require_handle(directory))
            always.callback(departure.close)
            with phase("disk"):
                disk = peer.stream(spec.id, move, "disk", departure.listen(), listens=True, rate=rate)
                always.callback(disk.close)
                disk.start()
                departure.mirror(wishes, told)
            checkpoint("live.mirrored")
            with phase("memory"):
                memory = peer.stream(spec.id, move, "memory", departure.memory(), listens=False, rate=rate)
                always.callback(memory.close)
                memory.start()
                departure.converge(wishes, told)
            stopped = time.monotonic()
            checkpoint("live.stopped")
            with phase("switch"):
                flow = departure.switch()
                checkpoint("live.switched")
                peer.complete(spec.id, move, log.rest())
            checkpoint("live.whole")
            return Sent(stopped, disk.sent + memory.sent, flow, digest="")

    def _make(self, instance: Instance, machine: Blueprint, leaving: Leaving, peer: Peer, log: int) -> None:
        directory = self.context.bundle_dir(instance)
        sizes = {name: (directory / name).stat().st_size for name in staying.files(directory) if name != bundles.DISK}
        parcel = Parcel(
            move=leaving.move,
            instance=instance,
            ran=True,
            layers=tuple(bundles.read_layers(directory)),
            foreign=True,
            files={name: min(size, log) if name == "log" else size for name, size in sizes.items()},
            machine=machine,
        )
        sender = Sender(parcel, directory, told=lambda _: None, rate=None)
        receipt = peer.send(instance.spec.id, sender)
        if (receipt.received, receipt.digest) != (sender.sent, sender.digest):
            what = f"host {peer.host.name} has received something else than was sent"
            raise Unavailable(what, hint="try again")

    def stay(self, instance: Instance) -> str:
        """Let it run on here; what it does, in words. Raises Unavailable where it is not clear yet whether it can."""
        directory, driver = self.context.bundle_dir(instance), self.context.driver(instance)
        handle = bundles.require_handle(directory)
        if not isinstance(driver, Migrates):
            raise Refused(f"a {instance.spec.isolation} does not move while it runs")
        try:
            driver.stay(directory, handle)
        except BulkheadError as error:
            if not self.context.driver(instance).inspect(directory, handle).running:
                return "has ended meanwhile"
            raise Unavailable(f"{instance.spec.name} is to run on here, and does not yet: {error.what}") from error
        return "runs as before"


class _Log:
    """The log of an instance. What is there at first goes with its machine, the rest in the end."""

    def __init__(self, path: Path, always: ExitStack) -> None:
        self._path = path
        self._file = always.enter_context(path.open("rb")) if path.exists() else None
        self.begun = self._file.seek(0, os.SEEK_END) if self._file else 0
        """Bytes that were there."""

    def rest(self) -> Iterator[bytes]:
        """What has come since; of one that was begun anew meanwhile what was before as well."""
        if self._file is None:
            return
        yield from _portions(self._file)
        if self._path.exists() and not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno())):
            with self._path.open("rb") as newer:
                yield from _portions(newer)


def _portions(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(PORTION):
        yield data


def _teller(host: str, progress: Progress) -> Callable[[To, Amount], None]:
    def told(to: To, amount: Amount) -> None:
        changing = f", which changes by {format_size(int(amount.rate))}/s" if amount.rate else ""
        progress(Step(f"sending its {to} to host {host}{changing}", amount.done, amount.total, "bytes"))
        checkpoint("live.mirroring" if to == "disk" else "live.sending")

    return told
