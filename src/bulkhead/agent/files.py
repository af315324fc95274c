"""Files of an instance, read and written by its agent inside its root. See "Files" in the protocol.

Answers come from within a wall: every length, name and number in them is checked.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from bulkhead.agent import frames
from bulkhead.agent.explain import explain
from bulkhead.agent.frames import Channel, Frame, ProtocolError, Type, Window
from bulkhead.agent.session import Session
from bulkhead.errors import AgentError, NotFound

PORTION = 48 << 10
"""Bytes of a file in one request or answer."""
MAX_ANSWER = 64 << 10
MAX_ENTRIES = 1 << 20
"""Of one directory."""
ANSWER_SECONDS = 60.0
GIVE_BACK = 1 << 16
_STAT = struct.Struct("<IIIIQQQQII")
_RANGE = struct.Struct("<QQ")
_TYPES = {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK}


class Request(IntEnum):
    """Codes of requests."""

    STAT = 1
    LIST = 2
    READ = 3
    CREATE = 4
    WRITE = 5
    MKDIR = 6
    SYMLINK = 7
    TIMES = 8
    LINK = 9
    OWNER = 10
    REMOVE = 11
    PIPE = 12
    TRUNCATE = 13
    DATA = 14
    ATTRIBUTES = 15
    SET_ATTRIBUTE = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a file. Ids are as inside, `mtime` is in ns since the epoch."""

    name: str
    """In its directory; "" from `stat`."""
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    mtime: int
    changed: int
    """When anything of it changed last, in ns since the epoch: a program cannot set it."""
    inode: int
    device: int
    target: str = ""
    """Where a symbolic link points to, from `stat`."""


