"""What every part of the engine works with: the one place where the parts below it meet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bulkhead.amounts import Amounts
from bulkhead.config import Config
from bulkhead.engine.builds.holds import Holds
from bulkhead.engine.fleet.overlays import FleetNetworks
from bulkhead.engine.fleet.places import Places
from bulkhead.engine.hypervisor import Hypervisor
from bulkhead.engine.journal import Journal
from bulkhead.engine.scales import Scales
from bulkhead.engine.templating import MachineTemplates
from bulkhead.engine.warming import WarmGuests
from bulkhead.host.cgroups import Layout
from bulkhead.host.facts import HostFacts
from bulkhead.host.lxcfs import Lxcfs
from bulkhead.images import ImageStore
from bulkhead.isolation.base import Driver
from bulkhead.metering.ledger import Ledger
from bulkhead.model import DEFAULT_TENANT, Instance, Isolation, Spec
from bulkhead.network import Networks
from bulkhead.storage.disks import Disks
from bulkhead.storage.layers import Layers
from bulkhead.storage.secrets import SecretFiles
from bulkhead.storage.volumes import Volumes
from bulkhead.store import State


class Locks:
    """One lock per instance, made when first wanted and dropped with its last holder."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.RLock, int]] = {}

    @contextmanager
    def hold(self, instance_id: str) -> Iterator[None]:
        """Be the only one who changes this instance. The same thread may hold it several times."""
        with self._guard:
            lock, users = self._locks.get(instance_id, (threading.RLock(), 0))
            self._locks[instance_id] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._locks[instance_id]
                if users == 1:
                    del self._locks[instance_id]
                else:
                    self._locks[instance_id] = (lock, users - 1)


@dataclass(frozen=True, slots=True)
class Context:
    """The parts, made once by `build_engine`."""

    config: Config
    facts: HostFacts
    layout: Layout
    state: State
    scales: Scales
    images: ImageStore
    disks: Disks
    layers: Layers
    volumes: Volumes
    secrets: SecretFiles
    networks: Networks
    lxcfs: Lxcfs
    hypervisor: Hypervisor
    templates: MachineTemplates
    warm: WarmGuests
    drivers: Mapping[Isolation, Driver]
    systems: Driver
    """Of unmodified operating systems, which are VMs as well."""
    inner: Mapping[Isolation, Driver]
    """Of instances within VMs, by what they are in there."""
    journal: Journal
    ledger: Ledger
    places: Places
    """What is where in the fleet, where this host is in one."""
    fleet_networks: FleetNetworks
    """The networks that all hosts of it have."""
    locks: Locks = field(default_factory=Locks)
    building: Holds = field(default_factory=Holds)
    """What builds that are under way need."""
    coming: list[Callable[[], Amounts]] = field(default_factory=list)
    """What is taken by what has no record yet."""
    tenant: str = DEFAULT_TENANT
    """Whose images these are, and whose what is made with them is; see `seen_by`."""

    whole: ImageStore | None = None
    """All images, where `images` are a tenant's."""

    def seen_by(self, tenant: str) -> Context:
        """The same parts with the images as a tenant sees them."""
        images = self.images.seen_by(tenant, self.state.public_images)
        return replace(self, images=images, whole=self.images, tenant=tenant)

    @property
    def all_images(self) -> ImageStore:
        """Everybody's images."""
        return self.whole or self.images

    def bundle_dir(self, instance: Instance | str) -> Path:
        """The instance's directory."""
        return self.config.instances_dir / (instance if isinstance(instance, str) else instance.spec.id)

    def driver(self, instance: Instance) -> Driver:
        """The driver of the instance's level."""
        return self.driver_of(instance.spec)

    def driver_of(self, spec: Spec) -> Driver:
        """The driver that runs such an instance."""
        if spec.inside:
            return self.inner[spec.isolation]
        return self.systems if spec.system else self.drivers[spec.isolation]
