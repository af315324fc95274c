"""The leak check: what is on the host before a test and after it, as sets of lines that a person can read.

Other people's daemons, mounts and processes come and go on the same machine, so each kind of thing is looked at
where it can be told whose it is: mounts, links and rules in the tests' own namespaces, cgroups, loop devices and the
host's links by the names of this run, processes by the mount namespace they are in or by their ancestors.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bulkhead.boot.templates import KEY, RAM, WORK
from bulkhead.host import mounts, namespaces
from bulkhead.host.syscalls import CallError
from bulkhead.network.taps import TAP
from tests.harness.naming import LINK_PREFIX, PREFIX

PATIENCE = 20.0
"""Seconds that the kernel gets to finish what it does behind one's back: reaping, freeing loop devices, cgroups."""
_AGENT = "/memfd:agent (deleted)"
"""The program that each of a daemon's drivers holds to start supervisors with."""

LIVE: dict[int, tuple[str, Path]] = {}
"""Daemons and browsers that several tests share: holder's pid -> (cgroup, directory), "" for none. Daemons are checked
when they end. A browser starts and ends processes when it likes: on a busy host later than the test that it is for."""

OWN: set[int] = set()
"""Processes of the run itself, for as long as it lasts."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where to look."""

    pid: int = 0
    """A process in the namespaces to look at; 0: this one."""
    own_network: bool = False
    """Whether everything in that network namespace is the test's; else only what has the run's names."""
    directories: tuple[Path, ...] = ()
    """Whose files count, as seen from here."""
    ancestor: int = 0
    """Whose descendants count as the test's processes; 0: those in this mount namespace."""
    base: Path | None = None
    """The run's temporary directory: loop devices on files below it count, as those with names of this run."""
    only: tuple[str, Path] | None = None
    """Look for one daemon's cgroup and loop devices below its directory alone; None: for all of this run's."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was there: kind -> lines with their number."""

    found: dict[str, Counter[str]] = field(default_factory=dict)


def snapshot(scope: Scope) -> Snapshot:
    """Look now."""
    process = scope.pid or os.getpid()
    return Snapshot(
        {
            "mount": Counter(_mounts(process)),
            "link": Counter(_links(scope, process)),
            "nftables": Counter(_rules(scope, process)),
            "network namespace": Counter(_namespaces() if scope.only is None else ()),
            "cgroup": Counter(_cgroups(scope)),
            "loop device": Counter(_loops(scope)),
            "process": Counter(_processes(scope)),
            "file": Counter(_files(scope)),
        }
    )


def diff(before: Snapshot, after: Snapshot) -> list[str]:
    """What `after` has that `before` has not."""
    lines = []
    for kind, now in after.found.items():
        for what, number in (now - before.found.get(kind, Counter())).items():
            lines.append(f"{kind}: {what}" + (f" ({number} times)" if number > 1 else ""))
    return lines