class Files:
    """A file session: one request at a time. Paths are resolved in the instance's root."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stream = session.open(Type.FILES)
        answer = session.answer(self._stream, ANSWER_SECONDS)
        if answer.type is Type.ERROR:
            raise explain(frames.parse_failure(answer.payload), ())
        self._ours, self._theirs = Window(), Window()
        self._received = bytearray()

    def close(self) -> None:
        """End the session in order."""
        self._session.send(Frame(Type.EOF, self._stream, b"", Channel.STDIN))
        self._session.send(Frame(Type.CLOSE, self._stream))
        self._session.forget(self._stream)

    def stat(self, path: str, *, follow: bool = False) -> Entry:
        """What `path` is. Raises NotFound."""
        body = self._ask(Request.STAT, path, int(follow))
        entry, text, end = _parse_entry(body, 0)
        if end != len(body):
            raise ProtocolError(f"the agent's answer about {path} has {len(body) - end} bytes too many")
        return _make(entry, name="", target=text if stat.S_ISLNK(entry[0]) else "")

    def list(self, path: str) -> Iterator[Entry]:
        """What is in a directory, without "." and "..", in no order."""
        offset, count = 0, 0
        while True:
            body = self._ask(Request.LIST, path, offset)
            if len(body) < 8:
                raise ProtocolError(f"the agent's list of {path} is cut short")
            (following,) = struct.unpack_from("<Q", body)
            at = 8
            while at < len(body):
                entry, name, at = _parse_entry(body, at)
                count += 1
                if count > MAX_ENTRIES:
                    raise AgentError(f"{path} has more than {MAX_ENTRIES} entries")
                yield _make(entry, name=_check_name(name, path), target="")
            if not following:
                return
            if following == offset:
                raise ProtocolError(f"the agent's list of {path} does not end")
            offset = following

    def read(self, path: str, offset: int, count: int) -> bytes:
        """At most `count` (and PORTION) bytes; fewer only at the end."""
        wanted = min(count, PORTION)
        body = self._ask(Request.READ, path, offset, wanted)
        if len(body) > wanted:
            raise ProtocolError(f"the agent answered with {len(body)} bytes of {path} instead of {wanted}")
        return body

    def create(self, path: str, *, mode: int, uid: int, gid: int) -> None:
        """An empty regular file in place of whatever is there."""
        self._ask(Request.CREATE, path, mode, uid, gid)

    def write(self, path: str, offset: int, data: bytes) -> None:
        """Write at most PORTION bytes."""
        self._ask(Request.WRITE, path, offset, data)

    def mkdir(self, path: str, *, mode: int, uid: int, gid: int) -> None:
        """A directory; one that is there stays as it is."""
        self._ask(Request.MKDIR, path, mode, uid, gid)

    def symlink(self, path: str, target: str, *, uid: int, gid: int) -> None:
        """A symbolic link with any text as its target."""
        self._ask(Request.SYMLINK, path, target, uid, gid)

    def set_time(self, path: str, mtime: int) -> None:
        """Set the time of the last change, in ns since the epoch."""
        self._ask(Request.TIMES, path, mtime)

    def link(self, path: str, existing: str) -> None:
        """Another name for a file."""
        self._ask(Request.LINK, path, existing)

    def set_owner(self, path: str, *, mode: int, uid: int, gid: int) -> None:
        """Of a directory or a regular file."""
        self._ask(Request.OWNER, path, mode, uid, gid)

    def remove(self, path: str) -> None:
        """A name, or an empty directory."""
        self._ask(Request.REMOVE, path)

    def make_pipe(self, path: str, *, mode: int, uid: int, gid: int) -> None:
        """A named pipe in place of what is there."""
        self._ask(Request.PIPE, path, mode, uid, gid)

    def truncate(self, path: str, size: int) -> None:
        """Make a regular file so long; what is new reads as zeros."""
        self._ask(Request.TRUNCATE, path, size)

    def data(self, path: str, offset: int) -> tuple[int, int]:
        """Where the next bytes from `offset` on are that are no hole, and where they end; the size twice for none."""
        body = self._ask(Request.DATA, path, offset)
        if len(body) != _RANGE.size:
            raise ProtocolError(f"the agent's answer about the holes of {path} is {len(body)} bytes long")
        begin, end = _RANGE.unpack(body)
        return begin, end

    def attributes(self, path: str) -> dict[str, bytes]:
        """Extended attributes of a directory or a regular file."""
        body, at, found = self._ask(Request.ATTRIBUTES, path), 0, {}
        while at < len(body):
            name, at = _parse_block(body, at)
            value, at = _parse_block(body, at)
            found[os.fsdecode(name)] = value
        return found

    def set_attribute(self, path: str, name: str, value: bytes) -> None:
        """Set an extended attribute of a directory or a regular file."""
        self._ask(Request.SET_ATTRIBUTE, path, name, value)

    def _ask(self, code: Request, path: str, *arguments: int | bytes | str) -> bytes:
        parts = [_argument(path), *map(_argument, arguments)]
        request = bytes((code,)) + b"".join(parts)
        self._send(struct.pack("<I", len(request)) + request)
        (length,) = struct.unpack("<I", self._take(4))
        if not 4 <= length <= MAX_ANSWER:
            raise ProtocolError(f"the agent's answer about {path} is {length} bytes long")
        answer = self._take(length)
        (number,) = struct.unpack_from("<I", answer)
        frames.check_errno(number)
        if number == errno.ENOENT:
            raise NotFound(f"{path} does not exist in the instance")
        if number:
            why = f"{errno.errorcode.get(number, f'error {number}')} ({os.strerror(number)})"
            raise AgentError(f"cannot {code.name.lower()} {path} in the instance: {why}")
        return answer[4:]

    def _send(self, data: bytes) -> None:
        while data:
            while not self._ours.left:
                self._receive()
            part = data[: min(frames.MAX_DATA, self._ours.left)]
            self._session.send(Frame(Type.DATA, self._stream, part, Channel.STDIN))
            self._ours.spend(len(part))
            data = data[len(part) :]

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def _receive(self) -> None:
        try:
            frame = self._session.next(self._stream, ANSWER_SECONDS)
        except TimeoutError as error:
            raise AgentError(f"the agent did not answer within {ANSWER_SECONDS:g} s") from error
        match frame.type:
            case Type.CREDIT:
                self._ours.refill(frames.parse_credit(frame.payload))
            case Type.DATA:
                self._theirs.spend(len(frame.payload))
                self._received += frame.payload
                used = frames.CREDIT - self._theirs.left
                if used >= GIVE_BACK:
                    self._theirs.refill(used)
                    credit = used.to_bytes(4, "little")
                    self._session.send(Frame(Type.CREDIT, self._stream, credit, Channel.STDOUT))
            case _:
                raise AgentError("the agent ended the file session")


def _argument(value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return struct.pack("<IQ", 8, value)
    data = os.fsencode(value)
    return struct.pack("<I", len(data)) + data


def _parse_entry(body: bytes, at: int) -> tuple[tuple[int, ...], str, int]:
    """A stat's numbers, its text, and where it ends."""
    if len(body) < at + _STAT.size:
        raise ProtocolError("the agent's answer is cut in the middle of a file's description")
    *numbers, length = _STAT.unpack_from(body, at)
    start = at + _STAT.size
    if len(body) < start + length:
        raise ProtocolError("the agent's answer is cut in the middle of a file's name")
    return tuple(numbers), os.fsdecode(body[start : start + length]), start + length


def _parse_block(body: bytes, at: int) -> tuple[bytes, int]:
    """A length and as many bytes, and where they end."""
    start = at + 4
    end = start + int.from_bytes(body[at:start], "little")
    if len(body) < start or len(body) < end:
        raise ProtocolError("the agent's answer is cut in the middle of an attribute")
    return body[start:end], end


def _make(numbers: tuple[int, ...], *, name: str, target: str) -> Entry:
    mode, uid, gid, nlink, size, mtime, changed, inode, device = numbers
    if stat.S_IFMT(mode) not in _TYPES:
        raise ProtocolError(f"the agent says that {name or 'a file'} has the mode {mode:#o}")
    if size >= 1 << 63 or mtime >= 1 << 63:
        raise ProtocolError(f"the agent says that {name or 'a file'} has {size} bytes and the time {mtime}")
    return Entry(name, mode, uid, gid, nlink, size, mtime, changed, inode, device, target)


def _check_name(name: str, path: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        raise ProtocolError(f"the agent lists a file {name[:80]!r} in {path}")
    return name
