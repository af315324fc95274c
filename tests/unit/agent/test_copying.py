"""File sessions and tar streams against an agent of our own, honest and hostile."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pytest

from bulkhead.agent.copying import copy_in, copy_out
from bulkhead.agent.files import PORTION, Files, Request
from bulkhead.agent.frames import Channel, Frame, ProtocolError, Type
from bulkhead.errors import AgentError, NotFound, Refused
from tests.unit.agent.peer import Peer

Handler = Callable[[int, list[bytes]], tuple[int, bytes]]


def describe(mode: int, *, size: int = 0, text: str = "", nlink: int = 1, inode: int = 1, mtime: int = 10**9) -> bytes:
    """A stat as it travels."""
    data = os.fsencode(text)
    return struct.pack("<IIIIQQQQII", mode, 1, 2, nlink, size, mtime, 0, inode, 0, len(data)) + data


def number(argument: bytes) -> int:
    """An integer argument."""
    return int.from_bytes(argument, "little")


@dataclass
class Tree:
    """Files in memory: a path's bytes, a link's text, None for a directory."""

    content: dict[str, bytes | str | None] = field(default_factory=lambda: {"/": None})
    modes: dict[str, int] = field(default_factory=dict)
    log: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    links: dict[str, tuple[int, int]] = field(default_factory=dict)

    def stat(self, path: str, name: str = "") -> bytes:
        """The stat of a path."""
        found = self.content[path]
        nlink, inode = self.links.get(path, (1, hash(path) & 0xFFFF))
        if found is None:
            return describe(stat.S_IFDIR | 0o755, text=name)
        if isinstance(found, str):
            return describe(stat.S_IFLNK | 0o777, text=name or found)
        return describe(
            self.modes.get(path, stat.S_IFREG | 0o644), size=len(found), text=name, nlink=nlink, inode=inode
        )

    def handle(self, code: int, arguments: list[bytes]) -> tuple[int, bytes]:
        """Answer a request."""
        path = os.path.normpath(os.fsdecode(arguments[0]))
        self.log.append((Request(code).name, (path, *arguments[1:])))
        if code in (Request.STAT, Request.LIST, Request.READ) and path not in self.content:
            return errno.ENOENT, b""
        match code:
            case Request.STAT:
                return 0, self.stat(path)
            case Request.LIST:
                children = [p for p in self.content if p != "/" and str(PurePosixPath(p).parent) == path]
                return 0, struct.pack("<Q", 0) + b"".join(self.stat(p, PurePosixPath(p).name) for p in children)
            case Request.READ:
                found = self.content[path]
                assert isinstance(found, bytes)
                return 0, found[number(arguments[1]) :][: number(arguments[2])]
            case Request.CREATE:
                self.content[path] = b""
            case Request.WRITE:
                found = self.content[path]
                assert isinstance(found, bytes)
                assert number(arguments[1]) == len(found)
                self.content[path] = found + arguments[2]
            case Request.MKDIR:
                self.content[path] = None
            case Request.SYMLINK:
                self.content[path] = os.fsdecode(arguments[1])
            case Request.LINK:
                self.content[path] = self.content[os.path.normpath(os.fsdecode(arguments[1]))]
        return 0, b""


Make = Callable[[Handler], Files]


@pytest.fixture
def make_files() -> Iterator[Make]:
    """Makes file sessions whose other end is a handler."""
    peers: list[Peer] = []

    def make(handler: Handler) -> Files:
        buffer = bytearray()

        def answer(peer: Peer, frame: Frame) -> None:
            if frame.type is Type.FILES:
                peer.send(Frame(Type.OK, frame.stream))
            if frame.type is not Type.DATA:
                return
            buffer.extend(frame.payload)
            peer.send(Frame(Type.CREDIT, frame.stream, struct.pack("<I", len(frame.payload)), Channel.STDIN))
            while len(buffer) >= 4 and len(buffer) >= 4 + (length := struct.unpack_from("<I", buffer)[0]):
                request = bytes(buffer[4 : 4 + length])
                del buffer[: 4 + length]
                code, body = handler(request[0], _blocks(request[1:]))
                data = struct.pack("<II", 4 + len(body), code) + body
                for start in range(0, len(data), 1 << 16):
                    peer.send(Frame(Type.DATA, frame.stream, data[start : start + (1 << 16)], Channel.STDOUT))

        peers.append(Peer(answer))
        return Files(peers[-1].session)

    yield make
    for peer in peers:
        peer.close()


def _blocks(data: bytes) -> list[bytes]:
    blocks = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        blocks.append(data[4 : 4 + length])
        data = data[4 + length :]
    return blocks


def unpack(stream: Iterator[bytes]) -> dict[str, tarfile.TarInfo]:
    """Members of a tar stream by name."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        return {info.name: info for info in archive}