def leftovers(before: Snapshot, scope: Scope, *, patience: float = PATIENCE) -> list[str]:
    """What has been there since `before` and does not go away within `patience` seconds."""
    deadline = time.monotonic() + patience
    while (found := diff(before, snapshot(scope))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


# --- what a daemon holds that runs and has nothing to look after


def held(daemon: int, templates: Path, *, patience: float = PATIENCE) -> list[str]:
    """What a daemon without instances still holds, after `patience` seconds: memory of guests, taps in namespaces.

    The memory of each of the `templates` that has been used is kept, once.
    """
    deadline = time.monotonic() + patience
    while (found := [*_memories(daemon, templates), *_taps(daemon)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _memories(daemon: int, templates: Path) -> list[str]:
    targets = (target for _, target in _descriptors(daemon) if target != _AGENT)
    open_ones = Counter(target for target in targets if target.startswith("/memfd:"))
    open_ones -= Counter({f"/memfd:{RAM} (deleted)": _used(templates)})
    return [f"memory held by the daemon: {name} ({number} times)" for name, number in open_ones.items()]


def _used(templates: Path) -> int:
    """How many were made by the daemon or started from; those that it was given have no time until then."""
    return sum(key.stat().st_mtime > 0 for key in templates.glob(f"*/{KEY}"))


def _taps(daemon: int) -> Iterator[str]:
    """Those in namespaces that the daemon, or a process of it, keeps alive."""
    seen: set[str] = set()
    for pid in (daemon, *descendants(daemon)):
        for path, target in [*_descriptors(pid), (own := Path(f"/proc/{pid}/ns/net"), _read_link(own))]:
            if target.startswith("net:[") and target not in seen:
                seen.add(target)
                with suppress(OSError, CallError), path.open() as namespace:
                    text = namespaces.inside(namespace.fileno(), Path("/proc/thread-self/net/dev").read_text)
                    names = (line.split(":")[0].strip() for line in text.splitlines()[2:])
                    yield from (f"tap {name} in {target}, of {_command(pid)}" for name in names if name == TAP)


def _descriptors(pid: int) -> list[tuple[Path, str]]:
    try:
        return [(path, _read_link(path)) for path in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it has ended
        return []


def _read_link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def unfinished(templates: Path) -> Iterator[str]:
    """Parts of templates that are none; while a daemon runs it may be making one."""
    for path in [*templates.glob("*"), *templates.glob(f"{WORK}/*")]:
        if path.name != WORK and path.is_dir() and not (path / KEY).exists():
            yield f"file: {path}, of a template that is none"


# --- parts of a snapshot


def _mounts(process: int) -> Iterator[str]:
    for entry in mounts.parse(Path(f"/proc/{process}/mountinfo").read_text()):
        yield f"{entry.target} ({entry.kind} {entry.source})"


def _links(scope: Scope, process: int) -> Iterator[str]:
    for line in Path(f"/proc/{process}/net/dev").read_text().splitlines()[2:]:
        name = line.split(":")[0].strip()
        if scope.own_network or name.startswith(LINK_PREFIX):
            yield name


def _rules(scope: Scope, process: int) -> Iterator[str]:
    if os.geteuid() != 0:
        return
    argv = ["nsenter", "-t", str(process), "-n", "nft", "-j", "list", "ruleset"]
    done = subprocess.run(argv, capture_output=True, check=True)
    for entry in json.loads(done.stdout or b"{}").get("nftables", []):
        for kind, body in entry.items():
            table = body.get("table", body.get("name", ""))
            if kind != "metainfo" and (scope.own_network or table.startswith(PREFIX)):
                shown = json.dumps(body["expr"]) if "expr" in body else body.get("name", "")
                yield f"{kind} {body.get('family')} {table} {body.get('chain', '')} {shown}"


def _namespaces() -> Iterator[str]:
    """Network namespaces that have a name of this run's, or that a descriptor of this process keeps alive."""
    named = Path("/run/netns")
    if named.is_dir():
        for entry in named.iterdir():
            if entry.name.startswith((LINK_PREFIX, PREFIX)):
                yield str(entry)
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("net:["):
            yield f"{target} held open by the test itself"


def _cgroups(scope: Scope) -> Iterator[str]:
    trees = {entry.target for entry in mounts.table() if entry.kind in ("cgroup", "cgroup2")}
    for tree in sorted(trees):
        for directory, names, _ in os.walk(tree):
            for name in names:
                path = Path(directory, name)
                if scope.only:
                    ours = scope.only[0] in path.parts
                else:
                    ours = PREFIX in str(path) and not any(cgroup in path.parts for cgroup, _ in LIVE.values())
                if ours:
                    yield str(path)


def _loops(scope: Scope) -> Iterator[str]:
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = Path(file.read_text().strip())
        except OSError:
            continue
        if scope.only:
            ours = backing.is_relative_to(scope.only[1])
        else:
            ours = PREFIX in str(backing) or bool(scope.base and backing.is_relative_to(scope.base))
            ours = ours and not any(backing.is_relative_to(directory) for _, directory in LIVE.values())
        if ours:
            yield f"{file.parts[3]}: {backing}"


def _processes(scope: Scope) -> Iterator[str]:
    table = dict(_process_table())
    here = _mount_namespace("self")
    for pid, (parent, started) in table.items():
        if scope.ancestor:
            ours = _descends(table, parent, scope.ancestor)
        else:
            ours = _mount_namespace(str(pid)) == here or _descends(table, parent, os.getpid())
            ours = ours and pid not in OWN
            ours = ours and not any(pid == holder or _descends(table, parent, holder) for holder in LIVE)
            # The first driver of a process starts it, and it ends with the process.
            ours = ours and not _command(pid).startswith("agent spawn ")
        if ours and pid != os.getpid():
            yield f"{pid} (started {started}): {_command(pid)}"


def _process_table() -> Iterator[tuple[int, tuple[int, int]]]:
    """pid -> (parent, start time) of every process that is not a zombie."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = stat[stat.rindex(b")") + 2 :].split()
        if fields[0] not in (b"Z", b"X"):
            yield int(entry.name), (int(fields[1]), int(fields[19]))


def descendants(ancestor: int) -> list[int]:
    """Pids of every process below `ancestor`."""
    table = dict(_process_table())
    return [pid for pid, (parent, _) in table.items() if _descends(table, parent, ancestor)]


def _descends(table: dict[int, tuple[int, int]], parent: int, ancestor: int) -> bool:
    seen = 0
    while parent > 1 and seen < 100:
        if parent == ancestor:
            return True
        parent = table.get(parent, (0, 0))[0]
        seen += 1
    return False


def _mount_namespace(process: str) -> str:
    try:
        return str(Path(f"/proc/{process}/ns/mnt").readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:200]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def _files(scope: Scope) -> Iterator[str]:
    for directory in scope.directories:
        for path in directory.rglob("*"):
            yield str(path)
    if scope.only is None:
        shared = {directory for _, directory in LIVE.values()}
        for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*"):
            if path not in shared:
                yield str(path)
