"""What builds need of the image store: images to begin with, layers that steps make, images that come of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkhead.errors import ImageError, Refused
from bulkhead.host.workspace import workspace
from bulkhead.images import documents, layer, reference, steps
from bulkhead.images.bounds import check_space
from bulkhead.images.config import Image, ImageConfig
from bulkhead.images.ingest import ingest, manifest_of
from bulkhead.images.layout import Layout
from bulkhead.images.node import show
from bulkhead.images.steps import Made

PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Base:
    """An image that is built on."""

    image: Image
    layers: tuple[Made, ...]
    """The lowest first."""
    history: tuple[Mapping[str, Any], ...]
    onbuild: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """An image that is to be made of layers that are there."""

    layers: Sequence[Made]
    config: ImageConfig
    onbuild: Sequence[str]
    history: Sequence[Mapping[str, Any]]
    architecture: str
    created: float


@dataclass(frozen=True, slots=True)
class Workshop:
    """Safe for threads."""

    layout: Layout

    def base(self, image: Image) -> Base:
        """What an image brings. Raises Refused where it is no root file system, ImageError where it is damaged."""
        if image.kind != documents.ROOTFS:
            raise Refused(f"image {image.references[0] if image.references else image.digest} is a {image.kind}")
        data = self.layout.read_document(image.digest)
        manifest = documents.read(documents.Manifest, data, f"manifest {image.digest}", self.layout.bounds)
        text = self.layout.read_document(manifest.config.digest)
        file = documents.read(documents.ConfigFile, text, f"config {manifest.config.digest}", self.layout.bounds)
        layers = tuple(
            Made(digest=blob.digest, size=blob.size, diff_id=diff_id, key=of.diff_id, media_type=blob.media_type)
            for blob, diff_id, of in zip(manifest.layers, file.rootfs.diff_ids, image.layers, strict=True)
        )
        return Base(image, layers, *_extras(json.loads(text)))

    def find(self, step: str) -> Made | None:
        """The layer that a step has made before; the caller sees to it that no prune runs meanwhile."""
        return steps.read(self.layout, self.layout.step(step))

    @contextmanager
    def make(self, step: str, chunks: Iterable[bytes], below: Sequence[Made], created: float) -> Iterator[Made]:
        """Make a layer of a tar. It is in the store, as what `step` has made, when the block ends without an error."""
        with ingest(self.layout) as into:
            descriptor, found = into.add_layer(_joined(chunks), below=[made.key for made in below], must_end=True)
            made = Made(
                digest=descriptor.digest,
                size=descriptor.size,
                diff_id=found.diff_id,
                key=found.key,
                created=created,
            )
            yield made
            into.keep_step(self.layout.step(step), documents.dump(made.model_dump()))
            into.commit()

    def finish(self, product: Product, names: Sequence[str]) -> str:
        """Make the image. Returns its manifest's digest."""
        when = documents.time_text(product.created)
        config = product.config.to_document()
        if product.onbuild:
            config["OnBuild"] = list(product.onbuild)
        document = {
            "architecture": product.architecture,
            "os": "linux",
            "created": when,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [made.diff_id for made in product.layers]},
            "history": [dict(entry) for entry in product.history],
        }
        if len(product.layers) > self.layout.bounds.layers:
            raise ImageError(
                f"the image has {len(product.layers)} layers, at most {self.layout.bounds.layers} are allowed",
                hint="join RUN steps, or begin a new stage and COPY --from the last one",
            )
        data = documents.dump(document)
        if len(data) > self.layout.bounds.document:
            raise ImageError(f"the image's configuration has {len(data)} bytes: too much")
        descriptors = [made.descriptor for made in product.layers]
        digest = documents.digest_of(manifest_of(data, descriptors))
        index = self.layout.index()
        if digest in index.images and all(index.names.get(name) == digest for name in names):
            return digest
        with ingest(self.layout) as into:
            for made in product.layers:
                into.pin(made.descriptor, made.key)
            into.add_image(data, descriptors, [made.key for made in product.layers], names)
            into.commit()
        return digest

    @contextmanager
    def context(self, chunks: Iterable[bytes], parent: Path | None = None) -> Iterator[Path]:
        """A build's context, a tar, as an EROFS file. It is gone at the end. Raises ImageError for attacks.

        `parent`: the directory to make it in; None: one of the store's.
        """
        with workspace(parent or self.layout.ingest) as (directory, _):
            check_space(directory, self.layout.bounds)
            path = directory / "context.erofs"
            with path.open("xb+") as file:
                try:
                    layer.unpack(chunks, bounds=self.layout.bounds, must_end=False, erofs=file.fileno())
                except ImageError as error:
                    raise ImageError(
                        f"the context: {error.what}".replace("in the layer", "in it"), hint=error.hint
                    ) from error
            yield path

    def names(self, given: Sequence[str]) -> list[str]:
        """Names as the store keeps them. Raises Refused."""
        return [str(reference.parse_tagged(name)) for name in given]


def _joined(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces: each is handed to a thread that makes digests, and that has its price."""
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size >= PIECE:
            yield b"".join(parts) if len(parts) > 1 else chunk
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _extras(document: Any) -> tuple[tuple[Mapping[str, Any], ...], tuple[str, ...]]:
    """The history and the triggers of a config document, where they are what they should be."""
    history = document.get("history") if isinstance(document, dict) else None
    entries = tuple(entry for entry in history or () if isinstance(entry, dict)) if isinstance(history, list) else ()
    config = document.get("config") if isinstance(document, dict) else None
    triggers = config.get("OnBuild") if isinstance(config, dict) else None
    if not isinstance(triggers, list):
        return entries, ()
    if not all(isinstance(trigger, str) for trigger in triggers):
        raise ImageError(f"the image's ONBUILD is not text: {show(str(triggers).encode()[:100])}")
    return entries, tuple(triggers)
