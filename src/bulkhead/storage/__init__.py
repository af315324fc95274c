"""Instance disks, layers of images, volumes: what is mounted, and what is behind it."""

from bulkhead.storage.disks import Disks
from bulkhead.storage.layers import Layers
from bulkhead.storage.volumes import Volumes

__all__ = ["Disks", "Layers", "Volumes"]
