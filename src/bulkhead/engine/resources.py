"""What an instance holds on the host while it runs: layers, disk, volumes, network. Acquired here, released here."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bulkhead import limits
from bulkhead.agent.operations import Operation
from bulkhead.engine import bundles, inside, machines, secrets, sharing, unikernels, unmodified
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.warming import WarmGuest
from bulkhead.errors import Refused
from bulkhead.isolation import resizing
from bulkhead.isolation.base import Bundle, Change, MountedVolume, Resizes
from bulkhead.model import Address, Instance, Isolation, Network, Plan, Spec, State
from bulkhead.network import Connection
from bulkhead.tenancy.names import qualified


@dataclass(frozen=True, slots=True)
class Resources:
    """Acquires and releases; the lifecycle says when."""

    context: Context
    addresses: threading.Lock
    """Held from the choice of an address until it is in the store."""
    mounting: threading.Lock = field(default_factory=threading.Lock)
    """Held while volumes are mounted, or found to be of no use to anybody and unmounted."""

    def acquire(
        self, instance: Instance, *, undo: ExitStack, always: ExitStack, silent: bool = False
    ) -> tuple[Instance, Bundle]:
        """Make everything ready for a start. `undo` puts it back after a failure, `always` ends in any case.

        `silent`: it has no record yet, is found by nobody, and what it sends goes nowhere before `speak`.
        """
        context, spec = self.context, instance.spec
        if spec.inside:
            return self._acquire_inside(instance, undo=undo, always=always)
        instance = instance.model_copy(
            update={"cpuset": limits.choose_cpuset(spec.plan, context.facts, self._cpusets(instance))}
        )
        warm = context.warm.take(spec.id)
        if warm and warm.connection:
            undo.callback(context.networks.disconnect, warm.connection.link)
            always.callback(os.close, warm.connection.netns_fd)
        if warm:
            undo.callback(context.driver(instance).delete, context.bundle_dir(instance), spec.id)
        networked = self.network_of(spec) is not None
        bundle = self.acquire_files(instance, undo=undo, always=always, networked=networked, warm=warm)
        machines.check_volumes(context, spec)
        volumes = machines.volumes(context, spec) if machines.is_machine(spec) else self._volumes(spec)
        checkpoint("start.volumes")
        instance, connection = self._network(instance, undo, always, warm, silent=silent)
        netns_fd = connection.netns_fd if connection else None
        if connection and isinstance(bundle.limits, limits.LimitProgram):
            bundle = replace(bundle, limits=bundle.limits.counting(connection.link))
        if (bundle.boot or bundle.system or bundle.program) and instance.address and netns_fd is not None:
            owner = instance.uid_start or 0
            tap = warm.tap if warm else context.networks.add_tap(netns_fd, instance.address, owner=owner)
            bundle = _with_tap(replace(bundle, address=instance.address), tap)
        bundle = replace(
            bundle,
            volumes=volumes,
            secrets=secrets.given(context, spec),
            netns_fd=netns_fd,
            cpuset=instance.cpuset,
            resolv_conf=self._resolv_conf(instance),
            hosts=self._hosts(instance),
        )
        return instance, bundle

    def _acquire_inside(self, instance: Instance, *, undo: ExitStack, always: ExitStack) -> tuple[Instance, Bundle]:
        """The same within a VM: its disks are plugged in by the driver, its place on the network is the VM's link."""
        context, spec = self.context, instance.spec
        bundle = self.acquire_files(instance, undo=undo, always=always)
        machine = inside.require_running(context, spec)
        sharing.reserve(context, machine)
        network, link = self.network_of(spec), bundles.read_link(context.bundle_dir(machine))
        if network and link:
            with self.addresses:
                kept = instance.kept_address
                undo.callback(context.networks.dislodge, spec.id)
                address = context.networks.lodge(
                    network,
                    instance_id=spec.id,
                    link=link,
                    taken=self._taken(spec),
                    wanted=kept if kept and kept.network == network.name else None,
                )
                checkpoint("start.connected")
                instance = instance.model_copy(update={"address": address})
                context.state.save(instance)
            self._announce(instance, network, address, link="", undo=undo)
        bundle = replace(
            bundle,
            address=instance.address,
            secrets=secrets.given(context, spec),
            resolv_conf=self._resolv_conf(instance),
            hosts=self._hosts(instance),
        )
        return instance, bundle

    def acquire_files(
        self,
        instance: Instance,
        *,
        undo: ExitStack,
        always: ExitStack,
        networked: bool = False,
        warm: WarmGuest | None = None,
    ) -> Bundle:
        """Layers and disk alone: what it takes to reach an instance's files."""
        context, spec = self.context, instance.spec
        directory = context.bundle_dir(instance)
        if spec.inside:
            placed, lists = inside.place(context, instance)
            checkpoint("start.disk")
            return Bundle(directory=directory, spec=spec, limits=lists, uid_start=instance.uid_start, inside=placed)
        if spec.system:
            program, system = self._limits(instance), unmodified.boot(context, instance)
            return Bundle(directory=directory, spec=spec, limits=program, uid_start=instance.uid_start, system=system)
        if spec.program:
            started = unikernels.boot(context, instance, networked=networked, always=always)
            program = self._limits(instance)
            checkpoint("start.layers")
            return Bundle(directory=directory, spec=spec, limits=program, uid_start=instance.uid_start, program=started)
        if machines.is_machine(spec):
            context.warm.release(spec.id)
            boot = machines.boot(context, instance, networked=networked, warm=warm, always=always)
            program = self._limits(instance)
            return Bundle(directory=directory, spec=spec, limits=program, uid_start=instance.uid_start, boot=boot)
        mounts = self._layers(directory)
        checkpoint("start.layers")
        disk = context.disks.attach(spec.id, directory / "disk.img")
        undo.callback(context.disks.detach, spec.id)
        checkpoint("start.disk")
        program = self._limits(instance)
        return Bundle(
            directory=directory, spec=spec, limits=program, layers=mounts, disk=disk, uid_start=instance.uid_start
        )

    def _limits(self, instance: Instance) -> limits.LimitProgram:
        context, spec = self.context, instance.spec
        machine = machines.is_machine(spec)
        return limits.program(
            machines.hypervisor_plan(context, spec.plan) if machine else spec.plan,
            cgroup=context.config.cgroup,
            instance_id=spec.id,
            layout=context.layout,
            facts=context.facts,
            cpuset=instance.cpuset,
            device=None if machine else context.disks.device(spec.id),
            devices=machines.DEVICES if machine else (),
            delegate=instance.uid_start if spec.init == "system" and not machine else None,
        )

    def _layers(self, directory: Path) -> tuple[Path, ...]:
        context = self.context
        return tuple(
            context.layers.mount_layer(digest, context.images.erofs_path(digest))
            for digest in bundles.read_layers(directory)
        )

    def _volumes(self, spec: Spec) -> tuple[MountedVolume, ...]:
        mounted = []
        for mount in spec.mounts:
            key = qualified(spec.tenant, mount.source)
            source = Path(mount.source) if mount.kind == "bind" else self._attach(key)
            mounted.append(
                MountedVolume(
                    source=source, target=mount.target, read_only=mount.read_only, volume=mount.kind == "volume"
                )
            )
        return tuple(mounted)

    def _attach(self, key: str) -> Path:
        with self.mounting:
            return self.context.volumes.attach(key)

    def _cpusets(self, instance: Instance) -> list[tuple[int, ...]]:
        return [
            other.cpuset
            for other in self.context.state.instances()
            if other.cpuset and other.pid and other.spec.id != instance.spec.id
        ]

    def _network(
        self, instance: Instance, undo: ExitStack, always: ExitStack, warm: WarmGuest | None, *, silent: bool
    ) -> tuple[Instance, Connection | None]:
        context, spec = self.context, instance.spec
        network = self.network_of(spec)
        if network is None:
            return instance, None
        context.networks.up(network)
        with self.addresses:
            if warm and warm.connection:
                connection = warm.connection
                if spec.plan.bandwidth is not None:
                    context.networks.shape(connection.link, warm.handle.pid, spec.plan.bandwidth)
            else:
                kept = instance.kept_address
                connection = context.networks.connect(
                    network,
                    instance_id=spec.id,
                    taken=self._taken(spec),
                    bandwidth=spec.plan.bandwidth,
                    asks=spec.system is not None,
                    wanted=kept if kept and kept.network == network.name else None,
                    silent=silent,
                )
                undo.callback(context.networks.disconnect, connection.link)
                always.callback(os.close, connection.netns_fd)
            checkpoint("start.connected")
            instance = instance.model_copy(update={"address": connection.address})
            if not silent:
                context.state.save(instance)
        if silent:
            bundles.write_network(context.bundle_dir(instance), connection.address, connection.link)
        else:
            self._announce(instance, network, connection.address, link=connection.link, undo=undo)
        return instance, connection

    def _taken(self, spec: Spec) -> set[str]:
        """IPv4 addresses that all others have, or will have again."""
        others = [other for other in self.context.state.instances() if other.spec.id != spec.id]
        return {address.ipv4 for other in others for address in (other.address, other.kept_address) if address}

    def _announce(self, instance: Instance, network: Network, address: Address, *, link: str, undo: ExitStack) -> None:
        """Write down where it is, publish its ports, and let it be found by its name."""
        context, spec = self.context, instance.spec
        checkpoint("start.leased")
        bundles.write_network(context.bundle_dir(instance), address, link)
        if link:
            context.networks.overlays.announce(network, link, address)
        if spec.ports:
            undo.callback(context.networks.unpublish, spec.id)
            context.networks.publish(spec.id, address, spec.ports)
        checkpoint("start.published")
        self.update_names(network)
        context.fleet_networks.changed()
        checkpoint("start.named")

    def speak(self, instance: Instance) -> None:
        """Let a silent instance, which this host has a record of by now, be heard; tell all where it is. Idempotent."""
        link, network = bundles.read_link(self.context.bundle_dir(instance)), self.network_of(instance.spec)
        if link and network and instance.address:
            self.context.networks.speak(link)
            self.context.networks.overlays.announce(network, link, instance.address)

    def publish(self, instance: Instance) -> None:
        """Let one that was silent be found, by its names and ports. Idempotent. Raises Conflict, with names alone."""
        context, spec, network = self.context, instance.spec, self.network_of(instance.spec)
        if network is None or instance.address is None:
            return
        try:
            if spec.ports:
                context.networks.publish(spec.id, instance.address, spec.ports)
        finally:
            self.update_names(network)
            context.fleet_networks.changed()

    def network_of(self, spec: Spec) -> Network | None:
        """The bridge the instance is on; None with "none" and "host" and for chroots."""
        if spec.isolation is Isolation.CHROOT or spec.network in ("none", "host"):
            return None
        return self.context.state.network(spec.network_key)

    def update_names(self, network: Network) -> None:
        """Tell the network's name server who is there now."""
        there = [
            (instance.spec, instance.address)
            for instance in self.context.state.instances()
            if instance.address and instance.spec.network_key == network.key
        ]
        names = [
            (name, address)
            for spec, address in there
            for name in (spec.name, spec.id[:12], spec.hostname, *spec.aliases)
        ]
        names += self.context.fleet_networks.presences.names(network)
        askers = [(address, spec.hostname) for spec, address in there if spec.system]
        self.context.networks.set_names(network, names, askers)

    def resize(self, instance: Instance, old: Plan, new: Plan) -> Instance:
        """Enforce another plan on a running instance: all but the network's shape by its driver."""
        context, spec = self.context, instance.spec
        directory = context.bundle_dir(instance)
        if spec.inside:
            inside.resize(context, instance, old, new)
            return instance
        driver, handle = context.driver(instance), bundles.read_handle(directory)
        if handle is None or not isinstance(driver, Resizes):
            raise Refused(f"the plan of a running {spec.isolation} instance cannot be changed", hint="stop it first")
        cpuset = limits.choose_cpuset(new, context.facts, self._cpusets(instance))
        cpusets = {new.cpus: cpuset, old.cpus: instance.cpuset} if new.cpus != old.cpus else {new.cpus: cpuset}

        def host(before: Plan, after: Plan) -> list[Operation]:
            machine = machines.is_machine(spec)
            if machine:
                machines.check_use(context, instance, after)
            else:
                limits.check_use(before, after, limits.read_usage(context.layout, context.config.cgroup, spec.id))
            return limits.update(
                machines.hypervisor_plan(context, before) if machine else before,
                machines.hypervisor_plan(context, after) if machine else after,
                cgroup=context.config.cgroup,
                instance_id=spec.id,
                layout=context.layout,
                facts=context.facts,
                cpuset=cpusets[after.cpus],
                device=context.disks.device(spec.id),
            )

        if machines.is_machine(spec):
            handle = resizing.marked(handle, old, new)
            bundles.write_handle(directory, handle)
        change = Change(old, new, host, limits.guest_update, limits.guest_use(), limits.check_guest_use)
        driver.resize(directory, handle, change)
        link = bundles.read_link(directory)
        if link and new.bandwidth != old.bandwidth:
            context.networks.shape(link, instance.pid, new.bandwidth)
        return instance.model_copy(update={"cpuset": cpuset})

    def release_network(self, instance: Instance) -> Instance:
        """Give back the link, the ports, the name and the address; idempotent."""
        context, spec = self.context, instance.spec
        if spec.ports:
            context.networks.unpublish(spec.id)
        if spec.inside:
            context.networks.dislodge(spec.id)
        self.release_link(instance)
        context.fleet_networks.changed()
        return instance.model_copy(update={"address": None})

    def release_link(self, instance: Instance) -> None:
        """Give back the link and the address alone, which is all that a silent instance has. Idempotent."""
        link = bundles.read_link(self.context.bundle_dir(instance))
        if link:
            self.context.networks.disconnect(link)

    def release_volumes(self, spec: Spec) -> None:
        """Unmount the volumes that no other instance uses, be it that it runs or is being started."""
        if not spec.volumes:
            return
        with self.mounting:
            busy = {
                volume
                for other in self.context.state.instances()
                if (other.pid or other.state is State.STARTING) and other.spec.id != spec.id
                for volume in other.spec.volumes
            }
            for volume in spec.volumes:
                if volume not in busy:
                    self.context.volumes.detach(volume)

    def _resolv_conf(self, instance: Instance) -> str:
        if instance.address:
            servers = (instance.address.gateway4, instance.address.gateway6)
            return "".join(f"nameserver {server}\n" for server in servers) + "search bulkhead\noptions ndots:0\n"
        if instance.spec.network == "none":
            return ""
        try:
            return Path("/etc/resolv.conf").read_text()
        except OSError:
            return ""

    def _hosts(self, instance: Instance) -> str:
        lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
        names = " ".join(dict.fromkeys((instance.spec.hostname, instance.spec.name)))
        if instance.address:
            lines += [f"{instance.address.ipv4}\t{names}", f"{instance.address.ipv6}\t{names}"]
        else:
            lines.append(f"127.0.1.1\t{names}")
        return "\n".join(lines) + "\n"


def _with_tap(bundle: Bundle, tap: str) -> Bundle:
    """A computer of whichever kind, with its end of the network."""
    if bundle.boot:
        return replace(bundle, boot=replace(bundle.boot, tap=tap))
    if bundle.system:
        return replace(bundle, system=replace(bundle.system, tap=tap))
    return replace(bundle, program=replace(bundle.program, tap=tap)) if bundle.program else bundle
