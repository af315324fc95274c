"""Images of the store and those of registries: pulls, pushes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from bulkhead.errors import ImageError, NoImage, Refused
from bulkhead.events import Progress, Step
from bulkhead.host.workspace import workspace
from bulkhead.images import documents, platforms, pulling, pushing, reference
from bulkhead.images.config import Image
from bulkhead.images.documents import Platform
from bulkhead.images.importer import Request
from bulkhead.images.packing import USUAL, Packer, is_packed
from bulkhead.images.platforms import Member
from bulkhead.images.pushing import Letter, Packed, Pushed
from bulkhead.images.registry import policy
from bulkhead.images.registry.client import Repository
from bulkhead.images.registry.conf import Source, is_full
from bulkhead.images.registry.fetch import Downloads
from bulkhead.images.store import ImageStore
from bulkhead.tenancy.names import SEPARATOR

STORED = "stored"
"""The step in between: the store has the image, and the files that it came in are still there."""
MOST_MOUNTS = 4
"""Repositories that are asked for one blob before it is sent."""


class Exchange:
    """Moves images between one store and registries. Safe for threads."""

    def __init__(self, images: ImageStore, cache: Path) -> None:
        self._images = images
        self._packer = Packer(images.layout, cache / "packed")
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

        What has come of a pull that failed is kept for the next one, as far as its tenant's images may grow.
        """
        layout = self._images.layout
        progress(Step(f"asking {repository} for {source.reference}"))
        repository.begin()
        found = pulling.resolve(repository, source.reference, platform, layout.bounds)
        digest = found.manifest.digest
        names = () if "@" in source.name else (stored_name(source.name),)
        with ExitStack() as always:
            always.callback(layout.settle)
            always.enter_context(self._alone(digest))
            if digest in layout.index().images:
                there = self._images.resolve(digest)
                pulling.check_platform(there.architecture, platform)
                self._images.tag(digest, names)
                return self._images.resolve(digest)
            request = Request(names, (), pulling.notes_of(progress), source.name)
            for last in (False, True):
                with Downloads(layout.partial, layout.bounds, progress) as downloads:
                    try:
                        come = partial(
                            pulling.take, repository=repository, found=found, downloads=downloads, request=request
                        )
                        image = self._images.take(partial(come, patch=not last), source.name)
                    except ImageError:
                        if last or not downloads.resumed:
                            raise
                        continue
                    progress(Step(STORED))
                    downloads.done()
                    return image
        raise ImageError(f"{source.name} could not be pulled")

    def verify(self, asked: policy.Asked, rules: policy.Policy) -> str:
        """The digest of an image whose signatures are as the policy wants them. Raises Refused."""
        layout = self._images.layout
        with workspace(layout.ingest) as (directory, _):
            return policy.verified(asked, rules, directory=directory, partial=layout.partial, bounds=layout.bounds)

    def platforms(self, repository: Repository, source: Source) -> list[Platform]:
        """Those that a registry's image is a list of; none where it is for one alone. Raises ImageError, NotFound."""
        repository.begin()
        return pulling.platforms_of(repository, source.reference, self._images.layout.bounds)

    def push_all(
        self, repository: Repository, name: str, source: Source, *, compression: str | None, progress: Progress
    ) -> Pushed:
        """Give away an image and those of other platforms that are called like it, as one list.

        Raises Refused where there is no other, else as `push`.
        """
        found = self._siblings(name)
        if len(found) < 2:
            wanted = f"{stored_name(name)}-arm64 and the like"
            raise Refused(f"{name} is here for one platform alone", hint=f"others are called {wanted}: image tag, pull")
        members, parts = [], []
        for digest, platform in found.items():
            progress(Step(f"pushing {platform}"))
            letter, pushed = self._push(repository, digest, source, compression, progress, listed=True)
            members.append(Member(letter.media_type, letter.digest, len(letter.manifest), platform))
            parts.append(pushed)
        data = platforms.list_of(members)
        repository.put_manifest(source.reference, data, documents.OCI_INDEX)
        return Pushed(
            source.name,
            documents.digest_of(data),
            moved=sum(part.moved for part in parts),
            mounted=sum(part.mounted for part in parts),
            known=sum(part.known for part in parts),
        )

    def _siblings(self, name: str) -> dict[str, Platform]:
        """The image of this name and those of other platforms, by digest."""
        image, layout = self._images.resolve(name), self._images.layout
        found = {image.digest: self._platform(image.digest)}
        full = stored_name(name)
        for other, digest in platforms.likely(layout.index().names, full):
            platform = self._platform(digest)
            if platforms.name_for(full, platform) == other:
                found[digest] = platform
        return found

    def _platform(self, digest: str) -> Platform:
        layout = self._images.layout
        manifest, _ = layout.documents(digest)
        data = layout.read_document(manifest.config.digest)
        said = documents.read(Platform, data, f"config {manifest.config.digest}", layout.bounds)
        return said.model_copy(update={"os": said.os or "linux"})

    def push(
        self, repository: Repository, name: str, source: Source, *, compression: str | None, progress: Progress
    ) -> Pushed:
        """Give an image of the store away under another name. Raises NotFound, Refused, Unavailable.

        `compression`: of its layers, None: as they are, and gzip for those that are not compressed at all.
        """
        return self._push(repository, name, source, compression, progress)[1]

    def _push(
        self,
        repository: Repository,
        name: str,
        source: Source,
        compression: str | None,
        progress: Progress,
        *,
        listed: bool = False,
    ) -> tuple[Letter, Pushed]:
        """`listed`: as a part of a list, which is known by its digest alone."""
        layout = self._images.layout
        digest = self._images.resolve(name).digest
        manifest, config = layout.documents(digest)
        if compression and manifest.kind != documents.ROOTFS:
            raise Refused(
                f"{name} is a {manifest.kind}, whose files stay as they are", hint="leave the compression out"
            )
        plain = [layer for layer in manifest.layers if not is_packed(layer, compression)]
        near = list(self._neighbours(source))
        repository.begin(push=True, mount_from=sorted({path for path, _ in near}))
        data, kind = layout.read_document(digest), manifest.media_type or layout.index().images[digest].media_type
        with ExitStack() as stack:
            layers = [Packed(layer, layout.blob_path(layer.digest)) for layer in manifest.layers]
            if manifest.kind == documents.ROOTFS and plain:
                directory, _ = stack.enter_context(workspace(layout.ingest))
                packing = pushing.Packing(self._packer, repository, directory, compression or USUAL)
                layers = packing.pack(manifest.layers, config.rootfs.diff_ids, progress)
                data, kind = (
                    pushing.packed_manifest(data, [layer.descriptor for layer in layers]),
                    documents.OCI_MANIFEST,
                )
            known_as = dict(zip((layer.descriptor.digest for layer in layers), config.rootfs.diff_ids, strict=False))
            parcels = [
                pushing.Parcel(item.descriptor, item.path, _likely(near, item.descriptor.digest, known_as))
                for item in (*layers, Packed(manifest.config, layout.blob_path(manifest.config.digest)))
            ]
            digest = documents.digest_of(data)
            letter = Letter(replace(source, reference=digest) if listed else source, data, kind, digest)
            return letter, pushing.push(repository, letter, parcels, progress)

    def _neighbours(self, target: Source) -> Iterator[tuple[str, frozenset[str]]]:
        """Other repositories of a registry that an image of the store has a name in, with that image's blobs and diff
        ids: it may have been pushed there in another compression.
        """
        index = self._images.layout.index()
        host = target.name.partition("/")[0]
        for known, digest in index.names.items():
            if SEPARATOR in known:
                continue  # a tenant's: where it pushes to is nobody else's business
            parsed = reference.parse(known)
            there, _, path = parsed.name.partition("/")
            if is_full(parsed.name) and there == host and path != target.path:
                with suppress(ImageError):
                    manifest, config = self._images.layout.documents(digest)
                    blobs = {blob.digest for blob in (*manifest.layers, manifest.config)}
                    yield path, frozenset(blobs | {*config.rootfs.diff_ids})

    @contextmanager
    def _alone(self, digest: str) -> Iterator[None]:
        """One pull of an image at a time: the next one finds it in the store."""
        with self._guard:
            lock = self._pulls.setdefault(digest, threading.Lock())
        try:
            with lock:
                yield
        finally:
            with self._guard:
                self._pulls.pop(digest, None)


def _likely(near: Sequence[tuple[str, frozenset[str]]], digest: str, known_as: Mapping[str, str]) -> tuple[str, ...]:
    """Repositories that are likely to have a blob."""
    wanted = {digest, known_as.get(digest, digest)}
    return tuple(path for path, there in near if wanted & there)[:MOST_MOUNTS]


def stored_name(full: str) -> str:
    """What the store calls an image of this full name: Docker Hub's go without their host."""
    return str(reference.parse(full))
