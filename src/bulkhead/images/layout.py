"""The store on disk: an OCI image layout, with the layers' EROFS files beside the blobs.

oci-layout  index.json  blobs/sha256/<hex>      what every OCI tool reads
erofs/<hex of the layer's key>.erofs            a layer, ready to be mounted; the key is its diff id, mostly
erofs/<hex of the blob's digest>.raw            a disk, unpacked: a sparse file
partial[@TENANT]/<hex of the blob's digest>    beginnings of blobs that a pull has brought; see registry/fetch.py
ingest/<random>/                                imports under way; nothing of them is in the rest until they commit
lock                                            held while index.json or what it leads to changes
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bulkhead.errors import ImageError
from bulkhead.host.workspace import locked
from bulkhead.images import documents, ondisk
from bulkhead.images.bounds import Bounds
from bulkhead.images.documents import REF_NAME, ConfigFile, Descriptor, Digest, Manifest
from bulkhead.images.registry import fetch
from bulkhead.images.shares import Left, Shares
from bulkhead.tenancy.names import DEFAULT, SEPARATOR

_MARK = b'{"imageLayoutVersion":"1.0.0"}'
LAYER_KEYS = "bulkhead.layers"
"""Annotation of an index entry: what the image's EROFS files are known by, the lowest first, space between."""
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Index:
    """What index.json says: every image, and which name means which."""

    images: Mapping[str, Descriptor]
    """Manifests by digest."""
    names: Mapping[str, str]
    """Digests by reference."""

    def layers_of(self, digest: str) -> list[str]:
        """What the EROFS files of one image are known by, the lowest first."""
        return self.images[digest].annotations.get(LAYER_KEYS, "").split()

    def names_of(self, digest: str) -> tuple[str, ...]:
        """The references of one image, sorted."""
        return tuple(sorted(name for name, named in self.names.items() if named == digest))


