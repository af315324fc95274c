"""An image of the store on its way to a registry: what is not there yet is given away, the manifest last."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import Unavailable
from bulkhead.events import Progress, Step
from bulkhead.images.archive import open_file
from bulkhead.images.documents import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, dump
from bulkhead.images.packing import Packer, is_packed
from bulkhead.images.reader import file_chunks
from bulkhead.images.registry.client import Repository
from bulkhead.images.registry.conf import Source

AT_ONCE = 4
_TICK = 0.2


@dataclass(frozen=True, slots=True)
class Packed:
    """A blob and the file that has its bytes."""

    descriptor: Descriptor
    path: Path | None
    """None: the registry is known to have it."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A blob that is to be at the registry."""

    descriptor: Descriptor
    path: Path | None
    mount_from: tuple[str, ...] = ()
    """Repositories of the same registry that are likely to have it."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A manifest and where it goes."""

    source: Source
    manifest: bytes
    media_type: str
    digest: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of a push."""

    name: str
    digest: str
    moved: int
    """Bytes of blobs that were sent."""
    mounted: int
    """Blobs that another repository of the registry had."""
    known: int
    """Blobs that were there already."""


class _Count:
    def __init__(self) -> None:
        self.moved = self.mounted = self.known = self.done = 0
        self.lock = threading.Lock()
        self.given_up = False


@dataclass(frozen=True, slots=True)
class Packing:
    """Brings layers into the compression that they are pushed in."""

    packer: Packer
    repository: Repository
    directory: Path
    form: str

    def pack(self, layers: Sequence[Descriptor], diff_ids: Sequence[str], progress: Progress) -> list[Packed]:
        """All of them, several at a time. What the registry has already is not made again."""
        done, total = 0, sum(layer.size for layer in layers)
        with ThreadPoolExecutor(os.cpu_count() or 1, "pack") as pool:
            rows = zip(layers, diff_ids, strict=True)
            futures = [pool.submit(self._pack, number, *row) for number, row in enumerate(rows)]
            try:
                for future, layer in zip(futures, layers, strict=True):
                    while not future.done():
                        progress(Step(f"compressing {len(layers)} layers ({self.form})", done, total, "bytes"))
                        wait([future], timeout=_TICK)
                    done += layer.size
                return [future.result() for future in futures]
            finally:
                pool.shutdown(cancel_futures=True)

    def _pack(self, number: int, layer: Descriptor, diff_id: str) -> Packed:
        if is_packed(layer, self.form):
            return Packed(layer, self.packer.blob_path(layer))
        known = self.packer.known(diff_id, self.form)
        if known and self.repository.has_blob(known.digest):
            return Packed(known, None)
        path = self.directory / f"packed-{number}"
        return Packed(self.packer.pack(layer, diff_id, self.form, path), path)


def packed_manifest(manifest: bytes, layers: Sequence[Descriptor]) -> bytes:
    """The manifest of an image with other layers in the place of its own; what else it says stays."""
    said = json.loads(manifest)
    said["mediaType"] = OCI_MANIFEST
    said["config"]["mediaType"] = OCI_CONFIG
    said["layers"] = [_as_json(layer) for layer in layers]
    return dump(said)


def _as_json(layer: Descriptor) -> dict[str, object]:
    ending = layer.media_type[-4:]
    suffix = f"+{ending}" if ending in ("gzip", "zstd") else ""
    found: dict[str, object] = {"mediaType": OCI_LAYER + suffix, "digest": layer.digest, "size": layer.size}
    return {**found, "annotations": dict(layer.annotations)} if layer.annotations else found


def push(repository: Repository, letter: Letter, parcels: Sequence[Parcel], progress: Progress) -> Pushed:
    """Send blobs, some at a time, then the manifest. Raises Refused, Unavailable."""
    count, total = _Count(), sum(parcel.descriptor.size for parcel in parcels)
    with ExitStack() as stack:
        pool = ThreadPoolExecutor(AT_ONCE, "upload")
        stack.callback(pool.shutdown, cancel_futures=True)
        stack.callback(setattr, count, "given_up", True)
        left: set[Future[None]] = {pool.submit(_send, repository, parcel, count) for parcel in parcels}
        while left:
            done, left = wait(left, timeout=_TICK, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            progress(Step(f"pushing {len(parcels)} blobs", count.done, total, "bytes"))
    progress(Step("writing the manifest"))
    repository.put_manifest(letter.source.reference, letter.manifest, letter.media_type)
    return Pushed(letter.source.name, letter.digest, count.moved, count.mounted, count.known)


def _send(repository: Repository, parcel: Parcel, count: _Count) -> None:
    blob = parcel.descriptor
    if repository.has_blob(blob.digest):
        with count.lock:
            count.known += 1
            count.done += blob.size
        return
    if parcel.path is None:
        raise Unavailable(f"blob {blob.digest} has just gone from {repository}", hint="push again")
    for source in parcel.mount_from:
        if repository.mount(blob.digest, source):
            with count.lock:
                count.mounted += 1
                count.done += blob.size
            return
    with ExitStack() as stack:
        repository.upload(blob, _counted(file_chunks(open_file(parcel.path, stack)), count))


def _counted(chunks: Iterator[bytes], count: _Count) -> Iterator[bytes]:
    for chunk in chunks:
        if count.given_up:
            raise InterruptedError("the push was given up")
        with count.lock:
            count.moved += len(chunk)
            count.done += len(chunk)
        yield chunk
