"""An image of a registry on its way into the store: its manifest is chosen, its blobs come, layers are unpacked as
they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from bulkhead.errors import ImageError, Refused
from bulkhead.events import Progress, Step
from bulkhead.images import documents, patching, platforms
from bulkhead.images.archive import Part, Piece, open_file
from bulkhead.images.bounds import Bounds, check_space
from bulkhead.images.documents import Descriptor, Index, Manifest, Platform
from bulkhead.images.importer import OciImage, Request, choose
from bulkhead.images.ingest import Ingest
from bulkhead.images.layout import Layout
from bulkhead.images.registry.client import Fetched, Repository
from bulkhead.images.registry.fetch import Download, Downloads

_MAX_NESTED = 3
_BLOBS = "blobs/sha256/"


@dataclass(frozen=True, slots=True)
class Resolved:
    """The image that a name means on a platform."""

    manifest: Descriptor
    data: bytes
    parsed: Manifest
    platform: Platform | None
    """What was asked for, where something was."""


def parse_platform(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/386`, or an architecture alone, in Go's words. Raises Refused."""
    parts = text.split("/")
    if len(parts) == 1:
        parts = ["linux", *parts]
    if len(parts) > 3 or not all(part.isascii() and part.isalnum() for part in parts):
        raise Refused(f"platform {text!r} is none", hint="such as linux/amd64, linux/arm64 or linux/arm/v7")
    if parts[0] != "linux":
        raise Refused(f"platform {text!r}: images for {parts[0]} cannot be run here", hint="such as linux/amd64")
    return Platform(os=parts[0], architecture=parts[1], variant="".join(parts[2:]))


def resolve(repository: Repository, wanted: str, platform: Platform | None, bounds: Bounds) -> Resolved:
    """Ask for the manifest of a tag or digest; of a list the platform's, None: this host's. Raises NotFound, ..."""
    found = repository.manifest(wanted, most=bounds.document)
    for _ in range(_MAX_NESTED):
        if _type_of(found) not in documents.INDEX_TYPES:
            break
        index = documents.read(Index, found.data, f"index {found.digest}", bounds)
        chosen = choose(index, platform)
        found = repository.manifest(chosen.digest, most=bounds.document)
        if len(found.data) != chosen.size:
            raise ImageError(f"manifest {chosen.digest} has {len(found.data)} bytes, {chosen.size} were promised")
    kind = _type_of(found)
    if kind not in documents.MANIFEST_TYPES:
        raise ImageError(f"{repository}: {wanted} is of type {kind[:80]!r}, which is no image's")
    parsed = documents.read(Manifest, found.data, f"manifest {found.digest}", bounds)
    descriptor = Descriptor(media_type=kind, digest=found.digest, size=len(found.data))
    return Resolved(descriptor, found.data, parsed, platform)


def platforms_of(repository: Repository, wanted: str, bounds: Bounds) -> list[Platform]:
    """The platforms of a list; none where a tag or digest means one image. Raises NotFound, ImageError."""
    found = repository.manifest(wanted, most=bounds.document)
    if _type_of(found) not in documents.INDEX_TYPES:
        return []
    index = documents.read(Index, found.data, f"index {found.digest}", bounds)
    return [entry.platform for entry in platforms.entries(index) if entry.platform]


def _type_of(found: Fetched) -> str:
    """What a document is: what it says itself counts, since its digest covers that."""
    try:
        said = documents.read(_Typed, found.data, "the manifest", Bounds())
    except ImageError:
        return found.media_type
    if said.media_type:
        return said.media_type
    if found.media_type in (*documents.INDEX_TYPES, *documents.MANIFEST_TYPES):
        return found.media_type
    return documents.OCI_INDEX if said.manifests is not None else documents.OCI_MANIFEST


class _Typed(documents.Document):
    media_type: documents.Line = Field(default="", alias="mediaType")
    manifests: object = None


