"""Which files are opened on a file system, and by whom: fanotify(7).

Each opener waits until it has been answered, so that it is still there when it is asked about, nothing is lost however
much is opened, and whoever opens more than can be told of is slowed down, not the one who listens. When the descriptor
is closed, also by the end of this process, the kernel lets everybody go on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bulkhead.host.syscalls import CallError

_CLASS_CONTENT, _CLOEXEC, _NONBLOCK = 0x4, 0x1, 0x2
_MARK_ADD, _MARK_FILESYSTEM = 0x1, 0x100
_OPEN_PERM, _OPEN_EXEC_PERM, _OVERFLOW = 0x10000, 0x40000, 0x4000
_EVENT = struct.Struct("=IBBHQii")
_ANSWER = struct.Struct("=iI")
_ALLOW = 1
_AT_FDCWD = -100
_BUFFER = 1 << 16
_DELETED = " (deleted)"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fanotify_init.argtypes = (ctypes.c_uint, ctypes.c_uint)
_libc.fanotify_mark.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p)


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that a process opens; `executed`: to execute it, or as the interpreter of what it executes."""

    pid: int
    path: str
    """As seen in the process's root; bytes that are not UTF-8 are U+DC80 to U+DCFF."""
    executed: bool
    script: bool
    """Whether it begins with `#!`; told of what is executed alone."""


class Opens:
    """Listens to one file system. Use as a context; `events` in one thread, which opens nothing on that file system."""

    def __init__(self, path: Path) -> None:
        """`path` is on it, and may lead through /proc/PID/root. Raises CallError."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE
        self._descriptor = _libc.fanotify_init(_CLASS_CONTENT | _CLOEXEC | _NONBLOCK, flags)
        if self._descriptor < 0:
            raise CallError("fanotify_init", path, ctypes.get_errno(), hint="a kernel with permission events, and root")
        how, what = _MARK_ADD | _MARK_FILESYSTEM, _OPEN_PERM | _OPEN_EXEC_PERM
        if _libc.fanotify_mark(self._descriptor, how, what, _AT_FDCWD, os.fsencode(path)) < 0:
            number = ctypes.get_errno()
            os.close(self._descriptor)
            raise CallError("fanotify_mark", path, number)

    def __enter__(self) -> Opens:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def events(self, *, seconds: float) -> Iterator[Opened]:
        """What is being opened now; nothing where nothing is within so many seconds. Openers go on one after the other,
        each when the next one is asked for."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return
        try:
            data = os.read(self._descriptor, _BUFFER)
        except BlockingIOError:
            return
        waiting = deque(_parsed(data))
        try:
            while waiting:
                pid, descriptor, executed = waiting[0]
                yield _told(pid, descriptor, executed=executed)
                waiting.popleft()
                self._answer(descriptor)
        finally:
            for _, descriptor, _ in waiting:
                self._answer(descriptor)

    def _answer(self, descriptor: int) -> None:
        os.write(self._descriptor, _ANSWER.pack(descriptor, _ALLOW))
        os.close(descriptor)


def _parsed(data: bytes) -> Iterator[tuple[int, int, bool]]:
    offset = 0
    while offset < len(data):
        length, _, _, _, mask, descriptor, pid = _EVENT.unpack_from(data, offset)
        offset += length
        if mask & _OVERFLOW or descriptor < 0:
            raise CallError("fanotify", "its queue", errno.EOVERFLOW)
        yield pid, descriptor, bool(mask & _OPEN_EXEC_PERM)


def _told(pid: int, descriptor: int, *, executed: bool) -> Opened:
    path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a name, not a place
    script = False
    if executed:
        try:
            script = os.pread(descriptor, 2, 0) == b"#!"
        except OSError:
            script = False
    return Opened(pid, path.removesuffix(_DELETED), executed, script)
