"""Guests kept warm: restored from a template and rehearsed in the background, for the next that is run like the last.

One is a bundle among the others, without a record, under the id that its instance will have: so its range of uids, its
cgroups and its place on a network are that instance's from the first, and after a crash it is found and ended as any
bundle without a record is. Nothing of a tenant is in it until an instance takes it (docs/design/0009).
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from bulkhead import limits
from bulkhead.boot import rehearsal
from bulkhead.config import Config
from bulkhead.engine import bundles
from bulkhead.engine.hypervisor import Hypervisor
from bulkhead.engine.kernels import ReadyKernel
from bulkhead.engine.templating import MachineTemplates
from bulkhead.errors import BulkheadError
from bulkhead.host import processes
from bulkhead.isolation.base import Boot, Bundle, Handle, Room, Saved
from bulkhead.isolation.vm import VmDriver
from bulkhead.model import Isolation, Plan, Spec
from bulkhead.network import Connection, Networks
from bulkhead.storage.disks import Disks
from bulkhead.store import State

log = logging.getLogger(__name__)
QUIET_SECONDS = 0.3
"""How long nothing may have been run before the next is made: it takes a core for most of a second."""
RETRY_SECONDS = 300.0
_HOSTS = "127.0.0.1\tlocalhost\n"


@dataclass(frozen=True, slots=True)
class WarmKey:
    """What must be the same for an instance to go on in a guest that is warm."""

    kernel: str
    """The image's digest."""
    memory: int
    cpus: float
    room: Room
    disk: int
    """Bytes: what a hypervisor may write is limited when it starts."""
    layers: int
    """How many; which they are does not matter."""
    network: str
    """Its name; "" for none."""
    inner: int = 0
    """Instances that it can hold."""
    cpu_model: str = ""
    """One of QEMU's processors; "": all that there is."""


@dataclass(frozen=True, slots=True)
class WarmGuest:
    """One that waits. Its place on the network is the holder's to give back."""

    key: WarmKey
    bundle: Bundle
    handle: Handle
    connection: Connection | None

    @property
    def id(self) -> str:
        """Its own, and that of the instance to come."""
        return self.bundle.spec.id

    @property
    def tap(self) -> str:
        """The name of its tap; "" without a network."""
        return self.bundle.boot.tap if self.bundle.boot else ""

    def is_there(self) -> bool:
        """Whether nobody has ended it."""
        return processes.start_time(self.handle.supervisor_pid) == self.handle.supervisor_started


