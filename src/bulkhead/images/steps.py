"""Steps of builds that were done: what each is known by, and the layer that came of it.

A step's record is a small JSON file beside the index, `steps/<hex>.json`. Its layer is kept, as an image's are, until
`prune` finds that no image and no build needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from pydantic import Field

from bulkhead.errors import ImageError
from bulkhead.images import documents
from bulkhead.images.documents import OCI_LAYER, Descriptor, Digest, Document
from bulkhead.images.layout import Draft, Index, Layout


class Made(Document):
    """A layer that a step has made, or that an image brought."""

    digest: Digest
    """Of the blob."""
    size: int = Field(ge=0, le=1 << 50)
    diff_id: Digest
    key: Digest
    """What its EROFS file is known by."""
    media_type: str = OCI_LAYER
    created: float = 0.0
    """Seconds since the epoch: an image that is made again of the same steps says the same."""

    @property
    def descriptor(self) -> Descriptor:
        """As a manifest has it."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=self.size)

    def is_there(self, layout: Layout) -> bool:
        """Whether the store has its files. Only whole ones get into it, and the recovery after a crash looks closer."""
        return layout.blob_path(self.digest).exists() and layout.erofs_path(self.key).exists()

    def is_whole(self, layout: Layout) -> bool:
        """Whether the store has its files."""
        blob, erofs = layout.blob_path(self.digest), layout.erofs_path(self.key)
        return layout.is_sound(blob, size=self.size) and layout.is_sound(erofs)


def directory(layout: Layout) -> Path:
    """Where the records are."""
    return layout.root / "steps"


def path_of(layout: Layout, step: Digest) -> Path:
    """Where the record of a step is or would be."""
    return directory(layout) / f"{step.removeprefix('sha256:')}.json"


def read(layout: Layout, step: Digest) -> Made | None:
    """The layer of a step; None where it was never done, is gone, or its files are."""
    made = _read(layout, path_of(layout, step))
    return made if made and made.is_there(layout) else None


def _read(layout: Layout, path: Path) -> Made | None:
    try:
        return documents.read(Made, path.read_bytes(), path.name, layout.bounds)
    except (FileNotFoundError, ImageError):
        return None


def needed(layout: Layout) -> Iterator[Path]:
    """Every file that the records lead to."""
    for path in _records(layout):
        if made := _read(layout, path):
            yield layout.blob_path(made.digest)
            yield layout.erofs_path(made.key)


def drop(layout: Layout, draft: Draft, held: Collection[str]) -> None:
    """Forget the steps whose layer no image of the index has and nobody holds. While the store is held."""
    index = Index(draft.images, draft.names)
    kept = {key for digest in index.images for key in index.layers_of(digest)} | set(held)
    for path in _records(layout):
        made = _read(layout, path)
        if made is None or made.key not in kept:
            path.unlink(missing_ok=True)


def recover(layout: Layout) -> list[str]:
    """After a crash: forget the steps whose files are not whole; in words. While the store is held."""
    done = []
    for path in sorted(directory(layout).glob("*.new")) if directory(layout).is_dir() else ():
        path.unlink()
    for path in _records(layout):
        made = _read(layout, path)
        if made is None or not made.is_whole(layout):
            path.unlink()
            done.append(f"forgot build step {path.stem[:12]}: its layer is not whole")
    return done


def _records(layout: Layout) -> list[Path]:
    return sorted(directory(layout).glob("*.json")) if directory(layout).is_dir() else []
