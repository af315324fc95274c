"""What of a store is needed, and what is not: removal of the rest, repair after a crash."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import ImageError
from bulkhead.images import documents
from bulkhead.images.archive import open_file
from bulkhead.images.documents import ConfigFile, Manifest
from bulkhead.images.ingest import ingest
from bulkhead.images.layout import Draft, Layout
from bulkhead.images.reader import file_chunks
from bulkhead.images.workspace import abandoned


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune removed."""

    digests: tuple[str, ...]
    """Manifests of the images that are gone."""
    freed: int
    """Bytes of disk space."""


def documents_of(layout: Layout, digest: str) -> tuple[Manifest, ConfigFile]:
    """An image's manifest and config, verified. Raises ImageError."""
    bounds = layout.bounds
    manifest = documents.read(Manifest, layout.read_document(digest), f"manifest {digest}", bounds)
    what = f"config {manifest.config.digest}"
    return manifest, documents.read(ConfigFile, layout.read_document(manifest.config.digest), what, bounds)


def collect(layout: Layout, draft: Draft) -> int:
    """Delete blobs and layers that no image of the index needs; the bytes that this freed. While the store is held.

    Deletes nothing when an image's documents are damaged: what they need is not known then.
    """
    try:
        needed = _needed(layout, draft.images)
    except ImageError:
        return 0
    return sum(_delete(path) for path in _files(layout) if path not in needed)


def recover(layout: Layout) -> list[str]:
    """Repair what a crash left; what was done, in words. `ImageStore.recover` says more."""
    done = [f"removed an unfinished import ({path.name})" for path in abandoned(layout.ingest)]
    lost = {}
    for digest in layout.index().images:
        try:
            done += _repair(layout, digest)
        except ImageError as error:
            lost[digest] = error.what
    with layout.held() as draft:
        for path in layout.root.glob("*.new"):
            path.unlink()
        for digest, reason in lost.items():
            draft.images.pop(digest, None)
            done.append(f"dropped image {digest}: {reason}")
        draft.names = {name: digest for name, digest in draft.names.items() if digest in draft.images}
        if lost:
            layout.write(draft)
        needed = _needed(layout, draft.images)
        for path in _files(layout):
            if path not in needed:
                _delete(path)
                done.append(f"removed {path.relative_to(layout.root)}, which no image needs")
    return done


def _repair(layout: Layout, digest: str) -> list[str]:
    """Make lost EROFS files of an image again. Raises ImageError when that cannot be done."""
    done: list[str] = []
    manifest, config = documents_of(layout, digest)
    for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True):
        blob = layout.blob_path(layer.digest)
        if layout.is_sound(layout.erofs_path(diff_id)):
            if not layout.is_sound(blob, size=layer.size):
                done.append(f"image {digest} works, but has lost its blob {layer.digest}: import it again")
            continue
        with ingest(layout) as into, ExitStack() as stack:
            if not layout.is_sound(blob, size=layer.size):
                raise ImageError(f"layer {layer.digest} is lost")
            into.add_layer(file_chunks(open_file(blob, stack)), descriptor=layer, diff_id=diff_id)
            into.commit()
        done.append(f"made layer {diff_id} again")
    return done


def _needed(layout: Layout, images: Iterable[str]) -> set[Path]:
    needed: set[Path] = set()
    for digest in images:
        manifest, config = documents_of(layout, digest)
        blobs = [digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        needed.update(map(layout.blob_path, blobs))
        needed.update(map(layout.erofs_path, config.rootfs.diff_ids))
    return needed


def _files(layout: Layout) -> list[Path]:
    return sorted([*layout.blobs.iterdir(), *layout.erofs.iterdir()])


def _delete(path: Path) -> int:
    size = path.stat().st_blocks * 512
    path.unlink()
    return size
