"""Machines of other hosts that are to go on here: made, filled, and run once they are this host's. See design 0031.

One lies among the bundles without a record, under the id that it has everywhere: until all of it is there the next
daemon removes it as what has no record, afterwards `parcel.json` in it says what it is.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bulkhead.engine import bundles, kernels
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.fleet.parcels import MOST_SMALL, PORTION
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.errors import BulkheadError, Problem, Refused
from bulkhead.host import facts
from bulkhead.isolation.base import Handle
from bulkhead.isolation.migration import Migrates, To, problems
from bulkhead.metering.meters import Counters
from bulkhead.model import Instance, Spec, State
from bulkhead.moves import Blueprint, Parcel
from bulkhead.storage import foreign

LOG = "log"
ALONE = "move it with --stop"


@dataclass(frozen=True, slots=True)
class Expected:
    """Makes and ends them. Under the lock of the instance that one is to be."""

    context: Context
    lifecycle: Lifecycle

    def problems(self, spec: Spec, machine: Blueprint) -> list[Problem]:
        """Why this host cannot make the very same machine."""
        hypervisor = self.context.hypervisor
        try:
            accelerator, root = hypervisor.accelerator(), hypervisor.root().name
        except BulkheadError as error:
            return list(error.problems)
        if not isinstance(self.context.driver_of(spec), Migrates):
            return [Problem(f"a {spec.isolation} does not move while it runs", ALONE)]
        processor = facts.processor() if accelerator == "kvm" else ""
        return problems(machine, hypervisor=root, accelerator=accelerator, processor=processor)

    def make(self, parcel: Parcel, directory: Path, undo: ExitStack, *, ipv4: str) -> Instance:
        """The machine of a parcel whose files are in `directory`, waiting; the instance that it is to be.

        `ipv4`: the address that it has in the fleet. Its end of the network is made, and silent. Raises Refused where
        the network is not this host's.
        """
        context, machine = self.context, _machine(parcel)
        spec = parcel.instance.spec
        kept = context.fleet_networks.address(spec.network_key, ipv4)
        if kept is None and spec.network != "none":
            raise Refused(f"{spec.name} is on network {spec.network}, which is not on this host", hint=ALONE)
        driver = self._driver(spec)
        uids = context.state.lease_uid_range(spec.id)
        undo.callback(context.state.remove, spec.id)
        changes = {"uid_start": uids, "cpuset": (), "address": None, "kept_address": kept, "pid": 0}
        instance = parcel.instance.model_copy(update=changes)
        _make_disk(directory / bundles.DISK, machine.disk)
        foreign.mark(directory / bundles.DISK)
        checkpoint("expect.made")
        with ExitStack() as always:
            # The kernel that it runs: what the name means here may be another one.
            same = spec.model_copy(update={"kernel": machine.kernel or spec.kernel})
            given = instance.model_copy(update={"spec": same})
            acquired, bundle = self.lifecycle.resources.acquire(given, undo=undo, always=always, silent=True)
            handle = driver.expect(bundle, machine)
            undo.callback(context.driver_of(spec).delete, directory, spec.id)
            bundles.write_handle(directory, handle)
        checkpoint("expect.waiting")
        return acquired.model_copy(update={"spec": spec, "pid": handle.pid, "state": State.RUNNING})

    def opened(self, instance: Instance, to: To) -> socket.socket:
        """The end of one of its streams."""
        near = self._driver(instance.spec).opened(self.context.bundle_dir(instance), to)
        checkpoint("expect.opened")
        return near

    def complete(self, instance: Instance, parcel: Parcel, log: BinaryIO) -> int:
        """See that all of it is here, for good; with the rest of its log. Bytes of that."""
        directory = self.context.bundle_dir(instance)
        self._driver(instance.spec).complete(directory)
        checkpoint("expect.loaded")
        count = _append(directory / LOG, log)
        for name in (bundles.DISK, LOG):
            _sync(directory / name)
        bundles.write_parcel(directory, parcel.model_copy(update={"instance": instance}))
        for path in (directory, directory.parent):
            _sync(path)
        return count

    def enter(self, instance: Instance) -> tuple[Instance, str]:
        """Let it run, be heard and found; what of its ports is not to be had here, in words.

        Raises AgentError, Unavailable, HostError where its machine has ended, or does not answer.
        """
        context, directory = self.context, self.context.bundle_dir(instance)
        handle: Handle = bundles.require_handle(directory)
        # Its address leads here before it says a word, so that no answer to it goes where it was.
        self.lifecycle.resources.speak(instance)
        checkpoint("arrive.heard")
        self._driver(instance.spec).go_on(directory, handle)
        checkpoint("arrive.entered")
        problem = ""
        try:
            self.lifecycle.resources.publish(instance)
        except BulkheadError as error:
            problem = f"its ports are not published here: {error.what}"
        self.lifecycle.meter.begin(instance, handle, Counters())
        self.lifecycle.on_started(instance)
        return context.state.get(instance.spec.id), problem

    def restart(self, instance: Instance) -> Instance:
        """Its machine is of no use: let it start from the disk that has come."""
        self.lifecycle.release_run(instance)
        stopped = instance.model_copy(update={"state": State.EXITED, "pid": 0, "address": None, "health": ""})
        self.context.state.save(stopped)
        return self.lifecycle.start(stopped)

    def drop(self, instance: Instance) -> None:
        """It is not to be. Idempotent."""
        context, directory = self.context, self.context.bundle_dir(instance)
        context.driver(instance).delete(directory, instance.spec.id)
        self.lifecycle.resources.release_link(instance)
        context.disks.discard(instance.spec.id, directory / bundles.DISK)
        bundles.remove(directory)
        context.state.remove(instance.spec.id)

    def _driver(self, spec: Spec) -> Migrates:
        driver = self.context.driver_of(spec)
        if not isinstance(driver, Migrates):
            raise Refused(f"a {spec.isolation} does not move while it runs", hint=ALONE)
        return driver


def has_come(directory: Path) -> Parcel | None:
    """What a machine without a record is, where all of it is there."""
    parcel = bundles.read_parcel(directory)
    return parcel if parcel and parcel.machine else None


def has_kernel(context: Context, reference: str | None) -> bool:
    """Whether a kernel, or the usual one, is on this host."""
    try:
        return bool(kernels.find(context.images, reference or None))
    except BulkheadError:
        return False


def _machine(parcel: Parcel) -> Blueprint:
    if parcel.machine is None:
        raise Refused(f"{parcel.instance.spec.name} does not arrive as a machine")
    return parcel.machine


def _make_disk(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.truncate(descriptor, size)
    finally:
        os.close(descriptor)


def _append(path: Path, source: BinaryIO) -> int:
    count = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        there = file.tell()  # with what a try before this one has left
        while data := source.read(PORTION):
            count += len(data)
            if there + count > MOST_SMALL:
                raise Refused(f"a log arrives with more than {MOST_SMALL} bytes")
            file.write(data)
    return count


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
