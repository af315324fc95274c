"""What runs on a server, as its /proc tells: services, ports, memory, users. Nothing is installed or changed there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bulkhead.errors import Refused

MAX_SURVEY = 64 << 20
"""Bytes of what a survey may say."""
SCRIPT = r"""
LC_ALL=C; export LC_ALL; PATH=$PATH:/usr/sbin:/sbin; export PATH
say() { printf '\000%s\000' "$1"; }
say uid; id -u
say machine; uname -m
say name; uname -n
say cores; nproc 2>/dev/null
say load; cat /proc/loadavg
say mounts; cat /proc/self/mountinfo
say swaps; cat /proc/swaps 2>/dev/null
say owners; find /proc/[0-9]* -maxdepth 0 -printf '%f %U\n' 2>/dev/null
say programs; find /proc/[0-9]*/exe -maxdepth 0 -printf '%h %l\n' 2>/dev/null
say groups; grep -H '' /proc/[0-9]*/cgroup 2>/dev/null
say memory; grep -H '^Pss:' /proc/[0-9]*/smaps_rollup 2>/dev/null
say sockets; find /proc/[0-9]*/fd -lname 'socket:*' -printf '%h %l\n' 2>/dev/null
for kind in tcp tcp6 udp udp6; do say "$kind"; cat "/proc/net/$kind" 2>/dev/null; done
say mapped; cat /proc/[0-9]*/maps 2>/dev/null | sed -n 's|^[^/]*\(/.*\)$|\1|p' | sort -u
say end; exit 0
"""
_UNIT = re.compile(r"/([A-Za-z0-9@_.:\\-]{1,200}\.service)(?:/|$)")
_PID = re.compile(r"/proc/([0-9]{1,9})(?:/|:|$)")
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")
_LISTENS = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
_LOCAL = re.compile(r"[0-9A-F]{6}7F|00000000000000000000000001000000")
"""An address of the host itself as /proc/net shows it."""


@dataclass(frozen=True, slots=True)
class Port:
    """One that is listened on; `local`: on the loopback alone."""

    number: int
    protocol: str
    local: bool


@dataclass(slots=True)
class Running:
    """A service that runs: the processes of one unit, or without systemd those of one program."""

    name: str
    programs: set[bytes] = field(default_factory=set)
    """Paths without a slash in front."""
    uids: set[int] = field(default_factory=set)
    memory: int = 0
    """Bytes: its proportional share."""
    ports: set[Port] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Survey:
    """All of it."""

    uid: int
    machine: str
    name: str
    mountinfo: str
    swaps: tuple[bytes, ...]
    cores: int
    load: float
    """The average over 15 minutes of processes that ran or wanted to."""
    running: Mapping[str, Running]
    mapped: tuple[bytes, ...]
    """Files that processes have mapped: their programs and libraries."""


def parse(said: bytes) -> Survey:
    """What SCRIPT has said. Raises Refused where that is something else."""
    parts = said.split(b"\0")
    sections = {name.decode("ascii", "replace"): text for name, text in zip(parts[1::2], parts[2::2], strict=False)}
    if "end" not in sections or len(said) > MAX_SURVEY:
        raise Refused("the server's shell said something else than what was asked", hint="is a POSIX shell there?")
    text = {name: part.decode("utf-8", "replace") for name, part in sections.items()}
    return Survey(
        uid=_number(text.get("uid", ""), -1),
        machine=text.get("machine", "").strip()[:32],
        name=re.sub(r"[^A-Za-z0-9.-]", "", text.get("name", ""))[:63],
        mountinfo=text.get("mounts", ""),
        swaps=tuple(
            line.split()[0].lstrip("/").encode() for line in text.get("swaps", "").splitlines()[1:64] if line.split()
        ),
        cores=max(1, _number(text.get("cores", ""), 1)),
        load=_load(text.get("load", "")),
        running=_running(text, sections.get("programs", b"")),
        mapped=tuple(path.lstrip(b"/") for path in sections.get("mapped", b"").split(b"\n") if path.startswith(b"/")),
    )


def _number(text: str, otherwise: int) -> int:
    word = text.strip()
    return int(word) if word.isascii() and word.isdigit() and len(word) < 10 else otherwise


def _load(text: str) -> float:
    words = text.split()
    try:
        return min(4096.0, max(0.0, float(words[2])))
    except (IndexError, ValueError):
        return 0.0


def _by_pid(text: str) -> Iterator[tuple[int, str]]:
    """Lines that begin with a path in /proc: the process, and what follows the path's end."""
    for line in text.splitlines():
        if found := _PID.match(line):
            yield int(found[1]), line[found.end() :]


class _Processes:
    """Which service a process belongs to, while what is known of each of them is gathered."""

    def __init__(self, text: Mapping[str, str], programs: bytes) -> None:
        self.services: dict[str, Running] = {}
        self._units: dict[int, str] = {}
        self._programs: dict[int, bytes] = {}
        for line in programs.split(b"\n"):
            where, _, target = line.partition(b" ")
            if (found := _PID.match(where.decode("ascii", "replace"))) and target.startswith(b"/"):
                self._programs[int(found[1])] = target.removesuffix(b" (deleted)").lstrip(b"/")
        for pid, group in _by_pid(text.get("groups", "")):
            # The first: a unit of a user's own manager is within that of the manager.
            if unit := _UNIT.search(group):
                self._units[pid] = unit[1]

    def of(self, pid: int) -> Running | None:
        """The service of a process: its unit, where there are units, else its program."""
        program = self._programs.get(pid, b"")
        name = self._units.get(pid, "") if self._units else program.rpartition(b"/")[2].decode("ascii", "replace")
        if not name:
            return None
        found = self.services.setdefault(name, Running(name))
        if program:
            found.programs.add(program)
        return found


def _running(text: Mapping[str, str], programs: bytes) -> dict[str, Running]:
    processes = _Processes(text, programs)
    for line in text.get("owners", "").splitlines():
        pid, _, uid = line.partition(" ")
        if (one := processes.of(_number(pid, 0))) and uid.isdigit() and len(uid) < 11:
            one.uids.add(int(uid))
    for process, line in _by_pid(text.get("memory", "")):
        words = line.split()
        if (one := processes.of(process)) and len(words) > 1:
            one.memory += _number(words[-2], 0) << 10
    for process, port in _ports(text):
        if one := processes.of(process):
            one.ports.add(port)
    return processes.services


def _ports(text: Mapping[str, str]) -> Iterator[tuple[int, Port]]:
    """Who listens where. A socket that init holds for a service is that service's, where it has it too."""
    holders: dict[str, set[int]] = {}
    for pid, line in _by_pid(text.get("sockets", "")):
        if found := _SOCKET.search(line):
            holders.setdefault(found[1], set()).add(pid)
    for kind, state in _LISTENS.items():
        for line in text.get(kind, "").splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != state or ":" not in fields[1]:
                continue
            address, _, port = fields[1].partition(":")
            try:
                number = int(port, 16)
            except ValueError:
                continue
            pids = holders.get(fields[9], set())
            for pid in pids - {1} or pids:
                if 0 < number < 65536:
                    yield pid, Port(number, kind[:3], bool(_LOCAL.fullmatch(address)))
