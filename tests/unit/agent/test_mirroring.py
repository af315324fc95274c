"""A copy from a hostile agent: what it gives is checked and bounded, and what came from the image is left alone."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import cast

import pytest

from bulkhead.agent.files import Entry, Files
from bulkhead.agent.mirroring import Mirrored, mirror
from bulkhead.errors import AgentError

DIRECTORY = Entry("", stat.S_IFDIR | 0o755, 0, 0, 2, 0, 5, 5, 1, 0)


@dataclass
class Node:
    """A file of a tree in memory."""

    entry: Entry
    data: bytes = b""
    target: str = ""
    attributes: dict[str, bytes] = field(default_factory=dict)


class Tree:
    """The requests of a file session, answered from memory. `told`: what was asked for that changes something."""

    def __init__(self, **nodes: Node) -> None:
        self.nodes = {"/": Node(DIRECTORY)}
        self.nodes |= {"/" + path.replace("__", "/"): node for path, node in nodes.items()}
        self.told: list[str] = []

    def stat(self, path: str) -> Entry:
        node = self.nodes[path]
        return replace(node.entry, target=node.target)

    def list(self, path: str) -> list[Entry]:
        found = [each for each in self.nodes if each != "/" and str(PurePosixPath(each).parent) == path]
        return [replace(self.nodes[each].entry, name=PurePosixPath(each).name) for each in found]

    def data(self, path: str, offset: int) -> tuple[int, int]:
        return offset, self.nodes[path].entry.size

    def read(self, path: str, offset: int, count: int) -> bytes:
        return self.nodes[path].data[offset : offset + count]

    def attributes(self, path: str) -> dict[str, bytes]:
        return self.nodes[path].attributes

    def _put(self, verb: str, path: str, mode: int, **more: int) -> None:
        self.told.append(f"{verb} {path}")
        self.nodes[path] = Node(replace(DIRECTORY, mode=mode, nlink=1, **more))

    def create(self, path: str, *, mode: int, uid: int, gid: int) -> None:
        self._put("create", path, stat.S_IFREG | mode, uid=uid, gid=gid)

    def mkdir(self, path: str, *, mode: int, uid: int, gid: int) -> None:
        self._put("mkdir", path, stat.S_IFDIR | mode, uid=uid, gid=gid)

    def make_pipe(self, path: str, *, mode: int, uid: int, gid: int) -> None:
        self._put("pipe", path, stat.S_IFIFO | mode, uid=uid, gid=gid)

    def symlink(self, path: str, target: str, *, uid: int, gid: int) -> None:
        self._put("symlink", path, stat.S_IFLNK | 0o777, uid=uid, gid=gid)
        self.nodes[path].target = target

    def link(self, path: str, existing: str) -> None:
        self.told.append(f"link {path}")
        self.nodes[path] = self.nodes[existing]

    def write(self, path: str, offset: int, data: bytes) -> None:
        self.nodes[path].data = self.nodes[path].data[:offset].ljust(offset, b"\0") + data

    def truncate(self, path: str, size: int) -> None:
        self.nodes[path].data = self.nodes[path].data[:size].ljust(size, b"\0")

    def set_owner(self, path: str, *, mode: int, uid: int, gid: int) -> None:
        entry = self.nodes[path].entry
        self.nodes[path].entry = replace(entry, mode=stat.S_IFMT(entry.mode) | mode, uid=uid, gid=gid)

    def set_attribute(self, path: str, name: str, value: bytes) -> None:
        self.nodes[path].attributes[name] = value

    def set_time(self, path: str, mtime: int) -> None:
        self.nodes[path].entry = replace(self.nodes[path].entry, mtime=mtime)

    def remove(self, path: str) -> None:
        assert not self.list(path)
        self.told.append(f"remove {path}")
        del self.nodes[path]


def file(data: bytes = b"data", *, size: int | None = None, mode: int = 0o644, **more: int) -> Node:
    """A regular file that was written after the image was made."""
    entry = replace(DIRECTORY, mode=stat.S_IFREG | mode, nlink=1, size=len(data) if size is None else size, changed=9)
    return Node(replace(entry, **more), data)


def other(kind: int, **more: int) -> Node:
    """A directory, a link, a device."""
    return Node(replace(DIRECTORY, mode=kind | 0o755, changed=9, **more))


def copy(source: Tree, target: Tree, most: int = 1 << 20) -> Mirrored:
    """Mirror them."""
    return mirror(cast(Files, source), cast(Files, target), most=most, told=lambda done: None)


def test_what_is_the_images_is_left_alone() -> None:
    same, changed = file(), file(b"new!", changed=10)
    target = Tree(same=file(), changed=file())
    assert copy(Tree(same=same, changed=changed), target).copied == 4
    assert target.told == ["create /changed"]
    assert target.nodes["/changed"].data == b"new!"


def test_types_that_differ_names_that_have_gone_and_links() -> None:
    link = other(stat.S_IFLNK)
    link.target = "../../etc/shadow"
    twice = {"nlink": 2, "inode": 7}
    source = Tree(
        was=file(),
        now=other(stat.S_IFDIR),
        now__inner=file(),
        a=file(**twice),
        b=file(**twice),
        pipe=other(stat.S_IFIFO),
        l=link,
    )
    source.nodes["/a"].attributes = {"user.k": b"v", "trusted.overlay.opaque": b"y"}
    target = Tree(was=other(stat.S_IFDIR), was__old=file(), now=file(), gone=other(stat.S_IFDIR), gone__file=file())
    done = copy(source, target)
    assert set(target.nodes) == set(source.nodes)
    assert target.nodes["/l"].target == "../../etc/shadow"
    assert "link /b" in target.told
    assert target.nodes["/a"].attributes == {"user.k": b"v"}
    assert done.dropped == ("/a: the attribute trusted.overlay.opaque",)


def test_devices_and_sockets_stay_behind_and_kernels_directories_are_not_entered() -> None:
    source = Tree(
        null=other(stat.S_IFCHR), disk=other(stat.S_IFBLK), talk=other(stat.S_IFSOCK), dev=other(stat.S_IFDIR)
    )
    source.nodes["/dev/x"] = file()
    target = Tree(null=file())
    assert len(copy(source, target).dropped) == 3
    assert set(target.nodes) == {"/"}


class _Twice(Tree):
    def list(self, path: str) -> list[Entry]:
        return super().list(path) * 2


class _Ranges(Tree):
    ranges: tuple[int, int] = (0, 0)

    def data(self, path: str, offset: int) -> tuple[int, int]:
        return self.ranges


class _Deep(Tree):
    """Directories without end."""

    def list(self, path: str) -> list[Entry]:
        return [replace(DIRECTORY, name="d" * 200)]

    def stat(self, path: str) -> Entry:
        return DIRECTORY

    def attributes(self, path: str) -> dict[str, bytes]:
        return {}


def test_a_name_that_is_told_twice_is_an_attack() -> None:
    with pytest.raises(AgentError, match="twice"):
        copy(_Twice(f=file()), Tree())


def test_sizes_that_lie() -> None:
    with pytest.raises(AgentError, match="became shorter"):
        copy(Tree(f=file(b"abc", size=1 << 62)), Tree())
    with pytest.raises(AgentError, match="more than the 10 bytes"):
        copy(Tree(f=file(bytes(100))), Tree(), most=10)


@pytest.mark.parametrize("ranges", [(5, 3), (0, 99), (1 << 63, 1 << 63), (3, 1)])
def test_holes_that_lie(ranges: tuple[int, int]) -> None:
    source = _Ranges(f=file())
    source.ranges = ranges
    with pytest.raises(AgentError, match="tells of bytes"):
        copy(source, Tree())


def test_directories_without_end() -> None:
    with pytest.raises(AgentError, match="a path of more than"):
        copy(_Deep(), Tree())