def take(
    into: Ingest, repository: Repository, found: Resolved, downloads: Downloads, request: Request, *, patch: bool
) -> str:
    """Let an image come and take it in; with `patch` what the store's layers have of it is taken from there.

    Returns its digest. Raises ImageError, Unavailable.
    """
    layout = into.layout
    missing = [blob for blob in found.parsed.layers if not _is_there(layout, blob)]
    if len(found.parsed.layers) > layout.bounds.layers:
        raise ImageError(f"the image has {len(found.parsed.layers)} layers, at most {layout.bounds.layers} are allowed")
    coming = sum(blob.size for blob in missing)
    into.share.expect(sum(blob.size for blob in found.parsed.layers), new=coming)
    check_space(layout.root, layout.bounds, coming=coming)
    with ExitStack() as stack:
        config = found.parsed.config
        if config.size > layout.bounds.document:
            raise ImageError(f"config {config.digest} has {config.size} bytes")
        known = {found.manifest.digest: found.data, config.digest: b"".join(repository.blob(config))}
        archive = _Remote(layout, known, downloads, stack)
        said = documents.read(Platform, known[config.digest], "the config", layout.bounds)
        check_platform(said.architecture, found.platform)
        downloads.begin(missing, lambda download: _fill(repository, download, layout if patch else None))
        into.share.settle()  # now that what it goes on with is its own
        try:
            return OciImage(into, archive, request).take(found.manifest, request.names)
        except Refused:
            # It is more than its tenant may have: what has come is not kept for another time.
            for blob in missing:
                downloads.discard(blob.digest)
            raise
        except ImageError:
            # What has come may be what is wrong: nothing of it is believed another time.
            for blob in missing:
                download = downloads.all[blob.digest]
                if download.resumed or download.have == blob.size:
                    downloads.discard(blob.digest)
            raise


def _fill(repository: Repository, download: Download, layout: Layout | None) -> None:
    if layout and patching.fill(repository, download, layout):
        return
    for chunk in repository.blob(download.descriptor, download.have):
        download.append(chunk)


def _is_there(layout: Layout, blob: Descriptor) -> bool:
    return layout.may_reuse(layout.blob_path(blob.digest), size=blob.size)


def check_platform(architecture: str, wanted: Platform | None) -> None:
    """Raise ImageError where one platform was asked for, and the one manifest that there is is for another."""
    if wanted and architecture != wanted.architecture:
        raise ImageError(f"the image is for {architecture[:40]}, not for {wanted}")


@dataclass(frozen=True, slots=True)
class _Document:
    """A part that is in memory."""

    data: bytes
    file: Path | None = None

    @property
    def size(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        yield self.data

    def read(self, bounds: Bounds, what: str) -> bytes:
        if len(self.data) > bounds.document:
            raise ImageError(f"{what} has {len(self.data)} bytes, at most {bounds.document} are allowed")
        return self.data


@dataclass(frozen=True, slots=True)
class _Coming:
    """A part that is on its way."""

    download: Download
    downloads: Downloads

    @property
    def size(self) -> int:
        return self.download.descriptor.size

    @property
    def file(self) -> Path | None:
        return self.download.path

    def chunks(self) -> Iterator[bytes]:
        return self.download.chunks(self.downloads.tick)

    def read(self, bounds: Bounds, what: str) -> bytes:
        if self.size > bounds.document:
            raise ImageError(f"{what} has {self.size} bytes, at most {bounds.document} are allowed")
        return b"".join(self.chunks())


class _Remote:
    """An image of a registry in the shape of an archive."""

    def __init__(self, layout: Layout, known: dict[str, bytes], downloads: Downloads, stack: ExitStack) -> None:
        self._layout, self._known, self._downloads, self._stack = layout, known, downloads, stack

    def part(self, name: str) -> Piece | None:
        """One part: a document, a blob on its way, or one that the store has."""
        digest = "sha256:" + name.removeprefix(_BLOBS)
        if digest in self._known:
            return _Document(self._known[digest])
        if digest in self._downloads.all:
            return _Coming(self._downloads.all[digest], self._downloads)
        path = self._layout.blob_path(digest)
        if not path.exists():
            return None
        return Part(open_file(path, self._stack), 0, path.stat().st_size)


def notes_of(progress: Progress) -> Progress:
    """Pass on remarks alone: how far a pull is its downloads tell."""

    def tell(step: Step) -> None:
        if not step.total:
            progress(step)

    return tell
