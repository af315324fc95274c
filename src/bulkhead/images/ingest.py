"""An import under way: its files are its own until it commits them all at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from bulkhead.errors import ImageError
from bulkhead.host.workspace import workspace
from bulkhead.images import diskfiles, documents, layer, steps, unikernels
from bulkhead.images.bounds import check_space
from bulkhead.images.config import Unikernel
from bulkhead.images.documents import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor
from bulkhead.images.layer import Unpacked
from bulkhead.images.layout import HINT, LAYER_KEYS, Layout
from bulkhead.images.reader import Digester, file_chunks, write_all
from bulkhead.images.shares import Share

EROFS = ".erofs"


class Ingest:
    """Collects blobs and layers in a directory of its own. What the store has already is linked, not made again."""

    def __init__(self, layout: Layout, directory: Path, share: Share) -> None:
        self.layout = layout
        self.share = share
        """What this import may take."""
        self._parts = 0
        self._directory = directory
        self._files: dict[Path, Path] = {}
        self._images: list[tuple[Descriptor, Sequence[str]]] = []
        self._steps: dict[Path, Path] = {}
        self._drafts = 0
        self._pairs: frozenset[tuple[str, str]] | None = None

    def add_layer(
        self,
        chunks: Iterable[bytes],
        *,
        descriptor: Descriptor | None = None,
        diff_id: str | None = None,
        below: Sequence[str] = (),
        must_end: bool = False,
        file: Path | None = None,
    ) -> tuple[Descriptor, Unpacked]:
        """Take in one layer, checked against its descriptor and diff id where these are known.

        `below`: keys of the image's layers below it, the lowest first; all have been added. `file`: one on the store's
        disk that consists of the chunks when all have been read; it is linked, not copied. Raises ImageError; the
        descriptor returned is the one given, or one for the bytes as they came.
        """
        bounds = self.layout.bounds
        check_space(self._directory, bounds)
        have_image = diff_id is not None and self._pin_layer(diff_id)
        have_blob = descriptor is not None and self._pin_blob(descriptor)
        done = self._taken(below)
        with ExitStack() as stack:
            image = None if have_image else stack.enter_context(self.draft())
            blob = None if have_blob or file else stack.enter_context(self.draft())
            found = layer.unpack(
                chunks,
                bounds=bounds,
                must_end=must_end,
                erofs=image[1] if image else None,
                blob=blob[1] if blob else None,
                below=[self._open(key, stack) for key in reversed(below)] if image else (),
                grew=lambda size: self.share.grew(done + size),
            )
            _check(found, descriptor, diff_id)
            if image:
                self._keep(image[0], self.layout.erofs_path(found.key))
                self.share.grew(self._taken((*below, found.key)), last=True)
            if blob:
                self._keep(blob[0], self.layout.blob_path(found.digest))
            elif file and not have_blob:
                self._link(file, found.digest)
        suffix = "+" + found.compression if found.compression else ""
        return descriptor or Descriptor(media_type=OCI_LAYER + suffix, digest=found.digest, size=found.size), found

    def keep_layers(self, layers: Sequence[Descriptor], keys: Sequence[str]) -> None:
        """Hold on to layers of an image that is in the store. Raises ImageError where one is gone or damaged."""
        for descriptor, key in zip(layers, keys, strict=True):
            if not (self._pin_blob(descriptor) and self._pin_layer(key)):
                raise ImageError(f"the image store lacks layer {descriptor.digest}", hint=HINT)

    def reuse_layer(self, descriptor: Descriptor, diff_id: str) -> str:
        """The key of a layer that an image of the store has with the same blob and diff id; "" where there is none.

        What is known then is that this blob unpacks to that layer: nothing needs to be read again.
        """
        if self._pairs is None:
            self._pairs = self.layout.unpacked()
        if (descriptor.digest, diff_id) not in self._pairs or not self._pin_layer(diff_id):
            return ""
        return diff_id if self._pin_blob(descriptor) else ""

    def add_blob(
        self,
        chunks: Iterable[bytes],
        media_type: str,
        *,
        descriptor: Descriptor | None = None,
        file: Path | None = None,
    ) -> Descriptor:
        """Take in a file as it is, checked against its descriptor where that is known. Raises ImageError.

        `file`: as for `add_layer`.
        """
        bounds = self.layout.bounds
        there = descriptor and self.layout.may_reuse(self.layout.blob_path(descriptor.digest), size=descriptor.size)
        if there and descriptor and self._pin_blob(descriptor):
            self._part(descriptor.size)
            return descriptor
        check_space(self._directory, bounds, coming=descriptor.size if descriptor else 0)
        with self.draft() as (path, fd), closing(Digester(None if file else fd)) as digester:
            for _ in digester.pass_on(chunks):
                if digester.size > bounds.total:
                    raise ImageError(f"a file of the image is larger than {bounds.total} bytes")
                self.share.grew(self._taken(()) + digester.size)
            found = Descriptor(media_type=media_type, digest=digester.finish(), size=digester.size)
            if descriptor and (found.digest, found.size) != (descriptor.digest, descriptor.size):
                raise ImageError(f"blob {descriptor.digest} has in truth the digest {found.digest}")
            if file:
                self._link(file, found.digest)
            else:
                self._keep(path, self.layout.blob_path(found.digest))
        self._part(found.size)
        return found

    def _part(self, size: int) -> None:
        self._parts += size
        self.share.grew(self._taken(()), last=True)

    def _taken(self, below: Sequence[str]) -> int:
        """Bytes that images count of what has been taken in: parts, and layers as they are unpacked, `below` too."""
        layers = {path for path in self._files if path.suffix == EROFS} | set(map(self.layout.erofs_path, below))
        found = [self._files.get(path, path) for path in layers]
        return self._parts + sum(path.stat().st_size for path in found if path.exists())

    def add_parts(
        self,
        kind: str,
        parts: Sequence[Descriptor],
        names: Sequence[str],
        *,
        architecture: str,
        annotations: Mapping[str, str],
        created: float | None = None,
    ) -> str:
        """Take in an image that is no root file system, of blobs that were added. Returns the manifest's digest.

        `created`: in seconds since the epoch; None: now. The same of everything is the same image.
        """
        document = {
            "architecture": architecture,
            "os": "linux",
            "created": documents.time_text(time.time() if created is None else created),
            "rootfs": {"type": "layers", "diff_ids": [part.digest for part in parts]},
        }
        said = {**annotations, documents.KIND: kind}
        return self.add_image(documents.dump(document), parts, (), names, annotations=said)

    def check_unikernel(self, said: Unikernel, keys: Sequence[str]) -> None:
        """Raise ImageError where a unikernel in layers that were added, the lowest first, cannot be booted."""
        with ExitStack() as stack:
            unikernels.check(said, [self._open(key, stack) for key in reversed(keys)])

    def keep_disk(self, draft: Path, blob: Descriptor) -> None:
        """Keep a draft as the unpacked disk of a blob that was added."""
        self._keep(draft, self.layout.disk_path(blob.digest))

    def unpack_disk(self, digest: str, size: int) -> None:
        """Unpack the disk of a blob that was added, or is in the store. Raises ImageError when it has another size."""
        target, blob = self.layout.disk_path(digest), self.layout.blob_path(digest)
        if target in self._files or (self.layout.is_sound(target, size=size) and self._pin(target)):
            return
        with self.draft() as (path, fd), self._files.get(blob, blob).open("rb") as packed:
            diskfiles.unpack(file_chunks(packed.fileno()), fd, size, self.layout.bounds)
            self._keep(path, target)

    def add_document(self, data: bytes, media_type: str) -> Descriptor:
        """Take in a manifest or config."""
        descriptor = Descriptor(media_type=media_type, digest=documents.digest_of(data), size=len(data))
        with self.draft() as (path, fd):
            write_all(fd, data)
            self._keep(path, self.layout.blob_path(descriptor.digest))
        return descriptor

    def add_image(
        self,
        config: bytes,
        layers: Sequence[Descriptor],
        keys: Sequence[str],
        names: Sequence[str],
        *,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """Take in an image of layers or blobs that were added: makes its manifest. Returns the manifest's digest."""
        self.add_document(config, OCI_CONFIG)
        manifest = manifest_of(config, layers, annotations)
        return self.name_image(self.add_document(manifest, OCI_MANIFEST), keys, names)

    def name_image(self, manifest: Descriptor, keys: Sequence[str], names: Sequence[str]) -> str:
        """Put an image whose manifest was added into the index at commit, under these names.

        `keys` are those of its layers, the lowest first. Returns the manifest's digest.
        """
        marked = manifest.model_copy(update={"annotations": {LAYER_KEYS: " ".join(keys)}})
        self._images.append((marked, names))
        return manifest.digest

    def pin(self, descriptor: Descriptor, key: str) -> None:
        """Take in a layer that the store has. Raises ImageError where it has it no more."""
        if not (self._pin_blob(descriptor) and self._pin_layer(key)):
            raise ImageError(f"the image store lacks layer {key}", hint=HINT)

    def keep_step(self, step: str, record: bytes) -> None:
        """Keep the record of a build's step at commit; what it leads to was added."""
        target = steps.path_of(self.layout, step)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        with self.draft() as (path, fd):
            write_all(fd, record)
            self._steps[target] = path.rename(self._directory / target.name)

    def named(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Digests of images that were taken in, with the names that they get."""
        return ((manifest.digest, names) for manifest, names in self._images)

    def commit(self) -> None:
        """Move everything into the store and the index, where it cannot be seen in part."""
        with self.layout.held() as index:
            for target, source in self._files.items():
                if not self.layout.is_sound(target, size=source.stat().st_size):
                    source.replace(target)
            for target, source in self._steps.items():
                source.replace(target)
            for manifest, names in self._images:
                index.images[manifest.digest] = manifest
                index.names.update(dict.fromkeys(names, manifest.digest))
            if self._images:
                self.layout.write(index)
                self.share.end()

    @contextmanager
    def draft(self) -> Iterator[tuple[Path, int]]:
        """A new empty file; gone at the end unless it was kept."""
        self._drafts += 1
        path = self._directory / f"draft-{self._drafts}"
        with ExitStack() as stack:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, fd)
            stack.callback(path.unlink, missing_ok=True)
            yield path, fd

    def _open(self, key: str, stack: ExitStack) -> int:
        path = self.layout.erofs_path(key)
        fd = os.open(self._files.get(path, path), os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        return fd

    def _keep(self, draft: Path, target: Path) -> None:
        self._files[target] = draft.rename(self._directory / target.name)

    def _link(self, file: Path, digest: str) -> None:
        """Keep a file of the store's disk as a blob; whoever has it keeps it too."""
        target = self.layout.blob_path(digest)
        os.link(file, self._directory / target.name)
        self._files[target] = self._directory / target.name

    def _pin_layer(self, diff_id: str) -> bool:
        """Link the store's file of a layer here, so that no removal can take it away before the commit."""
        path = self.layout.erofs_path(diff_id)
        return path in self._files or (self.layout.is_sound(path) and self._pin(path))

    def _pin_blob(self, descriptor: Descriptor) -> bool:
        path = self.layout.blob_path(descriptor.digest)
        return path in self._files or (self.layout.is_sound(path, size=descriptor.size) and self._pin(path))

    def _pin(self, path: Path) -> bool:
        try:
            os.link(path, self._directory / path.name)
        except FileNotFoundError:
            return False
        self._files[path] = self._directory / path.name
        return True


@contextmanager
def ingest(layout: Layout) -> Iterator[Ingest]:
    """An import under way. Without a commit nothing of it remains."""
    begun = layout.shares.begin(layout.tenant, layout.left, layout.settle)
    with workspace(layout.ingest) as (directory, _), begun as share:
        yield Ingest(layout, directory, share)


def manifest_of(config: bytes, layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None) -> bytes:
    """The manifest of an image with this configuration."""
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": documents.digest_of(config), "size": len(config)},
        "layers": [as_json(descriptor) for descriptor in layers],
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    return documents.dump(manifest)


def as_json(descriptor: Descriptor) -> dict[str, object]:
    """A descriptor as it stands in a manifest."""
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def _check(found: Unpacked, descriptor: Descriptor | None, diff_id: str | None) -> None:
    """Raise ImageError when a layer is not what its manifest and config say."""
    if descriptor and found.size != descriptor.size:
        raise ImageError(f"layer {descriptor.digest} has {found.size} bytes, its manifest says {descriptor.size}")
    if descriptor and found.digest != descriptor.digest:
        raise ImageError(f"layer {descriptor.digest} has in truth the digest {found.digest}")
    if diff_id and found.diff_id != diff_id:
        raise ImageError(f"layer {found.digest} unpacks to {found.diff_id}, its config says {diff_id}")
