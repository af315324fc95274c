"""Images of the store and those of registries: pulls, pushes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bulkhead.errors import ImageError, NoImage
from bulkhead.events import Progress, Step
from bulkhead.images import pulling, pushing, reference
from bulkhead.images.config import Image
from bulkhead.images.documents import Platform
from bulkhead.images.importer import Request
from bulkhead.images.pushing import Pushed
from bulkhead.images.registry.client import Repository
from bulkhead.images.registry.conf import Source, is_full
from bulkhead.images.registry.fetch import Downloads
from bulkhead.images.store import ImageStore


class Exchange:
    """Moves images between one store and registries. Safe for threads."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images
        self._guard = threading.Lock()
        self._pulls: dict[str, threading.Lock] = {}

    def find(self, names: Sequence[str], platform: Platform | None) -> Image | None:
        """The first of these names that the store has, for the platform where one is asked for."""
        for name in names:
            try:
                image = self._images.resolve(stored_name(name))
            except NoImage:
                continue
            if platform is None or image.architecture == platform.architecture:
                return image
        return None

    def pull(self, repository: Repository, source: Source, *, platform: Platform | None, progress: Progress) -> Image:
        """Have an image of a registry in the store, under its name. Raises NotFound, ImageError, Unavailable, Refused.

        What has come of a pull that failed is kept for the next one.
        """
        layout = self._images.layout
        progress(Step(f"asking {repository} for {source.reference}"))
        repository.begin()
        found = pulling.resolve(repository, source.reference, platform, layout.bounds)
        digest = found.manifest.digest
        names = () if source.reference.startswith("sha256:") else (stored_name(source.name),)
        with self._alone(digest):
            if digest in layout.index().images:
                there = self._images.resolve(digest)
                pulling.check_platform(there.architecture, platform)
                self._images.tag(digest, names)
                return self._images.resolve(digest)
            request = Request(names, (), pulling.notes_of(progress), source.name)
            for last in (False, True):
                with Downloads(layout.partial, layout.bounds, progress) as downloads:
                    try:
                        image = self._images.take(
                            lambda into: pulling.take(into, repository, found, downloads, request),
                            source.name,
                        )
                    except ImageError:
                        if last or not downloads.resumed:
                            raise
                        continue
                    downloads.done()
                    return image
        raise ImageError(f"{source.name} could not be pulled")

    def push(self, repository: Repository, name: str, source: Source, progress: Progress) -> Pushed:
        """Give an image of the store away under another name. Raises NotFound, Refused, Unavailable."""
        layout = self._images.layout
        digest = self._images.resolve(name).digest
        manifest, _ = layout.documents(digest)
        near = list(self._neighbours(source))
        parcels = pushing.parcels(layout, manifest, lambda blob: [path for path, blobs in near if blob in blobs])
        repository.begin(push=True, mount_from=sorted({path for parcel in parcels for path in parcel.mount_from}))
        kind = manifest.media_type or layout.index().images[digest].media_type
        letter = pushing.Letter(source, layout.read_document(digest), kind, digest)
        return pushing.push(repository, letter, parcels, progress)

    def _neighbours(self, target: Source) -> Iterator[tuple[str, frozenset[str]]]:
        """Other repositories of a registry that an image of the store has a name in, with the blobs of that image."""
        index = self._images.layout.index()
        host = target.name.partition("/")[0]
        for known, digest in index.names.items():
            parsed = reference.parse(known)
            there, _, path = parsed.name.partition("/")
            if is_full(parsed.name) and there == host and path != target.path:
                manifest, _ = self._images.layout.documents(digest)
                yield path, frozenset(blob.digest for blob in (*manifest.layers, manifest.config))

    @contextmanager
    def _alone(self, digest: str) -> Iterator[None]:
        """One pull of an image at a time: the next one finds it in the store."""
        with self._guard:
            lock = self._pulls.setdefault(digest, threading.Lock())
        with lock:
            yield
        with self._guard:
            self._pulls.pop(digest, None)


def stored_name(full: str) -> str:
    """What the store calls an image of this full name: Docker Hub's go without their host."""
    return str(reference.parse(full))
