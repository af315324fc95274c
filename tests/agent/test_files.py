"""The file session: reading and writing an instance's files through its agent."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.agent.box import Box, command
from tests.agent.wire import DATA, EOF, EXIT, FILES, Connection, block

STAT, LIST, READ, CREATE, WRITE, MKDIR, SYMLINK, TIMES, LINK = range(1, 10)
HOLD = 4


@dataclass(frozen=True)
class Stat:
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    mtime: int
    inode: int
    device: int
    text: bytes


def parse_stats(body: bytes) -> list[Stat]:
    found = []
    while body:
        mode, uid, gid, nlink, size, mtime, _, inode, device, length = struct.unpack_from("<IIIIQQQQII", body)
        found.append(Stat(mode, uid, gid, nlink, size, mtime, inode, device, body[56 : 56 + length]))
        body = body[56 + length :]
    return found


class Session:
    """One file session; `ask` gives the errno and the body."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.stream = connection.open(FILES)
        self.pid = struct.unpack("<I", connection.answer(self.stream))[0]
        self.received = b""

    def raw(self, data: bytes) -> None:
        for start in range(0, len(data), 65536):
            self.connection.send(DATA, self.stream, data[start : start + 65536])

    def ask(self, code: int, *arguments: int | bytes | str) -> tuple[int, bytes]:
        request = bytes([code]) + b"".join(
            block(struct.pack("<Q", item) if isinstance(item, int) else item) for item in arguments
        )
        self.raw(struct.pack("<I", len(request)) + request)
        return self.answer()

    def answer(self) -> tuple[int, bytes]:
        def take(count: int) -> bytes:
            while len(self.received) < count:
                frame = self.connection.next(self.stream)
                assert (frame.type, frame.channel) == (DATA, 1), frame
                self.received += frame.payload
            taken, self.received = self.received[:count], self.received[count:]
            return taken

        body = take(struct.unpack("<I", take(4))[0])
        return struct.unpack_from("<I", body)[0], body[4:]

    def fine(self, code: int, *arguments: int | bytes | str) -> bytes:
        error, body = self.ask(code, *arguments)
        assert error == 0, os.strerror(error)
        return body

    def stat(self, path: str, *, follow: bool = False) -> Stat:
        return parse_stats(self.fine(STAT, path, int(follow)))[0]


@pytest.fixture
def session(box: Box) -> Iterator[Session]:
    """A session with an instance that runs nothing."""
    connection = box.launch()
    connection.start(box.request(flags=HOLD))
    session = Session(connection)
    yield session
    session.connection.send(EOF, session.stream)
    assert session.connection.next(session.stream).type == EXIT


def test_stat(session: Session) -> None:
    found = session.stat("/home/user")
    assert (stat.S_ISDIR(found.mode), found.uid, found.gid) == (True, 1000, 1000)
    link = session.stat("/bin/sh")
    assert (stat.S_ISLNK(link.mode), link.text) == (True, b"busybox")
    followed = session.stat("/bin/sh", follow=True)
    assert (stat.S_ISREG(followed.mode), followed.text) == (True, b"")
    assert followed.size == os.stat("/bin/busybox").st_size  # noqa: PTH116
    assert session.ask(STAT, "/none", 0) == (errno.ENOENT, b"")
    assert stat.S_ISDIR(session.stat("/").mode)


def test_list(session: Session) -> None:
    body = session.fine(LIST, "/", 0)
    assert struct.unpack_from("<Q", body)[0] == 0
    names = {entry.text for entry in parse_stats(body[8:])}
    assert {b"bin", b"etc", b"home", b"tmp"} <= names
    assert not names & {b".", b".."}
    assert session.ask(LIST, "/etc/passwd", 0)[0] == errno.ENOTDIR