LARGE = bytes(range(256)) * 1000


def test_out_and_in_again(make_files: Make) -> None:
    tree = Tree(
        {"/": None, "/data": None, "/data/b": LARGE, "/data/a": b"x", "/data/link": "../../etc", "/data/d": None}
    )
    out = b"".join(copy_out(make_files(tree.handle), "/data"))
    members = unpack(iter([out]))
    assert list(members) == ["data", "data/a", "data/b", "data/d", "data/link"]
    assert members["data/link"].linkname == "../../etc"
    assert (members["data/b"].uid, members["data/b"].gid, members["data/b"].mode) == (1, 2, 0o644)
    other = Tree({"/": None, "/to": None})
    copy_in(make_files(other.handle), io.BytesIO(out), "/to")
    assert {path: found for path, found in other.content.items() if path.startswith("/to/data/")} == {
        path.replace("/data", "/to/data"): found for path, found in tree.content.items() if path.startswith("/data/")
    }
    times = [entry[1][0] for entry in other.log if entry[0] == "TIMES"]
    assert times[-1] == "/to/data/d", "directories' times are set last"


def test_a_file_and_the_root(make_files: Make) -> None:
    tree = Tree({"/": None, "/f": LARGE})
    assert list(unpack(copy_out(make_files(tree.handle), "/f"))) == ["f"]
    assert list(unpack(copy_out(make_files(tree.handle), "/"))) == ["root", "root/f"]
    with pytest.raises(NotFound):
        list(copy_out(make_files(tree.handle), "/missing"))


def test_hard_links_stay_links_and_sockets_are_left_out(make_files: Make) -> None:
    tree = Tree({"/": None, "/d": None, "/d/one": b"same", "/d/two": b"same", "/d/s": b""})
    tree.links = {"/d/one": (2, 77), "/d/two": (2, 77)}
    tree.modes = {"/d/s": stat.S_IFSOCK | 0o777}
    members = unpack(copy_out(make_files(tree.handle), "/d"))
    assert list(members) == ["d", "d/one", "d/two"]
    assert members["d/two"].islnk()
    assert members["d/two"].linkname == "d/one"


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../../etc/passwd", "a\0b", "x" * 256])
def test_names_that_are_no_names_are_refused(make_files: Make, name: str) -> None:
    def handler(code: int, arguments: list[bytes]) -> tuple[int, bytes]:
        if code == Request.LIST:
            return 0, struct.pack("<Q", 0) + describe(stat.S_IFREG | 0o644, text=name)
        return 0, describe(stat.S_IFDIR | 0o755)

    with pytest.raises(ProtocolError):
        list(copy_out(make_files(handler), "/d"))


def test_lists_that_never_end_are_refused(make_files: Make) -> None:
    files = make_files(lambda code, arguments: (0, struct.pack("<Q", 7)))
    with pytest.raises(ProtocolError, match="does not end"):
        list(files.list("/d"))


