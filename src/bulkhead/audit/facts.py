"""What the probe tells, a JSON object on each line. It ran beside a workload that may have changed every word of it:
sizes and counts are bounded, every line is checked, what breaks a rule is left out and counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

MAX_LINES = 2000
MAX_LINE = 4096
CALLS = 480
"""Numbers of system calls that are tried, from 0 on, per architecture."""

Text = Annotated[str, StringConstraints(max_length=200, pattern=r"^[ -~]*$")]
Word = Annotated[str, StringConstraints(max_length=64, pattern=r"^[\w.:/-]*$")]
Count = Annotated[int, Field(ge=0, le=1 << 32)]
Result = Annotated[int, Field(ge=0, le=3000)]
"""0 done, 1 to 999 an errno, 1000 + a signal, 2000 it waited, 3000 it was not tried."""
Mask = Annotated[int, Field(ge=0, lt=1 << 64)]


class Fact(BaseModel):
    """One line."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Probed(Fact):
    """Who looked."""

    fact: Literal["probe"]
    version: Literal[1]
    machine: Word
    kernel: Text
    build: Text
    """Where Debian says which version its kernel really has."""
    uid: Count
    gid: Count


class Namespace(Fact):
    """A namespace that the probe was in."""

    fact: Literal["namespace"]
    kind: Literal["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
    inode: Count


class Ids(Fact):
    """A map of ids: inside, outside, count, and so on."""

    fact: Literal["ids"]
    kind: Literal["uid", "gid"]
    map: Annotated[list[Count], Field(max_length=1020)]


class Status(Fact):
    """Capabilities and filters of the probe's own process."""

    fact: Literal["status"]
    inheritable: Mask
    permitted: Mask
    effective: Mask
    bounding: Mask
    ambient: Mask
    no_new_privs: bool
    seccomp: Annotated[int, Field(ge=0, le=2)]
    filters: Count


class Lsm(Fact):
    """The security module's label, and which modules there are."""

    fact: Literal["lsm"]
    current: Text
    list: Text


class Processes(Fact):
    """How many processes it sees."""

    fact: Literal["processes"]
    seen: Count


class Calls(Fact):
    """What came of system calls, by number from `first` on."""

    fact: Literal["calls"]
    abi: Literal["x86_64", "i386"]
    first: Annotated[int, Field(ge=0, le=CALLS)]
    results: Annotated[list[Result], Field(max_length=CALLS)]


class Attempt(Fact):
    """A feature of the kernel's that was tried."""

    fact: Literal["attempt"]
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")]
    result: Result


class Families(Fact):
    """Families of sockets from 0 on, two results each: whether one gets to the kernel, whether it was opened."""

    fact: Literal["families"]
    abi: Literal["x86_64", "i386", "socketcall"]
    results: Annotated[list[Result], Field(max_length=128)]


class Protocols(Fact):
    """The same for netlink's protocols."""

    fact: Literal["protocols"]
    results: Annotated[list[Result], Field(max_length=64)]


class Mount(Fact):
    """A line of mountinfo."""

    fact: Literal["mount"]
    target: Text
    kind: Word
    root: Text
    device: Word
    read_only: bool
    writable: bool


class Device(Fact):
    """A device node below /dev."""

    fact: Literal["device"]
    path: Text
    kind: Literal["c", "b"]
    major: Count
    minor: Count
    result: Result


class Node(Fact):
    """A device node that was tried to be made, opened and removed."""

    fact: Literal["node"]
    kind: Literal["c", "b"]
    made: Result
    opened: Result


class Interface(Fact):
    """A file of the kernel's: errnos of opening it, and whether something can be read from it."""

    fact: Literal["interface"]
    path: Text
    read: Result
    write: Result
    telling: bool


class Tree(Fact):
    """A directory of the kernel's: how many of its files could be opened for writing."""

    fact: Literal["tree"]
    path: Text
    read_only: bool
    seen: Count
    writable: Count
    whole: bool


class Writable(Fact):
    """One of those files."""

    fact: Literal["writable"]
    path: Text


class Link(Fact):
    """A network interface."""

    fact: Literal["link"]
    name: Text


class Reach(Fact):
    """An address that was tried: a TCP port, or an echo (port 0)."""

    fact: Literal["reach"]
    address: Annotated[str, StringConstraints(pattern=r"^[0-9.]{7,15}$")]
    port: Annotated[int, Field(ge=0, le=65535)]
    answer: Literal["open", "echo", "refused", "silent", "unreachable"]


class Neighbour(Fact):
    """An address that has answered by ARP."""

    fact: Literal["neighbour"]
    address: Annotated[str, StringConstraints(pattern=r"^[0-9.]{7,15}$")]


class End(Fact):
    """The last one: how many there were before."""

    fact: Literal["end"]
    facts: Count


AnyFact = Annotated[
    Probed
    | Namespace
    | Ids
    | Status
    | Lsm
    | Processes
    | Calls
    | Attempt
    | Families
    | Protocols
    | Mount
    | Device
    | Node
    | Interface
    | Tree
    | Writable
    | Link
    | Reach
    | Neighbour
    | End,
    Field(discriminator="fact"),
]
_ADAPTER: TypeAdapter[AnyFact] = TypeAdapter(AnyFact)


@dataclass(slots=True)
class Look:
    """One run of the probe. `complete` is False where lines are missing, were too many, or made no sense."""

    probed: Probed | None = None
    status: Status | None = None
    lsm: Lsm | None = None
    processes: int = 0
    namespaces: dict[str, int] = field(default_factory=dict)
    ids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    calls: dict[str, dict[int, int]] = field(default_factory=dict)
    """Architecture -> number -> result."""
    attempts: dict[str, int] = field(default_factory=dict)
    families: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    protocols: tuple[tuple[int, int], ...] = ()
    mounts: list[Mount] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    interfaces: dict[str, Interface] = field(default_factory=dict)
    trees: list[Tree] = field(default_factory=list)
    writable: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    reached: list[Reach] = field(default_factory=list)
    neighbours: list[str] = field(default_factory=list)
    rejected: int = 0
    complete: bool = False

    def passes(self, family: int, abi: str = "x86_64") -> bool:
        """Whether a family of sockets gets to the kernel."""
        results = self.families.get(abi, ())
        return family < len(results) and results[family][0] == 0

    def done(self, *names: str) -> bool:
        """Whether one of these features was there to be used."""
        return any(self.attempts.get(name) == 0 for name in names)


def parse(report: bytes, *, truncated: bool = False) -> Look:
    """Read a report. Never raises: what makes no sense is counted in `rejected`."""
    look, told, promised = Look(), 0, -1
    lines = report.split(b"\n", MAX_LINES + 1)
    look.rejected += len(lines) > MAX_LINES
    for line in lines[:MAX_LINES]:
        if not line:
            continue
        if len(line) > MAX_LINE or promised >= 0:
            look.rejected += 1
            continue
        try:
            fact = _ADAPTER.validate_json(line)
        except ValidationError:
            look.rejected += 1
            continue
        if isinstance(fact, End):
            promised = fact.facts
        else:
            _take(look, fact)
            told += 1
    look.complete = promised == told and not look.rejected and not truncated and _has_all(look)
    return look


def _has_all(look: Look) -> bool:
    return bool(look.calls) and all(len(results) == CALLS for results in look.calls.values())


def _take(look: Look, fact: AnyFact) -> None:
    """Put a fact in its place. The first of its kind stays: a second one is not the probe's."""
    match fact:
        case Probed():
            look.probed = look.probed or fact
        case Status():
            look.status = look.status or fact
        case Lsm():
            look.lsm = look.lsm or fact
        case Processes():
            look.processes = look.processes or fact.seen
        case Namespace():
            look.namespaces.setdefault(fact.kind, fact.inode)
        case Ids():
            look.ids.setdefault(fact.kind, tuple(fact.map))
        case _:
            _take_tried(look, fact)


def _take_tried(look: Look, fact: AnyFact) -> None:
    match fact:
        case Calls():
            results = look.calls.setdefault(fact.abi, {})
            for number, result in enumerate(fact.results, fact.first):
                if number < CALLS:
                    results.setdefault(number, result)
        case Attempt():
            look.attempts.setdefault(fact.name, fact.result)
        case Families():
            look.families.setdefault(fact.abi, _pairs(fact.results))
        case Protocols():
            look.protocols = look.protocols or _pairs(fact.results)
        case _:
            _take_listed(look, fact)


def _take_listed(look: Look, fact: AnyFact) -> None:
    match fact:
        case Mount():
            look.mounts.append(fact)
        case Device():
            look.devices.append(fact)
        case Node():
            look.nodes.append(fact)
        case Interface():
            look.interfaces.setdefault(fact.path, fact)
        case Tree():
            look.trees.append(fact)
        case Writable():
            look.writable.append(fact.path)
        case Link():
            look.links.append(fact.name)
        case Reach():
            look.reached.append(fact)
        case Neighbour():
            look.neighbours.append(fact.address)


def _pairs(results: list[int]) -> tuple[tuple[int, int], ...]:
    return tuple(zip(results[::2], results[1::2], strict=False))