@dataclass(slots=True)
class Draft:
    """An index that is being changed."""

    images: dict[str, Descriptor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


class Layout:
    """Paths and documents of one store. Safe for threads and processes."""

    def __init__(self, root: Path, bounds: Bounds) -> None:
        self.root = root
        self.bounds = bounds
        self.tenant = DEFAULT
        self.shares = Shares()
        """What imports under way take."""
        self.left: Left = lambda: None
        """What the images of `tenant` may still grow by; set by whoever knows of quotas."""
        self.blobs = root / "blobs" / "sha256"
        self.erofs = root / "erofs"
        self.ingest = root / "ingest"
        self.partial = root / "partial"
        self._index = root / "index.json"
        self._seen: tuple[_Stamp, Index] | None = None
        self._space: tuple[Index, int] | None = None
        for directory in (root, self.blobs, self.erofs, self.ingest, self.partial):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(root / "lock"):
            if not (root / "oci-layout").exists():
                _replace(root / "oci-layout", _MARK)
            if not self._index.exists():
                self.write(Draft())

    def partials(self) -> list[Path]:
        """The directories of beginnings of blobs: everybody's."""
        return sorted(self.root.glob("partial*"))

    def settle(self) -> None:
        """Beginnings of blobs that nobody goes on with take no more than what the images of `tenant` may grow by.

        What is under way goes before them, and of them what is younger.
        """
        left = self.left()
        if left is not None:
            fetch.fit(self.partial, max(0, left - self.shares.of(self.tenant)))

    def blob_path(self, digest: Digest) -> Path:
        """Where a blob is or would be."""
        return self.blobs / _hex(digest)

    def erofs_path(self, key: Digest) -> Path:
        """Where a layer's EROFS file is or would be."""
        return self.erofs / f"{_hex(key)}.erofs"

    def disk_path(self, digest: Digest) -> Path:
        """Where the unpacked disk of a blob is or would be."""
        return self.erofs / f"{_hex(digest)}.raw"

    def read_document(self, digest: Digest) -> bytes:
        """A manifest or config. Raises ImageError when it is missing, too large, or not what its digest says."""
        try:
            with self.blob_path(digest).open("rb") as file:
                data = file.read(self.bounds.document + 1)
        except FileNotFoundError as error:
            raise ImageError(f"the image store lacks blob {digest}", hint=HINT) from error
        if documents.digest_of(data) != digest:
            raise ImageError(f"blob {digest} in the image store is damaged", hint=HINT)
        return data

    def documents(self, digest: Digest) -> tuple[Manifest, ConfigFile]:
        """An image's manifest and config, verified. Raises ImageError."""
        manifest = documents.read(Manifest, self.read_document(digest), f"manifest {digest}", self.bounds)
        config = manifest.config.digest
        return manifest, documents.read(ConfigFile, self.read_document(config), f"config {config}", self.bounds)

    def unpacked(self) -> frozenset[tuple[str, str]]:
        """(blob, diff id) of every layer of the store whose EROFS file depends on no layer below."""
        found: set[tuple[str, str]] = set()
        index = self.index()
        for digest in index.images:
            with suppress(ImageError):
                manifest, config = self.documents(digest)
                blobs = [layer.digest for layer in manifest.layers]
                diff_ids, keys = config.rootfs.diff_ids, index.layers_of(digest)
                if len(blobs) == len(diff_ids) == len(keys):
                    rows = zip(blobs, diff_ids, keys, strict=True)
                    found.update((blob, diff_id) for blob, diff_id, key in rows if key == diff_id)
        return frozenset(found)

    def space(self) -> int:
        """Bytes that blobs and layers take on the host, as of the last change of which images there are."""
        index = self.index()
        if self._space is None or self._space[0] is not index:
            taken = 0
            for path in (*self.blobs.iterdir(), *self.erofs.iterdir()):
                with suppress(FileNotFoundError):
                    taken += path.stat().st_blocks * 512
            self._space = (index, taken)
        return self._space[1]

    def index(self) -> Index:
        """The index as it is now; read again only when the file has changed."""
        stat = self._index.stat()
        stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        seen = self._seen
        if seen and seen[0] == stamp:
            return seen[1]
        found = documents.read(documents.Index, self._index.read_bytes(), str(self._index), self.bounds)
        index = Index(
            {entry.digest: entry for entry in found.manifests},
            {entry.annotations[REF_NAME]: entry.digest for entry in found.manifests if REF_NAME in entry.annotations},
        )
        # Read after the stat: a change in between gives the file another stamp, and the next call sees it.
        self._seen = (stamp, index)
        return index

    def own_names(self) -> set[str]:
        """Names that belong to whom this layout is of: of the whole store, those of the default tenant."""
        return {name for name in self.index().names if SEPARATOR not in name}

    @contextmanager
    def held(self) -> Iterator[Draft]:
        """Be the only one who changes the store. The draft is the index as it is; `write` makes it the index."""
        with locked(self.root / "lock"):
            index = self.index()
            yield Draft(dict(index.images), dict(index.names))

    def write(self, draft: Draft) -> None:
        """Replace the index, atomically. Only while the store is held."""
        _replace(self._index, documents.dump({"schemaVersion": 2, "manifests": list(_entries(draft))}))
        self._seen = None

    def may_reuse(self, path: Path, *, size: int | None = None) -> bool:
        """Whether the store has what an image from elsewhere names, so that it need not come again."""
        return self.is_sound(path, size=size)

    def step(self, step: str) -> str:
        """What a step of a build is known by here."""
        return step

    def is_sound(self, path: Path, *, size: int | None = None) -> bool:
        """Whether a blob or EROFS file is there, has the `size` it should have, and (EROFS) a good superblock.

        What a crash left half-written is told from the whole by this; nothing else changes files of the store.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if size is not None and os.fstat(fd).st_size != size:
                return False
            return path.suffix != ".erofs" or ondisk.is_whole(fd)
        finally:
            os.close(fd)


def _entries(draft: Draft) -> Iterator[dict[str, object]]:
    """One entry for each name, and one for each image that has none."""
    for digest, descriptor in sorted(draft.images.items()):
        entry: dict[str, object] = {
            "mediaType": descriptor.media_type,
            "digest": digest,
            "size": descriptor.size,
        }
        if descriptor.platform:
            entry["platform"] = descriptor.platform.model_dump()
        annotations = {LAYER_KEYS: descriptor.annotations.get(LAYER_KEYS, "")}
        names: Sequence[str] = sorted(name for name, named in draft.names.items() if named == digest)
        yield from ({**entry, "annotations": {REF_NAME: name, **annotations}} for name in names)
        if not names:
            yield {**entry, "annotations": annotations}


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.replace(path)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


HINT = "restart the daemon: it checks the store and says what is lost"
