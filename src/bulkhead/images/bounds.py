"""How much an image may ask of the host. What goes over a bound is refused with an ImageError that names it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import ImageError
from bulkhead.quantities import format_size


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds for one layer, unless said otherwise. Sizes in bytes."""

    total: int = 64 << 30
    """Uncompressed bytes of the tar, and the same again for the files' sizes (holes count as bytes)."""
    entries: int = 4_000_000
    """Names in the layer, directories that it only implies included."""
    metadata: int = 512 << 20
    """Names, link targets and extended attributes together: they are held in memory."""
    steps: int = 50_000_000
    """Components looked at while the layer's paths are resolved (a path that was seen before costs none)."""
    path: int = 4096
    name: int = 255
    header: int = 1 << 20
    """One pax header, GNU long name or map of a sparse file."""
    xattrs: int = 128 << 10
    """Extended attributes of one file."""
    ratio: int = 1000
    """Uncompressed bytes per compressed byte, beyond `ratio_from` uncompressed bytes."""
    ratio_from: int = 1 << 30
    document: int = 4 << 20
    """One JSON document (index, manifest, config)."""
    members: int = 10_000
    """Entries of an archive that holds images (not of a layer)."""
    layers: int = 127
    """Layers of one image, as many as docker allows."""
    keep_free: int = 256 << 20
    """What an import leaves free on the store's file system."""


def check_space(where: Path | int, bounds: Bounds, coming: int = 0) -> None:
    """Raise ImageError when `coming` more bytes would leave less than `keep_free` where `where` (a path, an fd) is."""
    stat = os.statvfs(where)
    free = stat.f_bavail * stat.f_frsize
    if free - coming < bounds.keep_free:
        raise ImageError(
            f"the image store has {format_size(free)} free: {format_size(coming)} more would leave less than "
            f"{format_size(bounds.keep_free)}",
            hint="make room with `bulkhead image prune`, or move the state directory to a larger disk",
        )


def check_ratio(compressed: int, uncompressed: int, bounds: Bounds) -> None:
    """Raise ImageError when a stream unpacks to far more than any honest layer does."""
    if uncompressed > bounds.total:
        raise ImageError(f"the layer unpacks to more than {format_size(bounds.total)}", hint=BOMB)
    if uncompressed > bounds.ratio_from and uncompressed > compressed * bounds.ratio:
        raise ImageError(f"the layer unpacks to more than {bounds.ratio} times its size: a tar bomb", hint=BOMB)


BOMB = "nothing of it was kept; import the image only if you know who made it"
