"""A machine's disk becomes an image: a raw file, unpacked and sparse, and a blob of it."""

from __future__ import annotations

import os
from pathlib import Path

from bulkhead.events import Progress
from bulkhead.host import sparse
from bulkhead.images import diskfiles, diskformats, documents, partitions
from bulkhead.images.bounds import check_space
from bulkhead.images.ingest import Ingest
from bulkhead.images.reader import reported
from bulkhead.images.rootfs import host_architecture


def take(ingest: Ingest, fd: int, names: tuple[str, ...], progress: Progress) -> str:
    """Take in a disk file, raw or of another format. Returns the manifest's digest. Raises ImageError.

    The file is copied before it is looked at: what was checked cannot change.
    """
    bounds = ingest.layout.bounds
    with ingest.draft() as (source, copy):
        check_space(copy, bounds, coming=os.fstat(fd).st_blocks * 512)
        sparse.copy_data(fd, copy)
        disk = diskformats.examine(copy, bounds)
        if disk.form == "raw":
            os.ftruncate(copy, disk.size)
            return _add(ingest, source, copy, disk.size, names=names, progress=progress)
        with ingest.draft() as (target, raw):
            diskfiles.convert(disk, source, target, bounds, progress)
            os.fchown(raw, os.geteuid(), os.getegid())
            return _add(ingest, target, raw, disk.size, names=names, progress=progress)


def _add(ingest: Ingest, path: Path, raw: int, size: int, *, names: tuple[str, ...], progress: Progress) -> str:
    partitions.check_whole(raw, size)
    chunks = reported(diskfiles.packed(raw, size), progress, "packing the disk")
    blob = ingest.add_blob(chunks, documents.DISK_TYPE)
    said = {documents.DISK_SIZE: str(size), documents.DISK_FIRMWARE: partitions.firmware(raw)}
    ingest.keep_disk(path, blob)
    return ingest.add_parts(documents.DISK, [blob], names, architecture=host_architecture(), annotations=said)
