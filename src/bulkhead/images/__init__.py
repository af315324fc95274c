"""Images: an OCI layout as the store, layers as EROFS files, imports, bootstraps."""

from bulkhead.images.bounds import Bounds
from bulkhead.images.config import Blob, Disk, Image, ImageConfig, Layer, Unikernel
from bulkhead.images.store import ImageStore
from bulkhead.images.sweep import Pruned

__all__ = ["Blob", "Bounds", "Disk", "Image", "ImageConfig", "ImageStore", "Layer", "Pruned", "Unikernel"]
