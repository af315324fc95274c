"""What of a store is needed, and what is not: removal of the rest, repair after a crash."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import ImageError
from bulkhead.host.workspace import abandoned
from bulkhead.images import steps
from bulkhead.images.archive import open_file
from bulkhead.images.config import read_disk
from bulkhead.images.documents import DISK, ROOTFS, Manifest
from bulkhead.images.ingest import ingest
from bulkhead.images.layout import LAYER_KEYS, Draft, Index, Layout
from bulkhead.images.reader import file_chunks
from bulkhead.images.registry import fetch


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune removed."""

    digests: tuple[str, ...]
    """Manifests of the images that are gone."""
    freed: int
    """Bytes of disk space."""


def collect(layout: Layout, draft: Draft) -> int:
    """Delete blobs and layers that no image of the index needs; the bytes that this freed. While the store is held.

    Deletes nothing when an image's documents are damaged: what they need is not known then.
    """
    try:
        needed = _needed(layout, draft)
    except ImageError:
        return 0
    return sum(_delete(path) for path in _files(layout) if path not in needed)


def recover(layout: Layout) -> list[str]:
    """Repair what a crash left; what was done, in words. `ImageStore.recover` says more."""
    done = [f"removed an unfinished import ({path.name})" for path in abandoned(layout.ingest)]
    for directory in layout.partials():
        fetch.forget(directory, older=fetch.KEPT_SECONDS)
    lost, unpacked = {}, {}
    index = layout.index()
    for digest in index.images:
        try:
            if keys := _unpack_again(layout, index, digest):
                unpacked[digest] = keys
                done.append(f"unpacked image {_named(index, digest)} again: its index entry did not have its layers")
            else:
                done += _repair(layout, index, digest)
        except ImageError as error:
            lost[digest] = error.what
    with layout.held() as draft:
        for path in layout.root.glob("*.new"):
            path.unlink()
        for digest, keys in unpacked.items():
            if entry := draft.images.get(digest):
                annotations = {**entry.annotations, LAYER_KEYS: " ".join(keys)}
                draft.images[digest] = entry.model_copy(update={"annotations": annotations})
        for digest, reason in lost.items():
            draft.images.pop(digest, None)
            done.append(f"dropped image {_named(index, digest)}: {reason}")
        draft.names = {name: digest for name, digest in draft.names.items() if digest in draft.images}
        if lost or unpacked:
            layout.write(draft)
        done += steps.recover(layout)
        needed = _needed(layout, draft)
        for path in _files(layout):
            if path not in needed:
                _delete(path)
                done.append(f"removed {path.relative_to(layout.root)}, which no image needs")
    return done


def _named(index: Index, digest: str) -> str:
    """A digest with the image's names, which nobody else may remember."""
    names = index.names_of(digest)
    return f"{digest} ({', '.join(names)})" if names else digest


def _unpack_again(layout: Layout, index: Index, digest: str) -> list[str]:
    """What the layers are known by of an image whose index entry does not say so, as another program writes it.

    They are made from their blobs. Empty where nothing is to be done; ImageError when it cannot be done.
    """
    manifest, config = layout.documents(digest)
    if manifest.kind != ROOTFS or len(index.layers_of(digest)) == len(manifest.layers):
        return []
    if len(manifest.layers) != len(config.rootfs.diff_ids):
        raise ImageError(f"it has {len(manifest.layers)} layers, its config {len(config.rootfs.diff_ids)}")
    keys: list[str] = []
    with ingest(layout) as into, ExitStack() as stack:
        for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True):
            blob = layout.blob_path(layer.digest)
            if not layout.is_sound(blob, size=layer.size):
                raise ImageError(f"its layer {layer.digest} is lost")
            chunks = file_chunks(open_file(blob, stack))
            _, found = into.add_layer(chunks, descriptor=layer, diff_id=diff_id, below=keys)
            keys.append(found.key)
        into.commit()
    return keys


def _repair(layout: Layout, index: Index, digest: str) -> list[str]:
    """Make lost EROFS files of an image again. Raises ImageError when that cannot be done."""
    done: list[str] = []
    manifest, config = layout.documents(digest)
    keys = index.layers_of(digest)
    if manifest.kind != ROOTFS:
        for part in manifest.layers:
            if not layout.is_sound(layout.blob_path(part.digest), size=part.size):
                raise ImageError(f"its part {part.digest} is lost")
        return _repair_disk(layout, manifest) if manifest.kind == DISK else done
    if not len(keys) == len(manifest.layers) == len(config.rootfs.diff_ids):
        raise ImageError("its layers and its config do not match")
    for number, (layer, key) in enumerate(zip(manifest.layers, keys, strict=True)):
        blob = layout.blob_path(layer.digest)
        whole = layout.is_sound(blob, size=layer.size)
        if layout.is_sound(layout.erofs_path(key)):
            if not whole:
                done.append(f"image {digest} works, but has lost its blob {layer.digest}: import it again")
            continue
        if not whole:
            raise ImageError(f"its layer {layer.digest} is lost")
        with ingest(layout) as into, ExitStack() as stack:
            chunks = file_chunks(open_file(blob, stack))
            diff_id = config.rootfs.diff_ids[number]
            _, found = into.add_layer(chunks, descriptor=layer, diff_id=diff_id, below=keys[:number])
            if found.key != key:
                raise ImageError(f"its layer {layer.digest} came out differently")
            into.commit()
        done.append(f"made layer {key} again")
    return done


def _repair_disk(layout: Layout, manifest: Manifest) -> list[str]:
    """Unpack a disk again whose raw file is lost."""
    blob, size, _ = read_disk(manifest, layout.bounds)
    if layout.is_sound(layout.disk_path(blob), size=size):
        return []
    with ingest(layout) as into:
        into.unpack_disk(blob, size)
        into.commit()
    return [f"unpacked disk {blob} again"]


def _needed(layout: Layout, draft: Draft) -> set[Path]:
    needed = set(steps.needed(layout))
    index = Index(draft.images, draft.names)
    for digest in index.images:
        manifest, _ = layout.documents(digest)
        blobs = [digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        needed.update(map(layout.blob_path, blobs))
        needed.update(map(layout.erofs_path, index.layers_of(digest)))
        if manifest.kind == DISK:
            needed.update(layout.disk_path(part.digest) for part in manifest.layers)
    return needed


def _files(layout: Layout) -> list[Path]:
    return sorted([*layout.blobs.iterdir(), *layout.erofs.iterdir()])


def _delete(path: Path) -> int:
    size = path.stat().st_blocks * 512
    path.unlink()
    return size