def test_a_large_directory_in_parts(session: Session, box: Box) -> None:
    directory = box.upper / "many"
    directory.mkdir()
    wanted = {f"{number:05}-{'x' * 200}".encode() for number in range(2000)}
    for name in wanted:
        (directory / name.decode()).touch()
    found: list[bytes] = []
    offset, parts = 0, 0
    while parts == 0 or offset:
        body = session.fine(LIST, "/many", offset)
        assert len(body) <= (48 << 10) + 8
        offset = struct.unpack_from("<Q", body)[0]
        found += [entry.text for entry in parse_stats(body[8:])]
        parts += 1
    assert parts > 5
    assert len(found) == len(wanted)
    assert set(found) == wanted


def test_write_and_read(session: Session, box: Box) -> None:
    session.fine(CREATE, "/home/user/new", 0o4755, 1000, 50)
    data = os.urandom(100_000)
    for start in range(0, len(data), 48 << 10):
        session.fine(WRITE, "/home/user/new", start, data[start : start + (48 << 10)])
    found = session.stat("/home/user/new")
    assert (found.mode, found.uid, found.gid, found.size) == (stat.S_IFREG | 0o4755, 1000, 50, len(data))
    read = b""
    while part := session.fine(READ, "/home/user/new", len(read), 48 << 10):
        read += part
    assert read == data
    assert session.fine(READ, "/home/user/new", len(data) - 3, 100) == data[-3:]
    on_disk = box.upper / "home/user/new"
    assert on_disk.read_bytes() == data
    assert (on_disk.stat().st_uid, on_disk.stat().st_mode & 0o7777) == (1000, 0o4755)
    seen = session.connection.exec(command("stat", "-c", "%u:%g %a", "/home/user/new"))
    assert seen.out == b"1000:50 4755\n"


def test_create_replaces_what_is_there(session: Session) -> None:
    session.fine(SYMLINK, "/tmp/link", "/etc/passwd", 0, 0)
    session.fine(CREATE, "/tmp/link", 0o600, 0, 0)
    assert stat.S_ISREG(session.stat("/tmp/link").mode)
    assert session.stat("/etc/passwd").size > 0
    assert session.ask(CREATE, "/etc", 0o600, 0, 0)[0] == errno.EISDIR
    assert session.ask(CREATE, "/none/file", 0o600, 0, 0)[0] == errno.ENOENT


def test_directories_links_and_times(session: Session) -> None:
    session.fine(MKDIR, "/made", 0o1770, 5, 6)
    found = session.stat("/made")
    assert (found.mode, found.uid, found.gid) == (stat.S_IFDIR | 0o1770, 5, 6)
    session.fine(MKDIR, "/made", 0o700, 0, 0)
    assert session.stat("/made").mode == stat.S_IFDIR | 0o1770
    assert session.ask(MKDIR, "/etc/passwd", 0o700, 0, 0)[0] == errno.EEXIST
    session.fine(SYMLINK, "/made/link", "any text", 7, 8)
    session.fine(SYMLINK, "/made/link", "../other", 7, 8)
    link = session.stat("/made/link")
    assert (link.text, link.uid, link.gid) == (b"../other", 7, 8)
    session.fine(TIMES, "/made/link", 1_234_567_890_123_456_789)
    session.fine(TIMES, "/made", 17)
    assert session.stat("/made/link").mtime == 1_234_567_890_123_456_789
    assert session.stat("/made").mtime == 17
    session.fine(CREATE, "/made/one", 0o600, 0, 0)
    session.fine(LINK, "/made/two", "/made/one")
    session.fine(LINK, "/made/two", "/made/one")
    one, two = session.stat("/made/one"), session.stat("/made/two")
    assert (one.inode, one.nlink) == (two.inode, 2)


