"""What is imported, told apart and taken in: OCI archives and directories, docker archives, root file systems."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bulkhead.errors import ImageError, Refused
from bulkhead.events import Progress, Step
from bulkhead.images import compression, diskfiles, diskformats, diskimport, documents, platforms, reference, unikernels
from bulkhead.images.archive import Archive, Piece, TarArchive, holds_images, plain_reader
from bulkhead.images.bounds import check_space
from bulkhead.images.changes import changed
from bulkhead.images.config import ImageConfig, read_config, read_created, read_disk
from bulkhead.images.documents import CONTAINERD_NAME, REF_NAME, ConfigFile, Descriptor, Index, Manifest, Platform
from bulkhead.images.ingest import Ingest
from bulkhead.images.layer import Unpacked
from bulkhead.images.reader import Reader, file_chunks, reported, write_all
from bulkhead.images.rootfs import add_rootfs, host_architecture

_NOT_IN_OCI = ("xz", "bzip2")
"""Compressions that an OCI layer cannot have: such layers are stored as plain tars."""
_MAX_NESTED = 3
_HEX = re.compile(r"(?:^|[/:])([0-9a-f]{64})(?:\.json)?$")


@dataclass(frozen=True, slots=True)
class Request:
    """What is to become of a file. `names` replace those that an archive holds."""

    names: tuple[str, ...]
    changes: Sequence[str]
    progress: Progress
    source: str
    """What the file is called, for the image's history."""
    all_platforms: bool = False
    """Of a list take in every image, not this host's alone."""


def import_fd(ingest: Ingest, fd: int, request: Request) -> str:
    """Take in a regular file of any kind. Returns the digest of its (first) image."""
    bounds = ingest.layout.bounds
    size = os.fstat(fd).st_size
    ingest.share.expect(0, new=os.fstat(fd).st_blocks * 512)
    check_space(ingest.layout.root, bounds, coming=2 * size)
    kind, first = compression.sniff(file_chunks(fd))
    if found := _disk(ingest, fd, kind, request):
        return found
    looked_at = Reader(compression.unpack(kind, first, bounds)) if kind else plain_reader(fd)
    if not holds_images(looked_at, bounds):
        chunks = reported(file_chunks(fd), request.progress, "reading the root file system", size)
        return add_rootfs(
            ingest,
            compression.unpack(kind, chunks, bounds) if kind in _NOT_IN_OCI else chunks,
            names=request.names,
            config=changed(ImageConfig(), request.changes),
            source=request.source,
            progress=request.progress,
        )
    if not kind:
        return import_archive(ingest, TarArchive(fd, bounds), request)
    with ingest.draft() as (_, plain):
        chunks = reported(file_chunks(fd), request.progress, "uncompressing the archive", size)
        for chunk in compression.unpack(kind, chunks, bounds):
            write_all(plain, chunk)
        return import_archive(ingest, TarArchive(plain, bounds), request)


def _disk(ingest: Ingest, fd: int, compressed: str, request: Request) -> str | None:
    """Take in a machine's disk, compressed or not; None when the file is something else."""
    bounds = ingest.layout.bounds

    def plain() -> Iterator[bytes]:
        return compression.unpack(compressed, file_chunks(fd), replace(bounds, ratio=diskfiles.RATIO))

    head = b""
    for chunk in plain():
        head += chunk
        if len(head) >= diskformats.HEAD:
            break
    if not diskformats.is_disk(head[: diskformats.HEAD]):
        return None
    if request.changes:
        raise Refused("changes apply to a root file system only, and this is a disk")
    if not compressed:
        return diskimport.take(ingest, fd, request.names, request.progress)
    with ingest.draft() as (_, draft):
        chunks = reported(plain(), request.progress, "uncompressing the disk")
        diskfiles.write(chunks, draft, bounds)
        return diskimport.take(ingest, draft, request.names, request.progress)


def import_archive(ingest: Ingest, archive: Archive, request: Request) -> str:
    """Take in every image of an archive. Returns the digest of the first."""
    if request.changes:
        raise Refused("changes apply to a root file system only, and this is an archive of images")
    if part := archive.part("index.json"):
        index = documents.read(Index, part.read(ingest.layout.bounds, "index.json"), "index.json", ingest.layout.bounds)
        found = [(descriptor, _names(descriptor, request)) for descriptor in index.manifests]
        digests = [OciImage(ingest, archive, request).take(*image) for image in _grouped(found, request)]
    elif part := archive.part("manifest.json"):
        data = part.read(ingest.layout.bounds, "manifest.json")
        images = documents.read(documents.DOCKER_IMAGES, data, "manifest.json", ingest.layout.bounds)
        _one_for_names(len(images), request)
        digests = [_docker_image(ingest, archive, image, request) for image in images]
    else:
        raise ImageError("the archive has neither an index.json nor a manifest.json: it holds no images")
    if not digests:
        raise ImageError("the archive holds no images")
    return digests[0]


