"""Ganeti's text format of a cluster (`hscan` writes it, `hbal -t` and `hspace -t` read it), as htools(1) describes it.

Five sections, an empty line between them, columns apart by `|`, sizes in MiB: groups, nodes, instances, tags,
policies. The columns are those that Ganeti's own reader takes (src/Ganeti/HTools/Backend/Text.hs; the manual page
lacks the node's own memory); each version has added to the end. It tells what was allotted, not what is used, and
nothing of time.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from bulkhead.advise.entries import Entries, ServerEntry, Told, UseEntry, WorkloadEntry
from bulkhead.advise.troubles import Place, Troubles

MIB = 1 << 20
GHZ = 2.0
"""The format does not know clocks: with one for all it does not matter which."""
MEAN = 1 / 3
"""Nor use: of the cpus that an instance was given, what it uses in the mean."""
DOWN = ("ADMIN_down", "ADMIN_offline", "ERROR_down", "ERROR_nodedown", "ERROR_nodeoffline")


@dataclass(frozen=True, slots=True)
class At:
    """A line."""

    place: Place

    def at(self, name: str) -> Place:  # noqa: ARG002 - columns have other names here
        """The line, whatever is asked for."""
        return self.place


def is_ganeti(text: str) -> bool:
    """Whether a file is in this format: its first line is a group, with a uuid and a policy of allocation."""
    cells = text.partition("\n")[0].split("|")
    return len(cells) >= 3 and cells[2] in ("preferred", "allocable", "unallocable", "last_resort")


def read(text: str, file: str, troubles: Troubles) -> Entries:
    """Nodes as servers, instances as workloads."""
    sections = _sections(text)
    if not 4 <= len(sections) <= 5:
        troubles.add(Place(file, 1), f"there are {len(sections)} sections instead of 4 or 5", "see htools(1)")
        return Entries((), ())
    servers: list[Told[ServerEntry]] = []
    workloads: list[Told[WorkloadEntry]] = []
    offline: set[str] = set()
    for line, row in sections[1]:
        _node(row, Place(file, line), servers, offline, troubles)
    stopped = 0
    for line, row in sections[2]:
        stopped += _instance(row, Place(file, line), offline, workloads, troubles)
    notes = [
        f"{file} tells what instances were given, not what they use: "
        "a third of their cpus is taken for the mean, all for the peak"
    ]
    if stopped:
        notes.append(f"{file}: {stopped} instances that do not run keep their disks and memory, and use no cpu")
    if offline:
        notes.append(f"{file}: {len(offline)} nodes that are offline are left out")
    return Entries(tuple(servers), tuple(workloads), notes=tuple(notes))


def _sections(text: str) -> list[list[tuple[int, str]]]:
    """Lines with their numbers, apart by empty ones; the end of the file ends the last section."""
    sections: list[list[tuple[int, str]]] = [[]]
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if line.strip():
            sections[-1].append((number, line.rstrip("\r")))
        else:
            sections.append([])
    if len(sections) > 4 and not sections[-1]:
        sections.pop()
    return sections


def _node(row: str, place: Place, servers: list[Told[ServerEntry]], offline: set[str], troubles: Troubles) -> None:
    cells = row.split("|")
    if not 9 <= len(cells) <= 15:
        troubles.add(place, f"a node has {len(cells)} columns instead of 9 to 15")
        return
    name, total, own, disk, cpus, state = cells[0], cells[1], cells[2], cells[4], cells[6], cells[7]
    if state == "Y" or "?" in (total, own, disk, cpus):
        offline.add(name)
        return
    if state not in ("N", "M"):
        troubles.add(place, f"node {name} is offline {state!r}: Y, N or M")
        return
    amounts = [
        _amount(cell, what, name, place, troubles) for cell, what in ((total, "memory"), (own, "memory of its own"))
    ]
    amounts += [_amount(cell, what, name, place, troubles) for cell, what in ((disk, "disk"), (cpus, "cpus"))]
    if None in amounts:
        return
    memory, used, space, cores = (amount or 0 for amount in amounts)
    fields = {"name": name, "cores": cores, "ghz": GHZ, "memory": (memory - used) * MIB, "disk": space * MIB}
    try:
        servers.append(Told(ServerEntry.model_validate(fields), At(place)))
    except ValidationError as error:
        _tell(error, f"node {name}", place, troubles)


def _instance(
    row: str, place: Place, offline: set[str], workloads: list[Told[WorkloadEntry]], troubles: Troubles
) -> int:
    """Add an instance; 1 where it does not run."""
    cells = row.split("|")
    if not 10 <= len(cells) <= 15:
        troubles.add(place, f"an instance has {len(cells)} columns instead of 10 to 15")
        return 0
    name, status, node = cells[0], cells[4], cells[6]
    amounts = [
        _amount(cell, what, name, place, troubles)
        for cell, what in zip(cells[1:4], ("memory", "disk", "cpus"), strict=True)
    ]
    if None in amounts:
        return 0
    memory, disk, cpus = (amount or 0 for amount in amounts)
    down = status in DOWN
    use = UseEntry(
        cpu=0.0 if down else float(cpus), cpu_mean=0.0 if down else cpus * MEAN, memory=memory * MIB, disk=disk * MIB
    )
    try:
        # Guests of Xen and KVM have kernels of their own; what runs in them is not known.
        fields = {"name": name, "server": "" if node in offline else node, "system": True, "use": use}
        workloads.append(Told(WorkloadEntry.model_validate(fields), At(place)))
    except ValidationError as error:
        _tell(error, f"instance {name}", place, troubles)
    return int(down)


def _amount(cell: str, what: str, name: str, place: Place, troubles: Troubles) -> int | None:
    text = cell.partition(".")[0]
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        troubles.add(place, f"{what} of {name}: {cell[:40]!r} is no amount")
        return None
    return int(text)


def _tell(error: ValidationError, what: str, place: Place, troubles: Troubles) -> None:
    for each in error.errors(include_url=False, include_input=False):
        troubles.add(place, f"{what}: {each['loc'][0]}: {each['msg']}")
