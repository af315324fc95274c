"""An image of the store on its way to a registry: what is not there yet is given away, the manifest last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from bulkhead.events import Progress, Step
from bulkhead.images.archive import open_file
from bulkhead.images.documents import Descriptor, Manifest
from bulkhead.images.layout import Layout
from bulkhead.images.reader import file_chunks
from bulkhead.images.registry.client import Repository
from bulkhead.images.registry.conf import Source

AT_ONCE = 4
_TICK = 0.2


@dataclass(frozen=True, slots=True)
class Parcel:
    """A blob that is to be at the registry, and how its bytes are read."""

    descriptor: Descriptor
    chunks: Callable[[ExitStack], Iterator[bytes]]
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


def parcels(layout: Layout, manifest: Manifest, likely: Callable[[str], Sequence[str]]) -> list[Parcel]:
    """The config and the layers of an image as they are in the store; `likely` tells where else a blob may be."""
    found = {blob.digest: blob for blob in (*manifest.layers, manifest.config)}
    return [Parcel(blob, partial(_stored, layout, digest), tuple(likely(digest))) for digest, blob in found.items()]


def _stored(layout: Layout, digest: str, stack: ExitStack) -> Iterator[bytes]:
    return file_chunks(open_file(layout.blob_path(digest), stack))


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
    for source in parcel.mount_from:
        if repository.mount(blob.digest, source):
            with count.lock:
                count.mounted += 1
                count.done += blob.size
            return
    with ExitStack() as stack:
        repository.upload(blob, _counted(parcel.chunks(stack), count))


def _counted(chunks: Iterator[bytes], count: _Count) -> Iterator[bytes]:
    for chunk in chunks:
        if count.given_up:
            raise InterruptedError("the push was given up")
        with count.lock:
            count.moved += len(chunk)
            count.done += len(chunk)
        yield chunk
