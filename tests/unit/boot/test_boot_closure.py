"""What a unikernel takes out of an image: nothing but what its program needs, and nothing from outside the image."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from bulkhead.boot import closure, solo
from bulkhead.boot.closure import Closure
from bulkhead.errors import Refused
from tests.unit.boot.kernel_parts import elf as static


@dataclass(frozen=True)
class File:
    mode: int
    target: bytes = b""
    data: bytes = b""

    @property
    def size(self) -> int:
        return len(self.data)


class Tree:
    """A root of files (bytes) and links (text)."""

    def __init__(self, files: Mapping[str, bytes | str]) -> None:
        self._files: dict[tuple[bytes, ...], File] = {(): File(stat.S_IFDIR | 0o755)}
        for name, what in files.items():
            path = tuple(part.encode() for part in name.split("/") if part)
            for length in range(1, len(path)):
                self._files.setdefault(path[:length], File(stat.S_IFDIR | 0o755))
            link = isinstance(what, str)
            data = b"" if isinstance(what, str) else what
            target = what.encode() if isinstance(what, str) else b""
            self._files[path] = File(stat.S_IFLNK | 0o777 if link else stat.S_IFREG | 0o755, target, data)

    def find(self, path: Sequence[bytes]) -> File | None:
        return self._files.get(tuple(path))

    def read_at(self, path: Sequence[bytes], at: int, size: int) -> bytes:
        return self._files[tuple(path)].data[at : at + size]

    def names(self, path: Sequence[bytes]) -> set[bytes]:
        return {
            file[len(path)] for file in self._files if len(file) == len(path) + 1 and file[: len(path)] == tuple(path)
        }


def taken(files: Closure) -> dict[str, int]:
    return {entry.path: stat.S_IFMT(entry.mode) for entry in files.entries()}


def test_links_are_followed_in_the_image_alone() -> None:
    tree = Tree({"/bin": "usr/bin", "/usr/bin/app": "../../../opt/app", "/opt/app": static(), "/opt/other": b"x"})
    files = Closure(tree)
    assert files.program("app", "/bin") == "/bin/app"
    links, regular = stat.S_IFLNK, stat.S_IFREG
    found = taken(files)
    assert (found["bin"], found["usr/bin/app"], found["opt/app"]) == (links, links, regular)
    assert "opt/other" not in found


def test_a_link_has_the_directories_above_it() -> None:
    tree = Tree({"/lib64": "usr/lib64", "/usr/lib64/ld.so": "../lib/ld-2.so", "/usr/lib/ld-2.so": static()})
    files = Closure(tree)
    files.program("/lib64/ld.so", "")
    assert taken(files)["usr/lib64"] == stat.S_IFDIR
    paths = [entry.path for entry in files.entries()]
    assert all(path.rpartition("/")[0] in ("", *paths[:at]) for at, path in enumerate(paths))


def test_what_cannot_be_is_refused() -> None:
    tree = Tree({"/loop": "loop", "/script": b"#!/bin/sh\n", "/text": b"text", "/file": b"", "/dir/f": b""})
    with pytest.raises(Refused, match="40 links"):
        Closure(tree).program("/loop", "")
    with pytest.raises(Refused, match="is a script"):
        Closure(tree).program("/script", "")
    with pytest.raises(Refused, match="cannot be run"):
        Closure(tree).program("/text", "")
    with pytest.raises(Refused, match="not in the image"):
        Closure(tree).program("/../../etc/passwd", "")
    with pytest.raises(Refused, match="no such file"):
        Closure(tree).keep("/none")
    with pytest.raises(Refused, match="is no directory"):
        Closure(tree).directory("/file/below")


def test_what_is_kept_is_kept_whole_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree({"/data/a": b"1", "/data/b/c": b"2", "/else": b"3"})
    files = Closure(tree)
    files.keep("/data")
    assert set(taken(files)) == {"data", "data/a", "data/b", "data/b/c"}
    monkeypatch.setattr(closure, "MAX_BYTES", 1)
    with pytest.raises(Refused, match="more than"):
        Closure(tree).keep("/data")
    monkeypatch.setattr(closure, "MAX_FILES", 2)
    with pytest.raises(Refused, match="more than"):
        Closure(tree).keep("/data/b")


def test_the_init_is_told_in_texts() -> None:
    told = solo.Settings(1, 2, "/", "/app", ("app", ""), ("A=b",), ("/tmp",)).encode()
    assert told == b"1\x002\x00/\x00/app\x002\x00app\x00\x001\x00A=b\x001\x00/tmp\x00\x00"
    with pytest.raises(Refused, match="NUL"):
        solo.Settings(1, 2, "/", "/app", ("app", "a\0b"), (), ()).encode()
    with pytest.raises(Refused, match="too large"):
        solo.Settings(1, 2, "/", "/app", ("app", "a" * 70000), (), ()).encode()


def test_users() -> None:
    passwd, group = b"root:x:0:0:::\nwww:x:33:34:::\nbad\n", b"staff:x:50:\n"
    assert solo.find_user("", passwd, group) == (0, 0)
    assert solo.find_user("www", passwd, group) == (33, 34)
    assert solo.find_user("33:staff", passwd, group) == (33, 50)
    assert solo.find_user("7:8", b"", b"") == (7, 8)
    with pytest.raises(Refused, match="'nobody'"):
        solo.find_user("nobody", passwd, group)