class WarmGuests:
    """At most one for each key, those that were wanted last, together with no more than `config.warm_memory` bytes."""

    def __init__(
        self,
        config: Config,
        *,
        hypervisor: Hypervisor,
        templates: MachineTemplates,
        driver: VmDriver,
        hold: Callable[[Plan, str], limits.LimitProgram],
        networks: Networks,
        disks: Disks,
        state: State,
    ) -> None:
        self._config = config
        self._hypervisor = hypervisor
        self._templates = templates
        self._driver = driver
        self._hold = hold
        """What holds a hypervisor of a plan, by instance id."""
        self._networks = networks
        self._disks = disks
        self._state = state
        self._wanted: dict[WarmKey, ReadyKernel] = {}
        """The last one is at the end."""
        self._ready: dict[WarmKey, WarmGuest] = {}
        self._claimed: dict[str, WarmGuest] = {}
        self._failed: dict[WarmKey, float] = {}
        self._asked = 0.0
        self._changed = threading.Condition()
        self._making: WarmKey | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    # --- for an instance

    def claim(self, spec: Spec, kernel: ReadyKernel, room: Room, *, layers: int, networked: bool) -> Spec:
        """`spec` under the id of a guest that is warm for it, or as it is; another is made soon."""
        if spec.cold or spec.mounts or spec.plan.memory > self._config.warm_memory:
            return spec
        network = spec.network_key if networked else ""
        plan = spec.plan
        key = WarmKey(
            kernel.digest, plan.memory, plan.cpus, room, plan.disk, layers, network, spec.inner, spec.cpu_model
        )
        with self._changed:
            found = self._ready.pop(key, None)
            if found:
                self._claimed[found.id] = found
            self._want(key, kernel)
        if found and not found.is_there():
            self.abandon(found.id)
            found = None
        if found is None:
            return spec
        hostname = found.id[:12] if spec.hostname == spec.id[:12] else spec.hostname
        return spec.model_copy(update={"id": found.id, "hostname": hostname})

    def is_claimed(self, instance_id: str) -> bool:
        """Whether an instance has one that it has not taken yet."""
        return instance_id in self._claimed

    def take(self, instance_id: str) -> WarmGuest | None:
        """The guest of an instance, which is the caller's to end from here on."""
        with self._changed:
            return self._claimed.pop(instance_id, None)

    def release(self, instance_id: str) -> None:
        """End the guest that an instance has claimed and not taken; idempotent. The record keeps its leases."""
        guest = self.take(instance_id)
        if guest:
            self._end(guest)

    def abandon(self, instance_id: str) -> None:
        """The same for one that has claimed it and has no record."""
        guest = self.take(instance_id)
        if guest:
            self._drop(guest)

    def forget_network(self, name: str) -> None:
        """End those on a network that is going to be removed."""
        with self._changed:
            self._wanted = {key: kernel for key, kernel in self._wanted.items() if key.network != name}
            self._changed.wait_for(lambda: self._making is None or self._making.network != name)
            ended = [self._ready.pop(key) for key in list(self._ready) if key.network == name]
        for guest in ended:
            self._drop(guest)

    def settle(self) -> None:
        """Wait until those that are wanted have been made, or have failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None)

    def close(self) -> None:
        """End all that wait, and make no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._thread is None)
            ended = [*self._ready.values(), *self._claimed.values()]
            self._ready.clear()
            self._claimed.clear()
        for guest in ended:
            self._drop(guest)

    # --- in the background

    def _want(self, key: WarmKey, kernel: ReadyKernel) -> None:
        """The caller holds the lock."""
        self._asked = time.monotonic()
        self._wanted.pop(key, None)
        self._wanted[key] = kernel
        while sum(each.memory for each in self._wanted) > self._config.warm_memory:
            self._wanted.pop(next(iter(self._wanted)))
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._work, name="warm-guests", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (key := self._next()) is not None:
            guest = None
            try:
                guest = self._make(key, self._wanted_kernel(key))
            except Exception as error:
                self._failed[key] = time.monotonic()
                log.warning("no guest could be kept warm, starts take a template: %s", error)
            with self._changed:
                self._making = None
                if guest and key in self._wanted and not self._closed:
                    self._ready[key] = guest
                    guest = None
                self._changed.notify_all()
            if guest:
                self._drop(guest)

    def _next(self) -> WarmKey | None:
        """What to make now; None: nothing more. Those that nobody has wanted for long have ended by then."""
        while True:
            with self._changed:
                unwanted = [self._ready.pop(key) for key in list(self._ready) if key not in self._wanted]
                missing = [key for key in reversed(self._wanted) if key not in self._ready and self._may_try(key)]
                left = self._asked + QUIET_SECONDS - time.monotonic()
                if not unwanted and (self._closed or not missing):
                    self._thread = None
                    self._changed.notify_all()
                    return None
                if not unwanted and left <= 0:
                    self._making = missing[0]
                    return missing[0]
                if not unwanted:
                    self._changed.wait(left)
            for guest in unwanted:
                self._drop(guest)

    def _may_try(self, key: WarmKey) -> bool:
        return time.monotonic() - self._failed.get(key, -RETRY_SECONDS) >= RETRY_SECONDS

    def _wanted_kernel(self, key: WarmKey) -> ReadyKernel:
        with self._changed:
            return self._wanted[key]

    def _make(self, key: WarmKey, kernel: ReadyKernel) -> WarmGuest | None:
        """None where there is no template: it has failed, and was told of."""
        began, identifier = time.monotonic(), secrets.token_hex(16)
        plan = Plan(memory=key.memory, cpus=key.cpus, disk=key.disk)
        slots, saved = self._template(kernel, plan, key)
        if saved is None:
            return None
        with ExitStack() as always, ExitStack() as undo:
            always.callback(os.close, saved.ram)
            directory = self._config.instances_dir / identifier
            directory.mkdir(mode=0o700)
            undo.callback(bundles.remove, directory)
            uids = self._state.lease_uid_range(identifier)
            undo.callback(self._state.remove, identifier)
            connection, tap = self._connect(key, identifier, uids, undo)
            disk = directory / "rehearsal.img"
            self._disks.create(identifier, disk, key.disk, mount=False)
            held = self._hold(plan, identifier)
            bundle = Bundle(
                directory=directory,
                spec=_spec(identifier, plan, key.cpu_model),
                limits=held.counting(connection.link) if connection else held,
                netns_fd=connection.netns_fd if connection else None,
                uid_start=uids,
                address=connection.address if connection else None,
                resolv_conf="\n",
                hosts=_HOSTS,
                boot=Boot(
                    vmm=self._hypervisor.root(),
                    kernel=kernel.elf,
                    initrd=kernel.initrd,
                    disk=disk,
                    layers=(rehearsal.layer(self._config.cache_dir),) * key.layers,
                    accelerator=self._hypervisor.accelerator(),
                    tap=tap,
                    guest_limits=limits.guest_program(plan),
                    slots=slots,
                    saved=saved,
                    kernel_digest=kernel.digest,
                    room=key.room,
                    inner=key.inner,
                    largest=self._state.plan(self._config.default_plan).plan.disk if key.inner else 0,
                    rehearsal=True,
                ),
            )
            handle = self._driver.warm(bundle)
            disk.unlink()
            undo.pop_all()
        log.info("a guest of %d MiB is warm after %.1f s", key.memory >> 20, time.monotonic() - began)
        return WarmGuest(key, bundle, handle, connection)

    def _template(self, kernel: ReadyKernel, plan: Plan, key: WarmKey) -> tuple[int, Saved | None]:
        find = partial(self._templates.find, kernel, plan, key.room, disks=1 + key.layers)
        find = partial(find, inner=key.inner, networked=bool(key.network), cpu_model=key.cpu_model)
        slots, saved = find()
        if saved is None:
            self._templates.settle()
            slots, saved = find()
        return slots, saved

    def _connect(self, key: WarmKey, identifier: str, uids: int, undo: ExitStack) -> tuple[Connection | None, str]:
        if not key.network:
            return None, ""
        taken = {instance.address.ipv4 for instance in self._state.instances() if instance.address}
        network = self._state.network(key.network)
        connection = self._networks.connect(network, instance_id=identifier, taken=taken, bandwidth=None)
        undo.callback(os.close, connection.netns_fd)
        undo.callback(self._networks.disconnect, connection.link)
        return connection, self._networks.add_tap(connection.netns_fd, connection.address, owner=uids)

    def _end(self, guest: WarmGuest) -> None:
        self._driver.delete(guest.bundle.directory, guest.id)
        if guest.connection:
            self._networks.disconnect(guest.connection.link)
            os.close(guest.connection.netns_fd)

    def _drop(self, guest: WarmGuest) -> None:
        """One that no instance has claimed."""
        try:
            self._end(guest)
        except BulkheadError as error:  # the next recovery finds it by its bundle
            log.warning("guest %s does not end: %s", guest.id[:12], error)
            return
        self._state.remove(guest.id)
        bundles.remove(guest.bundle.directory)


def _spec(identifier: str, plan: Plan, cpu_model: str) -> Spec:
    """What is rehearsed."""
    return Spec(
        id=identifier,
        name="warm",
        image="",
        image_digest="",
        isolation=Isolation.VM,
        plan=plan,
        argv=(rehearsal.PROGRAM,),
        cpu_model=cpu_model,
        hostname=identifier[:12],
        network="none",
        created=time.time(),
    )
