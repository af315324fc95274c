"""Packages into a room, and what is there afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bulkhead.packaging.graph import Graph, owners
from bulkhead.packaging.room import Room

BUILDER = "builder"
"""The account that builds and tests."""
DEBS = "/var/cache/verify-deps"
_ENV = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def make_builder(room: Room) -> None:
    """Make the account."""
    room.must("useradd", "--system", "--home-dir", "/nonexistent", BUILDER, what="making an account to build with")


def snapshot(room: Room) -> tuple[Graph, dict[str, str]]:
    """The packages of a room, and whose each file is."""
    lists = {}
    for name, data in room.files("/var/lib/dpkg/info"):
        if name.endswith(".list"):
            lists[name.removesuffix(".list").partition(":")[0]] = data.decode(errors="surrogateescape")
    return Graph.parse(room.read("/var/lib/dpkg/status")), owners(lists)


def install(room: Room, debs: Sequence[Path], directory: str = DEBS) -> None:
    """Install .deb files of the host's in a room, and nothing else."""
    if not debs:
        return
    room.put(debs, directory)
    argv = ["apt-get", "-q", "-y", "--no-install-recommends", "--allow-downgrades", "install"]
    names = [f"{directory}/{path.name}" for path in debs]
    room.must(*argv, *names, what="installing what is declared", env=_ENV)
