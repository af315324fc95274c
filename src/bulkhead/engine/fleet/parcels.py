"""An instance's files as bytes between two hosts: what is not a hole, in order, with a digest over all of it.

A head as JSON on one line; then frames of a file's number, an offset and a length, each followed by that many bytes;
then a frame of the number END with 32 bytes, the SHA-256 of all frames before it. Reading one is bounded by the sizes
in the head, whatever is sent.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from bulkhead.errors import Refused
from bulkhead.host import private, sparse
from bulkhead.moves import Parcel, Receipt

_FRAME = struct.Struct(">BQI")
END = 255
PORTION = 1 << 20
MOST_HEAD = 4 << 20
MOST_SMALL = 1 << 30
"""Bytes of all files that are no disk."""
DISK = "disk.img"


class Sender:
    """The bytes of a parcel, each once; `told` gets how many have gone. `rate`: at most so many a second."""

    def __init__(self, parcel: Parcel, directory: Path, *, told: Callable[[int], None], rate: int | None) -> None:
        self._parcel, self._directory, self._told, self._rate = parcel, directory, told, rate
        self.sent = 0
        self.digest = ""

    def __iter__(self) -> Iterator[bytes]:
        yield self._parcel.model_dump_json().encode() + b"\n"
        digest, began = hashlib.sha256(), time.monotonic()
        for number, (name, size) in enumerate(self._parcel.files.items()):
            with (self._directory / name).open("rb") as file:
                for at, data in _portions(file.fileno(), size):
                    frame = _FRAME.pack(number, at, len(data)) + data
                    digest.update(frame)
                    yield frame
                    self.sent += len(data)
                    self._told(self.sent)
                    if self._rate:
                        time.sleep(max(0.0, began + self.sent / self._rate - time.monotonic()))
        self.digest = digest.hexdigest()
        yield _FRAME.pack(END, 0, 32) + digest.digest()


def _portions(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    for start, end in sparse.extents(descriptor):
        at = start
        while at < min(end, size):
            data = os.pread(descriptor, min(PORTION, end - at, size - at), at)
            if not data:
                break
            if data.count(0) != len(data):
                yield at, data
            at += len(data)


def read_head(stream: BinaryIO) -> bytes:
    """The line of JSON. Raises Refused."""
    line = stream.readline(MOST_HEAD)
    if not line.endswith(b"\n"):
        raise Refused(f"a parcel does not begin with a line of at most {MOST_HEAD} bytes")
    return line


def receive(parcel: Parcel, stream: BinaryIO, directory: Path) -> Receipt:
    """Make the files of a parcel in an empty directory, on the disk for good. Raises Refused for what is not one."""
    digest, received = hashlib.sha256(), 0
    names = list(parcel.files)
    with ExitStack() as always:
        files = []
        for name, size in parcel.files.items():
            descriptor = private.create(directory / name)
            always.callback(os.close, descriptor)
            os.truncate(descriptor, size)
            files.append(descriptor)
        ends = [0] * len(files)
        while True:
            head = exactly(stream, _FRAME.size)
            number, at, length = _FRAME.unpack(head)
            if number == END:
                if length != 32 or exactly(stream, 32) != digest.digest():
                    raise Refused("what has arrived is not what was sent: its digest is another")
                break
            if number >= len(files) or length > PORTION or at < ends[number]:
                raise Refused(f"a parcel has no such part: file {number}, {length} bytes at {at}")
            if at + length > parcel.files[names[number]]:
                raise Refused(f"{names[number]} has more bytes than it was said to have")
            data = exactly(stream, length)
            digest.update(head + data)
            view = memoryview(data)
            while view:
                done = os.pwrite(files[number], view, at)
                view, at = view[done:], at + done
            ends[number] = at
            received += length
        for descriptor in files:
            os.fsync(descriptor)
    return Receipt(received=received, digest=digest.hexdigest())


def measure(stream: BinaryIO, padding: int, directory: Path) -> None:
    """Take so many bytes as `receive` would, into a file of no name: how long that takes is how fast the way is."""
    digest = hashlib.sha256()
    descriptor = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        left = padding
        while left:
            data = exactly(stream, min(left, PORTION))
            digest.update(data)
            file.write(data)
            left -= len(data)
        file.flush()
        os.fsync(file.fileno())


def exactly(stream: BinaryIO, count: int) -> bytes:
    """So many bytes. Raises Refused where there are fewer."""
    data = stream.read(count)
    if len(data) != count:
        raise Refused("a parcel ends in the middle")
    return data
