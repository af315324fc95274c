"""A layer put together from those that are here, and only what none of them has fetched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from bulkhead.errors import ImageError
from bulkhead.images import runs
from bulkhead.images.archive import open_file
from bulkhead.images.documents import Descriptor
from bulkhead.images.layout import Layout
from bulkhead.images.registry.client import Repository
from bulkhead.images.registry.fetch import Download
from bulkhead.images.runs import Run

WORTHWHILE = 1 << 20
"""Bytes of a blob from which on it is tried."""
_MOST_LAYERS = 64
"""Of the store, whose runs are looked at."""
_MOST_TAIL = 64 << 20
_NEAR = 32 << 10
"""What lies between two ranges that are fetched is fetched with them where it is no longer than this."""


@dataclass(frozen=True, slots=True)
class _Have:
    """A run of a layer of the store."""

    fd: int
    run: Run


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the new blob; `have` None: they are to be fetched."""

    offset: int
    end: int
    have: _Have | None


def fill(repository: Repository, download: Download, layout: Layout) -> bool:
    """Fill a download with what the store's layers have of it and the rest. False where that is not possible."""
    blob = download.descriptor
    place = runs.place_of(blob)
    if place is None or blob.size < WORTHWHILE or blob.size - place[0] > min(_MOST_TAIL, blob.size // 2):
        return False
    with ExitStack() as stack:
        known = _known(layout, stack)
        if not known:
            return False
        start = place[0] - runs.SKIP_HEAD
        tail = b"".join(repository.blob(blob, start))
        download.moved += len(tail)
        table = tail[runs.SKIP_HEAD : runs.SKIP_HEAD + place[1]]
        with suppress(ImageError):
            for piece in plan(runs.parse(table, start), known, start):
                _put(repository, download, piece)
            download.append(tail[max(0, download.have - start) :], moved=False)
            return True
    return False


def plan(wanted: Iterable[Run], known: dict[bytes, _Have], end: int) -> list[Piece]:
    """What of a blob comes from where, in order, up to byte `end`, from which on it is known."""
    pieces: list[Piece] = []
    at = 0
    for run in wanted:
        have = known.get(run.mark)
        here = have if have and have.run.size == run.size else None
        pieces.append(Piece(run.offset, run.end, here))
        at = run.end
    if at < end:
        pieces.append(Piece(at, end, None))
    return list(_joined(pieces))


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbours that are fetched as one, with what little is between them."""
    fetched: Piece | None = None
    waiting: list[Piece] = []
    for piece in pieces:
        if piece.have is None:
            fetched = Piece(fetched.offset if fetched else piece.offset, piece.end, None)
            waiting = []
        elif fetched and piece.end - fetched.end <= _NEAR:
            waiting.append(piece)
        else:
            if fetched:
                yield fetched
                yield from waiting
            fetched, waiting = None, []
            yield piece
    if fetched:
        yield fetched
    yield from waiting


def _put(repository: Repository, download: Download, piece: Piece) -> None:
    """Append one piece, or what a pull before has left of it to do."""
    at = max(piece.offset, download.have)
    if at >= piece.end:
        return
    if piece.have is None:
        for chunk in repository.blob(download.descriptor, at, piece.end):
            download.append(chunk)
        return
    download.resumed = True  # it may be wrong without anybody's intent
    begin = piece.have.run.offset + at - piece.offset
    data = os.pread(piece.have.fd, piece.end - at, begin)
    if len(data) < piece.end - at:
        raise ImageError("a layer of the store has been cut off")
    download.append(data, moved=False)


def _known(layout: Layout, stack: ExitStack) -> dict[bytes, _Have]:
    """Every run of the store's layers that have tables."""
    found: dict[bytes, _Have] = {}
    for layer in _layers(layout):
        place = runs.place_of(layer)
        path = layout.blob_path(layer.digest)
        if place is None or not layout.is_sound(path, size=layer.size):
            continue
        with suppress(ImageError):
            fd = open_file(path, stack)
            table = os.pread(fd, place[1], place[0])
            for run in runs.parse(table, place[0] - runs.SKIP_HEAD):
                found.setdefault(run.mark, _Have(fd, run))
    return found


def _layers(layout: Layout) -> list[Descriptor]:
    """The layers with tables of the images that came last."""
    found: dict[str, Descriptor] = {}
    index = layout.index()
    newest = sorted(index.images, key=lambda digest: -_changed(layout, digest))
    for digest in newest:
        with suppress(ImageError):
            manifest, _ = layout.documents(digest)
            found.update({layer.digest: layer for layer in manifest.layers if runs.RUNS in layer.annotations})
        if len(found) >= _MOST_LAYERS:
            break
    return list(found.values())[:_MOST_LAYERS]


def _changed(layout: Layout, digest: str) -> float:
    try:
        return layout.blob_path(digest).stat().st_mtime
    except OSError:
        return 0.0
