"""What a move needs beside an instance: an empty one of the new level, to try the wall with and to copy files into.

It is a bundle without a record, as a warm guest is: after a crash it is found and removed with all that it holds.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bulkhead.agent.mirroring import Mirrored, mirror
from bulkhead.engine import bundles, machines
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.holding import file_session, held
from bulkhead.engine.resources import Resources
from bulkhead.events import Progress, Step
from bulkhead.model import Instance, Isolation, Spec, State


class Carrier:
    """Tries walls, and copies the files of an instance from one disk to another through both walls' agents."""

    def __init__(self, context: Context, resources: Resources) -> None:
        self._context = context
        self._resources = resources

    def rehearse(self, instance: Instance, after: Spec) -> None:
        """Make the root of an instance like it behind the new wall, while it still runs. Raises what stands against.

        What a guest starts from is made here as well: neither adds to the time that the instance is down.
        """
        context = self._context
        cold = after.model_copy(update={"cold": True})
        with self._beside(instance, cold) as trial, held(context, self._resources, trial):
            pass
        layers = len(bundles.read_layers(context.bundle_dir(instance)))
        if machines.is_machine(after):
            networked = self._resources.network_of(after) is not None
            machines.prefetch(context, after, layers, networked=networked)
        elif machines.is_machine(instance.spec):
            machines.prefetch(context, instance.spec, layers, networked=False)

    def carry(self, instance: Instance, after: Spec, progress: Progress) -> Mirrored:
        """Copy the files of a stopped instance to a fresh disk for `after` and put that in its disk's place.

        The old disk is kept until `disks.forget_old`. Both walls are held: neither kernel sees the other's disk.
        """
        context, label = self._context, "copying its files"
        disk = context.bundle_dir(instance) / bundles.DISK
        progress(Step(label))
        with self._beside(instance, after) as fresh:
            with ExitStack() as always:
                always.enter_context(held(context, self._resources, instance))
                source = always.enter_context(file_session(context, instance))
                always.enter_context(held(context, self._resources, fresh))
                target = always.enter_context(file_session(context, fresh))
                checkpoint("move.copying")
                most = disk.stat().st_size
                carried = mirror(source, target, most=most, told=lambda done: progress(Step(label, done, 0, "bytes")))
            checkpoint("move.copied")
            context.disks.exchange(instance.spec.id, disk, context.bundle_dir(fresh) / bundles.DISK)
        checkpoint("move.exchanged")
        return carried

    @contextmanager
    def copied(self, instance: Instance, progress: Progress) -> Iterator[Path]:
        """What a stopped VM has changed, as the upper directory of a disk that this host has written: a copy, made
        through both walls' agents. The caller sees to it that nobody starts it."""
        context = self._context
        after = instance.spec.model_copy(update={"isolation": Isolation.CONTAINER, "init": "none"})
        most = (context.bundle_dir(instance) / bundles.DISK).stat().st_size
        with self._beside(instance, after) as fresh:
            with ExitStack() as always:
                always.enter_context(held(context, self._resources, instance))
                source = always.enter_context(file_session(context, instance))
                always.enter_context(held(context, self._resources, fresh))
                target = always.enter_context(file_session(context, fresh))
                label = "copying its files out of the machine"
                mirror(source, target, most=most, told=lambda done: progress(Step(label, done, 0, "bytes")))
            with ExitStack() as always:
                disk = context.disks.attach(fresh.spec.id, context.bundle_dir(fresh) / bundles.DISK)
                always.callback(context.disks.detach, fresh.spec.id)
                yield disk / "upper"

    @contextmanager
    def _beside(self, instance: Instance, after: Spec) -> Iterator[Instance]:
        """An instance of the new level over the same layers, with an empty disk; not in the store."""
        context, identifier = self._context, secrets.token_hex(16)
        spec = after.model_copy(update={"id": identifier, "mounts": (), "ports": (), "network": "none"})
        directory = context.bundle_dir(identifier)
        with ExitStack() as always:
            always.callback(context.state.remove, identifier)
            uids = context.state.lease_uid_range(identifier)
            fresh = Instance(spec=spec, state=State.CREATED, uid_start=uids)
            always.callback(bundles.remove, directory)
            bundles.make(directory, spec, bundles.read_layers(context.bundle_dir(instance)))
            always.callback(context.disks.discard, identifier, directory / bundles.DISK)
            mount = spec.isolation is not Isolation.VM
            context.disks.create(identifier, directory / bundles.DISK, spec.plan.disk, mount=mount)
            yield fresh