@pytest.mark.parametrize(
    "body",
    [b"", b"\0" * 10, describe(0o777), describe(stat.S_IFREG, size=1 << 63), describe(stat.S_IFREG) + b"x",
     describe(stat.S_IFREG)[:-4] + struct.pack("<I", 1000)],
)  # fmt: skip
def test_stats_that_make_no_sense_are_refused(make_files: Make, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        make_files(lambda code, arguments: (0, body)).stat("/x")


def test_a_file_that_shrinks_or_lies(make_files: Make) -> None:
    def shrinking(code: int, arguments: list[bytes]) -> tuple[int, bytes]:
        return 0, describe(stat.S_IFREG | 0o644, size=1 << 50) if code == Request.STAT else b""

    with pytest.raises(AgentError, match="shorter"):
        list(copy_out(make_files(shrinking), "/f"))
    files = make_files(lambda code, arguments: (0, b"x" * (PORTION + 1)))
    with pytest.raises(ProtocolError):
        files.read("/f", 0, 1 << 30)


def test_answers_that_are_too_long_are_refused(make_files: Make) -> None:
    with pytest.raises(ProtocolError, match="long"):
        make_files(lambda code, arguments: (0, bytes(1 << 17))).read("/f", 0, 10)


def test_errors_have_names(make_files: Make) -> None:
    with pytest.raises(AgentError, match=r"cannot create /f in the instance: ENOSPC"):
        make_files(lambda code, arguments: (errno.ENOSPC, b"")).create("/f", mode=0o644, uid=0, gid=0)


def test_numbers_that_are_no_errors_are_refused(make_files: Make) -> None:
    with pytest.raises(ProtocolError, match="errno"):
        make_files(lambda code, arguments: (1 << 31, b"")).set_time("/f", 0)


def test_a_link_that_becomes_a_socket(make_files: Make) -> None:
    answers = iter([describe(stat.S_IFDIR | 0o755), struct.pack("<Q", 0) + describe(stat.S_IFLNK | 0o777, text="l"),
                    describe(stat.S_IFSOCK | 0o777)])  # fmt: skip
    assert list(unpack(copy_out(make_files(lambda code, arguments: (0, next(answers))), "/d"))) == ["d"]


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    """A tar file in memory."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        for info, content in members:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    made.seek(0)
    return made


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A member of a tar file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_absolute_names_go_below_the_directory(make_files: Make) -> None:
    tree = Tree({"/": None, "/to": None})
    copy_in(make_files(tree.handle), archive((member("/etc/passwd"), b"x"), (member("./y"), b"y")), "/to")
    assert tree.content["/to/etc/passwd"] == b"x"
    assert tree.content["/to/y"] == b"y"


@pytest.mark.parametrize(
    "info",
    [
        member("../x"),
        member("a/../../x"),
        member("a/.."),
        member("x" * 5000),
        member("hard", tarfile.LNKTYPE, "../../etc/shadow"),
        member("hard", tarfile.LNKTYPE, "."),
        member("disk", tarfile.BLKTYPE),
        member("kmem", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
)
def test_hostile_members_are_refused(make_files: Make, info: tarfile.TarInfo) -> None:
    tree = Tree({"/": None, "/to": None})
    with pytest.raises(Refused):
        copy_in(make_files(tree.handle), archive((info, b"")), "/to")
    assert set(tree.content) == {"/", "/to"}


def test_damaged_streams_and_huge_headers_are_refused(make_files: Make) -> None:
    tree = Tree({"/": None, "/to": None, "/file": b""})
    huge = member("x", tarfile.XHDTYPE)
    huge.size = 1 << 40
    for stream in (b"\xff" * 2048, huge.tobuf(), archive((member("a"), b"x" * 4096)).getvalue()[:1500]):
        with pytest.raises(Refused):
            copy_in(make_files(tree.handle), io.BytesIO(stream), "/to")
    with pytest.raises(Refused, match="not a directory"):
        copy_in(make_files(tree.handle), archive(), "/file")


@pytest.mark.parametrize("damage", [b"\xff" * 512, b"x" * 100, b"\0" * 511 + b"\1"])
def test_a_damaged_header_in_the_middle_is_not_the_end(make_files: Make, damage: bytes) -> None:
    tree = Tree({"/": None, "/to": None})
    first = archive((member("a"), b"x" * 512)).getvalue()[:1024]
    for stream in (first + damage, first + damage + archive((member("b"), b"y")).getvalue()):
        with pytest.raises(Refused, match="damaged"):
            copy_in(make_files(tree.handle), io.BytesIO(stream), "/to")
    assert tree.content["/to/a"] == b"x" * 512
    assert "/to/b" not in tree.content
    copy_in(make_files(tree.handle), io.BytesIO(first), "/to")
