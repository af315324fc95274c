"""Volumes: disks that outlive instances."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bulkhead.engine.context import Context
from bulkhead.errors import Conflict
from bulkhead.model import Volume

DEFAULT_SIZE = 5 << 30
"""Bytes of a volume that nobody gave a size."""


class VolumeCatalog:
    """The volumes that have a name."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def list(self) -> Sequence[Volume]:
        """Every volume."""
        return self._context.state.volumes()

    def get(self, name: str) -> Volume:
        """One volume. Raises NotFound."""
        return self._context.state.volume(name)

    def create(self, name: str, *, size: int | None) -> Volume:
        """Make a volume of `size` bytes: one sparse file."""
        context = self._context
        volume = Volume(name=name, size=size or DEFAULT_SIZE, created=time.time())
        context.state.create_volume(volume)
        try:
            context.volumes.create(name, volume.size)
        except BaseException:
            context.state.delete_volume(name)
            raise
        return volume

    def ensure(self, name: str) -> None:
        """Make a volume unless it is there, as `-v NAME:/path` does."""
        if name not in {volume.name for volume in self.list()}:
            self.create(name, size=None)

    def remove(self, name: str) -> None:
        """Remove a volume that no instance names, with its data."""
        context = self._context
        self.get(name)
        users = [
            instance.spec.name
            for instance in context.state.instances()
            if any(mount.kind == "volume" and mount.source == name for mount in instance.spec.mounts)
        ]
        if users:
            raise Conflict(f"volume {name} is used by {', '.join(users)}", hint="remove these instances first")
        context.volumes.delete(name)
        context.state.delete_volume(name)
