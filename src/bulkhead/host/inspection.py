"""What the host's kernel tells of a process: namespaces, ids, capabilities, mounts, descriptors. Nothing is asked of
the process itself, so nothing here is its word."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import NotFound
from bulkhead.host import mounts
from bulkhead.host.mounts import MountEntry

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
MAX_DESCRIPTORS = 4096


@dataclass(frozen=True, slots=True)
class Seen:
    """One process, as the host sees it."""

    pid: int
    program: str
    """Where its executable is, in its own root."""
    namespaces: dict[str, int]
    """Kind -> inode."""
    uid_map: tuple[tuple[int, int, int], ...]
    """Inside, outside, count."""
    gid_map: tuple[tuple[int, int, int], ...]
    uid: int
    """The host's number of its user."""
    effective: int
    permitted: int
    inheritable: int
    bounding: int
    ambient: int
    no_new_privs: bool
    seccomp: int
    """0 none, 1 strict, 2 a filter."""
    filters: int
    security: str
    """The label of the host's security module; "" where there is none."""
    mounts: tuple[MountEntry, ...]
    descriptors: dict[int, str]
    """Open files by number: where each leads."""


def see(pid: int) -> Seen:
    """Look at a process. Raises NotFound when it has ended."""
    base = Path(f"/proc/{pid}")
    try:
        status = _status((base / "status").read_text(errors="replace"))
        return Seen(
            pid=pid,
            program=_link(base / "exe"),
            namespaces=namespaces(pid),
            uid_map=_map((base / "uid_map").read_text()),
            gid_map=_map((base / "gid_map").read_text()),
            uid=int(status["Uid"].split()[1]),
            effective=int(status["CapEff"], 16),
            permitted=int(status["CapPrm"], 16),
            inheritable=int(status["CapInh"], 16),
            bounding=int(status["CapBnd"], 16),
            ambient=int(status["CapAmb"], 16),
            no_new_privs=status.get("NoNewPrivs", "0") == "1",
            seccomp=int(status.get("Seccomp", "0")),
            filters=int(status.get("Seccomp_filters", "0")),
            security=_security(base),
            mounts=tuple(mounts.parse((base / "mountinfo").read_text(errors="surrogateescape"))),
            descriptors=_descriptors(base / "fd"),
        )
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotFound(f"process {pid} has ended") from error


def namespaces(pid: int | str) -> dict[str, int]:
    """The inodes of a process's namespaces by kind; `pid` may be "self"."""
    found = {}
    for kind in KINDS:
        with suppress(FileNotFoundError):
            _, _, number = os.readlink(f"/proc/{pid}/ns/{kind}").partition(":[")  # noqa: PTH115
            found[kind] = int(number.rstrip("]"))
    return found


def host_namespaces() -> dict[str, frozenset[int]]:
    """What counts as the host's: the namespaces of its first process, where that may be looked at, and of this one."""
    tables = [namespaces("self")]
    with suppress(PermissionError):
        tables.append(namespaces(1))
    return {kind: frozenset({table[kind] for table in tables if kind in table}) for kind in KINDS}


def host_mounts() -> tuple[MountEntry, ...]:
    """Mounts of the host's first process, where that may be looked at, and of this one."""
    first = ""
    with suppress(PermissionError):
        first = Path("/proc/1/mountinfo").read_text(errors="surrogateescape")
    return (*mounts.parse(first), *mounts.table())


def _status(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _map(text: str) -> tuple[tuple[int, int, int], ...]:
    rows = [line.split() for line in text.splitlines()]
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in rows)


def _link(path: Path) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return ""


def _security(base: Path) -> str:
    try:
        return (base / "attr/current").read_text(errors="replace").strip("\0\n")[:200]
    except OSError:
        return ""


def _descriptors(directory: Path) -> dict[int, str]:
    found = {}
    with suppress(OSError):
        for name in sorted(os.listdir(directory), key=int)[:MAX_DESCRIPTORS]:  # noqa: PTH208
            found[int(name)] = _link(directory / name)
    return found


def local_addresses() -> tuple[str, ...]:
    """IPv4 addresses of this network namespace but those of lo, in order."""
    found, last = set(), ""
    for line in Path("/proc/net/fib_trie").read_text().splitlines():
        text = line.strip()
        if text.startswith("|-- "):
            last = text[4:]
        elif text == "/32 host LOCAL" and not last.startswith("127."):
            found.add(last)
    return tuple(sorted(found))
