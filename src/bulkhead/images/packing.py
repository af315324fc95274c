"""Layers in the compression that a push wants. What it comes to is remembered, so that it is done once."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from pathlib import Path

import zstandard

from bulkhead.errors import ImageError
from bulkhead.images import chunked, compression, documents
from bulkhead.images.archive import open_file
from bulkhead.images.bounds import Bounds, check_space
from bulkhead.images.documents import OCI_LAYER, Descriptor
from bulkhead.images.layout import Layout
from bulkhead.images.reader import Digester, file_chunks

FORMATS = ("gzip", "zstd", "zstd:chunked")
USUAL = "gzip"
"""Of layers that are not compressed at all: what every engine reads."""
_MEDIA = {"gzip": "+gzip", "zstd": "+zstd", "zstd:chunked": "+zstd"}
_GZIP_HEAD = gzip.compress(b"", mtime=0)[:10]
_GZIP_LEVEL, _ZSTD_LEVEL = 6, 3
_VERSION = 1
"""Of what is remembered: to be raised when the same layer is compressed to other bytes than before."""


def is_packed(layer: Descriptor, wanted: str | None) -> bool:
    """Whether a layer can be given away as it is; `wanted` None: compressed somehow."""
    if wanted == "zstd:chunked":
        return chunked.POSITION in layer.annotations
    suffix = layer.media_type.rpartition("tar")[2].lstrip("+.")
    return suffix == wanted if wanted else suffix in ("gzip", "zstd")


class Packer:
    """Compresses layers of a store. `directory`: where it remembers, in the cache."""

    def __init__(self, layout: Layout, directory: Path) -> None:
        self._layout = layout
        self._directory = directory

    def blob_path(self, layer: Descriptor) -> Path:
        """Where a layer of the store is."""
        return self._layout.blob_path(layer.digest)

    def known(self, diff_id: str, form: str) -> Descriptor | None:
        """What a layer came to when it was packed before."""
        try:
            said = json.loads(self._note(diff_id, form).read_bytes())
            return Descriptor.model_validate(said["layer"]) if said["version"] == _VERSION else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def pack(self, layer: Descriptor, diff_id: str, form: str, path: Path) -> Descriptor:
        """Write a layer to the new file `path` in another compression. Raises ImageError, Refused."""
        bounds = self._layout.bounds
        with ExitStack() as stack:
            source = open_file(self._layout.blob_path(layer.digest), stack)
            file = stack.enter_context(path.open("xb", buffering=1 << 20))
            check_space(file.fileno(), bounds)
            digester = stack.enter_context(closing(Digester()))
            kind, chunks = compression.sniff(file_chunks(source))
            plain = digester.pass_on(compression.unpack(kind, chunks, bounds))
            outer = stack.enter_context(closing(Digester()))
            annotations = _PACKERS[form](plain, _both(file.write, outer), bounds)
            if digester.finish() != diff_id:
                raise ImageError(f"layer {layer.digest} of the store is damaged")
            digest = outer.finish()
        made = Descriptor(
            media_type=OCI_LAYER + _MEDIA[form], digest=digest, size=path.stat().st_size, annotations=annotations
        )
        self._remember(diff_id, form, made)
        return made

    def _remember(self, diff_id: str, form: str, made: Descriptor) -> None:
        note = self._note(diff_id, form)
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = note.with_name(note.name + ".new")
        new.write_bytes(documents.dump({"version": _VERSION, "layer": made.model_dump(by_alias=True)}))
        new.replace(note)

    def _note(self, diff_id: str, form: str) -> Path:
        return self._directory / f"{diff_id.removeprefix('sha256:')}.{form.replace(':', '-')}.json"


def _both(write: Callable[[bytes], object], digester: Digester) -> Callable[[bytes], object]:
    def out(data: bytes) -> None:
        write(data)
        for _ in digester.pass_on([data]):
            pass

    return out


Out = Callable[[bytes], object]


def _gzip(plain: Iterable[bytes], out: Out, _: Bounds) -> dict[str, str]:
    """One member without a name or a time: the same layer gives the same bytes."""
    packer, crc, size = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS), 0, 0
    out(_GZIP_HEAD)
    for chunk in plain:
        crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        out(packer.compress(chunk))
    out(packer.flush() + crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))
    return {}


def _zstd(plain: Iterable[bytes], out: Out, _: Bounds) -> dict[str, str]:
    packer = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    for chunk in plain:
        out(packer.compress(chunk))
    out(packer.flush())
    return {}


def _chunked(plain: Iterable[bytes], out: Out, bounds: Bounds) -> dict[str, str]:
    return chunked.write(plain, out, bounds).annotations


_PACKERS: dict[str, Callable[[Iterable[bytes], Out, Bounds], dict[str, str]]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "zstd:chunked": _chunked,
}