def _names(descriptor: Descriptor, request: Request) -> tuple[str, ...]:
    """What an OCI index calls an image, unless the user gave it a name."""
    if request.names:
        return request.names
    name = descriptor.annotations.get(CONTAINERD_NAME) or descriptor.annotations.get(REF_NAME)
    if not name:
        return ()
    if not {":", "/"} & set(name):
        raise Refused(f"the archive calls its image {name!r}, which is a tag without a name", hint="give it a name")
    return (str(reference.parse_tagged(name)),)


def _grouped(
    found: Sequence[tuple[Descriptor, tuple[str, ...]]], request: Request
) -> list[tuple[Descriptor, tuple[str, ...]]]:
    """Every image once, with all of its names."""
    images = {descriptor.digest: descriptor for descriptor, _ in found}
    _one_for_names(len(images), request)
    return [
        (descriptor, tuple(sorted({name for other, names in found if other.digest == digest for name in names})))
        for digest, descriptor in images.items()
    ]


def _one_for_names(count: int, request: Request) -> None:
    if request.names and count > 1:
        raise Refused(f"the archive holds {count} images, so {request.names[0]!r} cannot name them all")


class OciImage:
    """One image of an OCI layout."""

    def __init__(self, ingest: Ingest, archive: Archive, request: Request) -> None:
        self._ingest = ingest
        self._archive = archive
        self._request = request
        self._bounds = ingest.layout.bounds

    def take(self, descriptor: Descriptor, names: tuple[str, ...], depth: int = 0) -> str:
        """Take it in, or the one for this host where it is a list. Returns the manifest's digest."""
        data = self._document(descriptor, "manifest")
        if descriptor.media_type in documents.INDEX_TYPES:
            if depth == _MAX_NESTED:
                raise ImageError(f"the archive's indexes are nested more than {_MAX_NESTED} deep")
            index = documents.read(Index, data, f"index {descriptor.digest}", self._bounds)
            if self._request.all_platforms:
                return self._list(index, names, depth)
            return self.take(choose(index), names, depth + 1)
        manifest = documents.read(Manifest, data, f"manifest {descriptor.digest}", self._bounds)
        kind = descriptor.media_type or manifest.media_type or documents.OCI_MANIFEST
        if kind not in documents.MANIFEST_TYPES:
            raise ImageError(f"manifest {descriptor.digest} is of type {kind!r}, which is no image's")
        if manifest.config.media_type not in ("", documents.OCI_CONFIG, documents.DOCKER_CONFIG):
            kind = manifest.config.media_type
            raise ImageError(f"manifest {descriptor.digest} is of something else than an image: {kind[:80]!r}")
        config_data = self._document(manifest.config, "config")
        config = _checked_config(self._ingest, config_data, manifest.config.digest, len(manifest.layers))
        if manifest.kind == documents.ROOTFS:
            said = unikernels.said(manifest.annotations, config.config.labels)
            keys = self._layers(manifest, config)
            if said:
                self._ingest.check_unikernel(said, keys)
        else:
            keys = self._blobs(manifest)
        self._ingest.add_document(config_data, manifest.config.media_type)
        self._ingest.add_document(data, kind)
        kept = Descriptor(media_type=kind, digest=descriptor.digest, size=len(data))
        return self._ingest.name_image(kept, keys, names)

    def _list(self, index: Index, names: tuple[str, ...], depth: int) -> str:
        """Every image of a list; the digest of this host's, else of the first."""
        taken: dict[bool, str] = {}
        for entry in platforms.entries(index):
            platform = entry.platform or Platform()
            digest = self.take(entry, tuple(platforms.name_for(name, platform) for name in names), depth + 1)
            taken.setdefault(platform.architecture == host_architecture(), digest)
        return taken.get(True) or taken[False]

    def _layers(self, manifest: Manifest, config: ConfigFile) -> list[str]:
        """Take in the layers of a root file system; their keys."""
        keys: list[str] = []
        for number, (layer, diff_id) in enumerate(zip(manifest.layers, config.rootfs.diff_ids, strict=True), 1):
            if layer.media_type not in documents.LAYER_TYPES:
                raise ImageError(f"layer {layer.digest} is of type {layer.media_type!r}, which is not known")
            label = f"layer {number} of {len(manifest.layers)}"
            if known := self._ingest.reuse_layer(layer, diff_id):
                keys.append(known)
                continue
            part = self._part(layer, "layer")
            chunks = reported(part.chunks(), self._request.progress, label, layer.size)
            _, found = self._ingest.add_layer(chunks, descriptor=layer, diff_id=diff_id, below=keys, file=part.file)
            _tell(found, self._request)
            keys.append(found.key)
        return keys

    def _blobs(self, manifest: Manifest) -> list[str]:
        """Take in the files of an image that is no root file system; it has no layers, so no keys."""
        if manifest.kind not in documents.KINDS:
            known = ", ".join(documents.KINDS)
            raise ImageError(f"the image is a {manifest.kind[:40]!r}, which is not known", hint=f"known are {known}")
        for number, blob in enumerate(manifest.layers, 1):
            if not blob.media_type.startswith(documents.BLOB_PREFIX):
                raise ImageError(f"blob {blob.digest} is of type {blob.media_type!r}, which no {manifest.kind} has")
            part, label = self._part(blob, "blob"), f"file {number} of {len(manifest.layers)}"
            chunks = reported(part.chunks(), self._request.progress, label, blob.size)
            self._ingest.add_blob(chunks, blob.media_type, descriptor=blob, file=part.file)
        if manifest.kind == documents.DISK:
            digest, size, _ = read_disk(manifest, self._bounds)
            self._ingest.unpack_disk(digest, size)
        return []

    def _part(self, descriptor: Descriptor, what: str) -> Piece:
        part = self._archive.part("blobs/sha256/" + descriptor.digest.removeprefix("sha256:"))
        if part is None:
            raise ImageError(f"the archive lacks its {what} {descriptor.digest}")
        if part.size != descriptor.size:
            raise ImageError(f"{what} {descriptor.digest} has {part.size} bytes, {descriptor.size} were promised")
        return part

    def _document(self, descriptor: Descriptor, what: str) -> bytes:
        data = self._part(descriptor, what).read(self._bounds, f"{what} {descriptor.digest}")
        if (digest := documents.digest_of(data)) != descriptor.digest:
            raise ImageError(f"{what} {descriptor.digest} has in truth the digest {digest}")
        return data


