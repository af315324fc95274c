"""One pass at the daemon's start that makes the host agree with the store, whatever killed the last daemon.

Half-done creates are undone, half-done deletes are finished, half-done starts are undone, ends that nobody saw are
recorded, and whatever is Bulkhead's own on the host but in no record is removed.
"""

from __future__ import annotations

import logging
from pathlib import Path

from bulkhead.agent.ending import quit_or_kill
from bulkhead.engine import attaching, bundles, secrets, sharing, snapshotting
from bulkhead.engine.context import Context
from bulkhead.engine.fleet import arriving, expecting
from bulkhead.engine.lifecycle import LOST, Lifecycle
from bulkhead.errors import BulkheadError
from bulkhead.host import cgroups
from bulkhead.isolation.base import Pauses
from bulkhead.model import Instance, State

log = logging.getLogger(__name__)


class Recovery:
    """The pass. It runs before the API answers, alone."""

    def __init__(self, context: Context, lifecycle: Lifecycle) -> None:
        self._context = context
        self._lifecycle = lifecycle
        self._repairs: list[str] = []
        self._coming: list[Instance] = []
        """Machines that have come from other hosts, and that nobody hears yet."""

    def run(self) -> list[str]:
        """Repair, and say in words what was repaired; nothing to say after a clean stop."""
        self._repairs += arriving.settle_names(self._context)
        self._repairs += self._context.disks.thaw()  # first: whatever touches a frozen one waits
        for instance in self._context.state.instances():
            try:
                self._instance(instance)
            except BulkheadError as error:
                log.error("recovery of %s: %s", instance.spec.name, error)
                self._repairs.append(f"could not repair {instance.spec.name}: {error}")
        self._machines()
        self._repairs += snapshotting.recover(self._context)
        self._strays()
        self._parts()
        self._updates()
        for repair in self._repairs:
            log.warning("repaired: %s", repair)
        return self._repairs

    def _instance(self, instance: Instance) -> None:
        name, directory = instance.spec.name, self._context.bundle_dir(instance)
        if instance.spec.room or instance.spec.build:
            # The request that held it ended with the daemon.
            attaching.give_back(self._context, instance)
            quit_or_kill(directory)
            self._lifecycle.erase(instance)
            what = "its build was interrupted" if instance.spec.build else "a room that nobody holds"
            self._repairs.append(f"{name}: {what}, removed")
            return
        match instance.state:
            case State.CREATING | State.DELETING:
                quit_or_kill(directory)
                self._lifecycle.erase(instance)
                self._repairs.append(f"{name}: {instance.state} was interrupted, removed")
            case State.STARTING:
                quit_or_kill(directory)
                self._lifecycle.undo_start(instance)
                self._repairs.append(f"{name}: its start was interrupted, undone")
            case State.RUNNING | State.PAUSED | State.STOPPING:
                self._running(instance, directory)
            case State.CREATED | State.EXITED:
                self._lifecycle.release_run(instance)

    def _running(self, instance: Instance, directory: Path) -> None:
        handle = bundles.read_handle(directory)
        driver = self._context.driver(instance)
        found = driver.inspect(directory, handle) if handle else None
        if found and found.running:
            if instance.state is State.STOPPING:
                # The stop was asked for and not carried out: carry it out.
                self._context.state.save(instance.model_copy(update={"state": State.RUNNING}))
                self._lifecycle.stop(instance)
                self._repairs.append(f"{instance.spec.name}: its stop was interrupted, carried out")
            elif handle and isinstance(driver, Pauses):
                # A crash may have come between the freezer and the record.
                (driver.pause if instance.state is State.PAUSED else driver.resume)(directory, handle)
            return
        ended = found.exit if found and found.exit else LOST
        self._repairs.append(f"{instance.spec.name}: ended while no daemon was there (code {ended.code})")
        self._lifecycle.finish(instance.spec.id)

    def _machines(self) -> None:
        """VMs that were made for one instance go with it."""
        instances = self._context.state.instances()
        running = {instance.spec.id: instance.pid != 0 for instance in instances}
        for machine in instances:
            owner, name = machine.spec.only_for, machine.spec.name
            if owner and owner not in running:
                self._lifecycle.erase(machine)
                self._repairs.append(f"{name}: the instance that it was made for is not there, removed")
            elif not owner:
                sharing.settle(self._context, machine.spec.id)
            elif machine.pid and not running[owner]:
                self._lifecycle.stop(machine, timeout=0, signal="SIGKILL")
                self._repairs.append(f"{name}: the instance that it was made for does not run, ended")

    def _updates(self) -> None:
        """Changes of plans, at last: they want the parts to be there."""
        for instance in self._context.state.instances():
            try:
                if self._lifecycle.updates.finish(instance):
                    self._repairs.append(f"{instance.spec.name}: its update was interrupted, carried out")
            except BulkheadError as error:
                self._repairs.append(f"{instance.spec.name}: its update was interrupted, undone: {error}")

    def _strays(self) -> None:
        """Bundles and cgroups without a record. Their processes end first, so that nothing is busy."""
        context = self._context
        known = {instance.spec.id: instance for instance in context.state.instances()}
        for directory in context.config.instances_dir.iterdir():
            if directory.name not in known and (parcel := expecting.has_come(directory)):
                self._coming.append(parcel.instance)  # whose it is, the fleet's record says
            elif directory.name not in known:
                quit_or_kill(directory)
                bundles.remove(directory)
                context.state.remove(directory.name)  # what it has leased
                self._repairs.append(f"bundle {directory.name[:12]} without a record removed")
        coming = {instance.spec.id for instance in self._coming}
        for instance_id in cgroups.list_instances(context.layout, context.config.cgroup):
            if instance_id not in coming and (instance_id not in known or known[instance_id].pid == 0):
                cgroups.kill_and_remove(context.layout, context.config.cgroup, instance_id)
                self._repairs.append(f"cgroup of {instance_id[:12]} without a running instance removed")

    def _parts(self) -> None:
        """Mounts, links, rules and files, by the part that makes them."""
        context = self._context
        instances = context.state.instances()
        running = [instance for instance in instances if instance.pid]
        there = [*((each, each.spec.ports) for each in running), *((each, ()) for each in self._coming)]
        self._repairs += context.images.recover()
        self._repairs += context.templates.recover()
        self._repairs += context.disks.recover({instance.spec.id for instance in instances})
        self._repairs += context.layers.recover(
            {digest for instance in running for digest in bundles.read_layers(context.bundle_dir(instance))}
        )
        self._repairs += context.volumes.recover({volume for instance in running for volume in instance.spec.volumes})
        self._repairs += context.secrets.recover(secrets.known(context))
        context.fleet_networks.recall()
        self._repairs += context.networks.recover(
            context.state.networks(),
            {
                instance.spec.id: (instance.address, ports, instance.spec.plan.bandwidth)
                for instance, ports in there
                if instance.address
            },
            {instance.spec.id for instance, _ in there if instance.spec.system},
            {instance.spec.id: instance.spec.inside for instance in running if instance.spec.inside},
            {instance.spec.id for instance in self._coming},
        )
        for network in context.state.networks():
            self._lifecycle.resources.update_names(network)
