"""What the host's kernel says of a process behind a wall, with what it shares with the host. Nobody inside can change
a word of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict

PSEUDO = frozenset(
    {"proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "tmpfs", "overlay", "fuse.lxcfs", "erofs", "devtmpfs"}
)
"""File systems that are the instance's own, or have rules of their own."""


class HostPath(BaseModel):
    """A directory or file of the host's inside. `own`: it is Bulkhead's own of this instance (a volume, its disk)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    source: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount, as far as it matters here: device as `major:minor`, `root` the path inside the file system."""

    target: str
    kind: str
    device: str
    root: str
    read_only: bool


class Process(BaseModel):
    """A process as the host's kernel sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str
    shared: tuple[str, ...]
    """Kinds of namespaces that are the host's."""
    uid: int
    """The host's number of its user."""
    root_uid: int | None
    """The host's number of root inside; None where there is none."""
    effective: tuple[str, ...]
    bounding: tuple[str, ...]
    ambient: tuple[str, ...]
    no_new_privs: bool
    seccomp: int
    filters: int
    security: str
    host_paths: tuple[HostPath, ...]
    open_files: tuple[str, ...]
    """Where its descriptors lead, without pipes, sockets and the kernel's own files."""

    @property
    def has_own_users(self) -> bool:
        """Whether its capabilities count in a user namespace of its own alone."""
        return "user" not in self.shared


def shared_kinds(namespaces: Mapping[str, int], host: Mapping[str, frozenset[int]]) -> tuple[str, ...]:
    """Kinds of namespaces that are the host's. Time is no wall: clocks of one's own are for restored processes."""
    return tuple(kind for kind, inode in namespaces.items() if kind != "time" and inode in host.get(kind, frozenset()))


def root_of(uid_map: Iterable[tuple[int, int, int]]) -> int | None:
    """The host's number of uid 0 inside."""
    return next((outside for inside, outside, count in uid_map if inside == 0 and count > 0), None)


def host_paths(inside: Iterable[Mounted], host: Iterable[Mounted], own: Iterable[str]) -> tuple[HostPath, ...]:
    """Mounts of an instance whose file system the host has mounted too: each with its path there.

    `own` are directories below which the host has only what is Bulkhead's.
    """
    homes: dict[str, list[Mounted]] = {}
    for entry in host:
        homes.setdefault(entry.device, []).append(entry)
    found = []
    for mount in inside:
        if mount.kind in PSEUDO:
            continue
        source = _path_on_host(mount, homes.get(mount.device, ()))
        if source and not any(PurePosixPath(source).is_relative_to(directory) for directory in own):
            found.append(HostPath(target=mount.target, source=source, read_only=mount.read_only))
    return tuple(found)


def _path_on_host(mount: Mounted, homes: Iterable[Mounted]) -> str:
    """Where the same files are on the host; "" where they are nowhere."""
    for home in homes:
        if PurePosixPath(mount.root).is_relative_to(home.root):
            return str(PurePosixPath(home.target) / PurePosixPath(mount.root).relative_to(home.root))
    return ""


def open_files(descriptors: Mapping[int, str]) -> tuple[str, ...]:
    """Files that a process has open, once each."""
    kernel = ("pipe:", "socket:", "anon_inode:", "/dev/null", "/memfd:", "/dev/pts/", "/dev/ptmx")
    return tuple(sorted({path for path in descriptors.values() if path and not path.startswith(kernel)}))
