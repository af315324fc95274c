"""Volumes: disks that outlive instances."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bulkhead.amounts import Amounts
from bulkhead.engine import keeping, quotas, selling
from bulkhead.engine.context import Context
from bulkhead.errors import Conflict
from bulkhead.model import DEFAULT_TENANT, Volume
from bulkhead.tenancy import acting
from bulkhead.tenancy.quotas import Used

DEFAULT_SIZE = 5 << 30
"""Bytes of a volume that nobody gave a size."""


class VolumeCatalog:
    """The volumes that have a name."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def list(self, *, tenant: str | None = None) -> Sequence[Volume]:
        """Every volume, or those of a tenant."""
        return self._context.state.volumes(tenant)

    def get(self, name: str, *, tenant: str | None = None) -> Volume:
        """One volume: of a tenant by its name, else by `Volume.key`. Raises NotFound."""
        return self._context.state.volume(name, tenant=tenant)

    def create(self, name: str, *, size: int | None, tenant: str | None = None) -> Volume:
        """Make a volume of `size` bytes: one sparse file. Raises NotFound for a strange tenant."""
        acting.touched("volume", name)
        context, tenant = self._context, tenant or DEFAULT_TENANT
        volume = Volume(name=name, tenant=tenant, size=size or DEFAULT_SIZE, created=time.time())
        with context.state.atomic():
            quotas.admit(context, tenant, Used(volumes=1, disk=volume.size))
            selling.require_room(context, Amounts(disk=volume.size))
            context.state.create_volume(volume)
        try:
            context.volumes.create(volume.key, volume.size)
        except BaseException:
            context.state.delete_volume(volume.key)
            raise
        return volume

    def ensure(self, name: str, *, tenant: str = DEFAULT_TENANT) -> None:
        """Make a volume unless it is there, as `-v NAME:/path` does."""
        if name not in {volume.name for volume in self.list(tenant=tenant)}:
            self.create(name, size=None, tenant=tenant)

    def remove(self, name: str, *, tenant: str | None = None) -> None:
        """Remove a volume that no instance names, with its data."""
        context = self._context
        volume = self.get(name, tenant=tenant)
        key = volume.key
        users = [instance.spec.name for instance in context.state.instances() if key in instance.spec.volumes]
        if users:
            raise Conflict(f"volume {name} is used by {', '.join(users)}", hint="remove these instances first")
        context.ledger.record([keeping.of_volume(context, volume)])
        context.volumes.delete(key)
        context.state.delete_volume(key)
        context.ledger.end(keeping.volume_id(volume))
