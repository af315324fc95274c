"""Images of the store as one archive: an OCI layout in a tar, which with docker's manifest.json every engine loads."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from bulkhead.errors import Refused
from bulkhead.images import documents
from bulkhead.images.archive import open_file
from bulkhead.images.config import Image
from bulkhead.images.documents import CONTAINERD_NAME, REF_NAME, ROOTFS, Manifest
from bulkhead.images.layout import Layout
from bulkhead.images.reader import file_chunks

FORMATS = ("docker-archive", "oci-archive")
_MARK = b'{"imageLayoutVersion":"1.0.0"}'
_BLOCK, _END = 512, 1024


def check(images: Sequence[Image], form: str) -> None:
    """Raise Refused where a format cannot hold what is asked for."""
    if form not in FORMATS:
        raise Refused(f"format {form!r} is none", hint=", ".join(FORMATS))
    if form == "docker-archive":
        others = [image for image in images if not image.layers]
        if others:
            what = ", ".join(f"{(image.references or (image.digest,))[0]} (a {image.kind})" for image in others)
            raise Refused(f"docker's archives hold root file systems alone, not {what}", hint="--format oci-archive")


def archive(layout: Layout, images: Sequence[tuple[Image, tuple[str, ...]]], form: str) -> Iterator[bytes]:
    """The tar's bytes. Each image comes with the names that it is to have there. The same images: the same bytes."""
    manifests = {image.digest: layout.documents(image.digest)[0] for image, _ in images}
    yield from _file("oci-layout", _MARK)
    written: set[str] = set()
    for digest, manifest in manifests.items():
        for blob in (digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)):
            if blob not in written:
                written.add(blob)
                yield from _blob(layout, blob)
    yield from _file("index.json", documents.dump({"schemaVersion": 2, "manifests": list(_entries(layout, images))}))
    if form == "docker-archive":
        yield from _file(
            "manifest.json", documents.dump([_docker(manifests[image.digest], names) for image, names in images])
        )
    yield bytes(_END)


def _entries(layout: Layout, images: Sequence[tuple[Image, tuple[str, ...]]]) -> Iterator[dict[str, object]]:
    index = layout.index()
    for image, names in images:
        kept = index.images[image.digest]
        entry: dict[str, object] = {"mediaType": kept.media_type, "digest": kept.digest, "size": kept.size}
        if image.kind == ROOTFS:
            entry["platform"] = {"os": "linux", "architecture": image.architecture}
        yield from ({**entry, "annotations": {REF_NAME: name, CONTAINERD_NAME: name}} for name in names)
        if not names:
            yield entry


def _docker(manifest: Manifest, names: Sequence[str]) -> dict[str, object]:
    return {
        "Config": _path(manifest.config.digest),
        "RepoTags": list(names),
        "Layers": [_path(layer.digest) for layer in manifest.layers],
    }


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _blob(layout: Layout, digest: str) -> Iterator[bytes]:
    with ExitStack() as stack:
        path = layout.blob_path(digest)
        fd, size = open_file(path, stack), path.stat().st_size
        yield _header(_path(digest), size)
        yield from file_chunks(fd, size=size)
        yield bytes(-size % _BLOCK)


def _file(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data)) + data + bytes(-len(data) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)