def choose(index: Index, wanted: Platform | None = None) -> Descriptor:
    """The manifest for a platform, None: this host's, or the only one. Raises ImageError where there is none."""
    mine = wanted or Platform(architecture=host_architecture(), os="linux")
    real = [entry for entry in index.manifests if not entry.platform or entry.platform.architecture != "unknown"]
    matching = [entry for entry in real if entry.platform and _fits(entry.platform, mine)]
    if matching or (len(real) == 1 and not wanted):
        return (matching or real)[0]
    there = ", ".join(sorted({str(entry.platform) for entry in real if entry.platform})) or "none"
    what = f"and not for {wanted}" if wanted else f"and not for this host's, {mine.architecture}"
    raise ImageError(f"the image is for several architectures ({there[:400]}), {what}")


def _fits(there: Platform, wanted: Platform) -> bool:
    same = there.architecture == wanted.architecture and there.os in ("", wanted.os)
    return same and wanted.variant in ("", there.variant)


def _checked_config(ingest: Ingest, data: bytes, digest: str, layers: int) -> ConfigFile:
    """An image's config, every part of it looked at before any layer is unpacked."""
    what = f"config {digest}"
    config = documents.read(ConfigFile, data, what, ingest.layout.bounds)
    read_config(config.config, what)
    read_created(config, what)
    if config.os not in ("", "linux"):
        raise ImageError(f"{what} is for {config.os!r}, not for Linux")
    if len(config.rootfs.diff_ids) != layers:
        raise ImageError(f"{what} names {len(config.rootfs.diff_ids)} layers, the manifest {layers}")
    if layers > ingest.layout.bounds.layers:
        raise ImageError(f"the image has {layers} layers, at most {ingest.layout.bounds.layers} are allowed")
    return config


def _docker_image(ingest: Ingest, archive: Archive, image: documents.DockerImage, request: Request) -> str:
    """One image of a docker archive, whose layers are known by their diff ids alone."""
    bounds = ingest.layout.bounds
    config_data = _named(archive, image.config).read(bounds, "the config")
    digest = documents.digest_of(config_data)
    claimed = _HEX.search(image.config)
    if claimed and "sha256:" + claimed[1] != digest:
        raise ImageError(f"config {image.config!r} has in truth the digest {digest}")
    config = _checked_config(ingest, config_data, digest, len(image.layers))
    layers: list[Descriptor] = []
    keys: list[str] = []
    for number, (name, diff_id) in enumerate(zip(image.layers, config.rootfs.diff_ids, strict=True), 1):
        part = _named(archive, name)
        label = f"layer {number} of {len(image.layers)}"
        chunks = _as_oci(reported(part.chunks(), request.progress, label, part.size), ingest)
        descriptor, found = ingest.add_layer(chunks, diff_id=diff_id, below=keys)
        _tell(found, request)
        layers.append(descriptor)
        keys.append(found.key)
    if said := unikernels.said({}, config.config.labels):
        ingest.check_unikernel(said, keys)
    names = request.names or tuple(str(reference.parse_tagged(name)) for name in image.names)
    return ingest.add_image(config_data, layers, keys, names)


def _named(archive: Archive, name: str) -> Piece:
    part = archive.part(name)
    if part is None:
        raise ImageError(f"the archive lacks its part {name[:200]!r}")
    return part


def _as_oci(chunks: Iterator[bytes], ingest: Ingest) -> Iterator[bytes]:
    kind, chunks = compression.sniff(chunks)
    return compression.unpack(kind, chunks, ingest.layout.bounds) if kind in _NOT_IN_OCI else chunks


def _tell(found: Unpacked, request: Request) -> None:
    for note in found.notes:
        request.progress(Step(f"passed over in the layer: {note}"))