def test_links_lead_nowhere_but_to_the_root(session: Session, box: Box) -> None:
    outside = box.bundle / "secret"
    outside.write_text("secret")
    for target in (str(outside), f"../../../../..{outside}", f"/proc/1/root{outside}", f"/proc/1/cwd{outside}"):
        session.fine(SYMLINK, "/tmp/link", target, 0, 0)
        assert session.ask(READ, "/tmp/link", 0, 100)[0] in (errno.ENOENT, errno.ELOOP, errno.EACCES)
    session.fine(SYMLINK, "/tmp/up", "../../../../../../..", 0, 0)
    session.fine(CREATE, "/tmp/up/here", 0o600, 0, 0)
    assert (box.upper / "here").exists()
    session.fine(SYMLINK, "/tmp/magic", "/proc/self/root", 0, 0)
    assert session.ask(READ, "/tmp/magic" + str(outside), 0, 100)[0] in (errno.ELOOP, errno.ENOENT)
    assert session.ask(READ, "/proc/1/exe", 0, 100)[0] in (errno.ELOOP, errno.EACCES)


def test_only_regular_files_are_opened(session: Session) -> None:
    session.connection.exec(command("mkfifo", "/tmp/fifo"))
    assert session.ask(READ, "/tmp/fifo", 0, 10)[0] == errno.EINVAL
    assert session.ask(WRITE, "/tmp/fifo", 0, b"x")[0] == errno.EINVAL
    assert session.ask(READ, "/dev/zero", 0, 10)[0] == errno.EINVAL
    assert session.ask(READ, "/tmp", 0, 10)[0] == errno.EISDIR
    session.fine(SYMLINK, "/tmp/to", "/etc/passwd", 0, 0)
    assert session.ask(WRITE, "/tmp/to", 0, b"x")[0] in (errno.EINVAL, errno.ELOOP)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ()),
        (200, ("/",)),
        (255, ()),
        (STAT, ("/",)),
        (STAT, ("/", 0, 0)),
        (STAT, ("/", b"abc")),
        (STAT, ("/\0x", 0)),
        (STAT, ("/" + "x" * 5000, 0)),
        (READ, ("/etc/passwd", 0, (48 << 10) + 1)),
        (READ, ("/etc/passwd", 1 << 63, 1)),
        (WRITE, ("/etc/passwd", (1 << 63) - 1, b"x")),
        (SYMLINK, ("/x", "y", 1 << 32, 0)),
    ],
)
def test_a_request_that_makes_no_sense(session: Session, code: int, arguments: tuple[int | str | bytes, ...]) -> None:
    assert session.ask(code, *arguments) == (errno.EPROTO, b"")
    assert stat.S_ISDIR(session.stat("/").mode)


@pytest.mark.parametrize("path", ["", ".", "..", "/", "/tmp/..", "/tmp/."])
def test_names_that_are_none(session: Session, path: str) -> None:
    assert session.ask(CREATE, path, 0o600, 0, 0)[0] == errno.EINVAL
    assert session.ask(MKDIR, path, 0o600, 0, 0)[0] == errno.EINVAL


def test_owners_outside_the_range_are_refused(session: Session) -> None:
    assert session.ask(CREATE, "/tmp/x", 0o600, 65536, 0)[0] == errno.EINVAL
    assert session.ask(CREATE, "/tmp/x", 0o600, 0, 1 << 32)[0] == errno.EINVAL


@pytest.mark.parametrize("length", [0, (64 << 10) + 1, 0xFFFFFFFF])
def test_a_length_that_makes_no_sense_ends_the_session(box: Box, length: int) -> None:
    connection = box.launch()
    connection.start(box.request(flags=HOLD))
    session = Session(connection)
    session.raw(struct.pack("<I", length))
    assert connection.next(session.stream).type == EXIT
    assert connection.info()["state"] == "running"


def test_several_sessions_of_a_running_instance(box: Box) -> None:
    connection = box.launch()
    connection.start(box.request("sleep", "1000"))
    sessions = [Session(connection) for _ in range(3)]
    for number, session in enumerate(sessions):
        session.fine(CREATE, f"/tmp/{number}", 0o600, 0, 0)
    assert connection.exec(command("ls", "/tmp")).out == b"0\n1\n2\n"
    seen = connection.exec(command("sh", "-c", "echo /proc/[0-9]*"))
    assert seen.out == b"/proc/1 /proc/2\n" or b"/proc/2" not in seen.out
    connection.quit()
