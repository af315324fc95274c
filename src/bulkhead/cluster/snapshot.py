"""What placement looks at: hosts as they were at one moment, and what is to find a place. Never changes.

Amounts are those of `bulkhead.amounts`: bytes, kHz of cores. On mixed hardware a kHz is one of the fleet's reference
core: a core's clock times the factor that was measured on it, so that cpus x GHz is the same work on every host.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from bulkhead.amounts import NOTHING, Amounts, Capacity
from bulkhead.model import DEFAULT_TENANT, Isolation

HostState = Literal["ready", "draining", "unreachable", "fenced"]
SHARING = frozenset({Isolation.CHROOT, Isolation.CONTAINER})
"""Levels that run on the host's own kernel."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What the same plan comes to on a host: hosts of one speed weigh everything alike."""

    cores: int
    khz: int
    """Of one core, as it is sold (`limits.core_khz`)."""
    factor: float = 1.0
    """Work that a core does in one of its cycles, measured, over what the fleet's reference core does."""
    accelerator: str = "kvm"
    """Of its virtual machines: kvm or tcg."""

    @property
    def core(self) -> int:
        """kHz of the reference core that one of its cores is worth."""
        return round(self.khz * self.factor)


@dataclass(frozen=True, slots=True)
class Need:
    """What an instance takes, before it is known of which host."""

    amounts: Amounts
    """The same everywhere; of cpu, what a plan with GHz says."""
    cores: float = 0.0
    """On top: cores that are sold to it at whatever speed the host's have, as a plan without GHz says."""
    widest: float = 0.0
    """Cores that it may use at once: a host with fewer cannot hold the plan."""
    core_khz: int = 0
    """What one of its cores must reach, of the reference core; 0: whatever the host's do."""
    overhead: Mapping[str, int] = field(default_factory=dict)
    """Bytes of memory that its hypervisor takes on top, by accelerator."""

    def on(self, speed: Speed) -> Amounts:
        """What it takes of a host of this speed."""
        memory = self.amounts.memory + self.overhead.get(speed.accelerator, 0)
        return replace(self.amounts, memory=memory, cpu=self.amounts.cpu + round(self.cores * speed.core))


@dataclass(frozen=True, slots=True)
class Label:
    """Asked of a host's labels: one of these values, any value where none is named, or (`absent`) none of it."""

    key: str
    values: tuple[str, ...] = ()
    absent: bool = False

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a host with these labels will do."""
        found = self.key in labels and (not self.values or labels[self.key] in self.values)
        return found is not self.absent

    def __str__(self) -> str:
        values = "=" + "|".join(self.values) if self.values else ""
        return f"{'!' if self.absent else ''}{self.key}{values}"


@dataclass(frozen=True, slots=True)
class Term:
    """Affinity: on a host with (or, `away`, without) an instance of the same tenant that has a label or a name.

    Instances of other tenants never count: nobody learns where they are, or keeps them off a host.
    """

    value: str
    """The label's, or the name."""
    key: str = ""
    """The label; "": it is a name."""
    away: bool = False
    hard: bool = True
    weight: int = 50
    """1 to 100, of a soft one."""

    def matches(self, other: Wanted) -> bool:
        """Whether it is about an instance of the same tenant."""
        return (other.labels.get(self.key) if self.key else other.name) == self.value

    def __str__(self) -> str:
        return f"{self.key}={self.value}" if self.key else self.value


@dataclass(frozen=True, slots=True)
class Wanted:
    """An instance that is to find a place, or has one."""

    id: str
    name: str
    need: Need
    level: Isolation = Isolation.CONTAINER
    tenant: str = DEFAULT_TENANT
    trusted: bool = True
    """Whether the rules for the level (`advise.may_share`) let it share a kernel with other tenants."""
    dedicated: bool = False
    """Its tenant has hosts for itself alone, whatever the levels."""
    inside: str = ""
    """Id of the VM that it runs in, and goes where that goes; "": it runs on the host."""
    architecture: str = "amd64"
    cpu_model: str = ""
    """The processor that it has as a VM; "": whichever the host has."""
    image: str = ""
    """The manifest's digest."""
    labels: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[Label, ...] = ()
    terms: tuple[Term, ...] = ()
    host: str = ""
    """Name or id of the one host that will do; "": any."""
    avoid: frozenset[str] = frozenset()
    """Ids of hosts that have refused it when they were asked to make it."""
    priority: int = 0
    """Higher is moved, and restarted after a loss, before lower."""
    restart: Literal["no", "on-failure", "always"] = "no"

    @property
    def on_host_kernel(self) -> bool:
        """Whether its kernel is the host's, which others may share."""
        return self.level in SHARING and not self.inside


@dataclass(frozen=True, slots=True)
class Placed:
    """An instance where it is."""

    wanted: Wanted
    amounts: Amounts
    """What is sold to it there."""
    written: int = 0
    """Bytes of its disk that hold something: what a move has to carry."""
    resident: int = 0
    """Bytes of its memory that are in use: what a live migration has to carry."""
    running: bool = True
    used: Amounts | None = None
    """What it uses, measured and smoothed; None: it counts as what is sold to it."""
    moved: float = 0.0
    """When it was last moved, seconds since the epoch; infinite while it is being moved."""
    live: bool = False
    """Whether it can run on while it moves, as far as its own host knows."""
    pinned: str = ""
    """Why it cannot leave its host; "" where it can."""

    @property
    def id(self) -> str:
        """The instance's."""
        return self.wanted.id

    @property
    def load(self) -> Amounts:
        """What it is taken to use."""
        return self.amounts if self.used is None else self.used


@dataclass(frozen=True, slots=True)
class Able:
    """Whether a level works on a host, as its probe found."""

    works: bool
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class PowerCurve:
    """What a host draws: watts at even steps of processor use, from none to all of it; at least two."""

    watts: tuple[float, ...]

    def at(self, use: float) -> float:
        """Watts at a use of 0 to 1, on the line between its neighbours."""
        position = min(max(use, 0.0), 1.0) * (len(self.watts) - 1)
        below = min(int(position), len(self.watts) - 2)
        return self.watts[below] + (self.watts[below + 1] - self.watts[below]) * (position - below)


@dataclass(frozen=True, slots=True)
class HostView:
    """A host of the fleet."""

    id: str
    name: str
    version: int
    """Of the record of what is sold there: a reservation holds only while this is still its version."""
    speed: Speed
    has: Capacity
    sold: Amounts = NOTHING
    """All that is: instances, volumes, snapshots, images."""
    state: HostState = "ready"
    labels: Mapping[str, str] = field(default_factory=dict)
    abilities: Mapping[Isolation, Able] = field(default_factory=dict)
    kernel: str = ""
    cpu: str = ""
    """The processor's model."""
    architecture: str = "amd64"
    images: frozenset[str] = frozenset()
    """Digests of the manifests that are there."""
    cpu_models: frozenset[str] = frozenset()
    """Processors that VMs can have there."""
    power: PowerCurve | None = None
    instances: tuple[Placed, ...] = ()

    @property
    def free(self) -> Amounts:
        """What is left; below zero where more is sold than there is."""
        return self.has.free(self.sold)

    def holding(self, placed: Placed) -> HostView:
        """With one more instance. The version is that of the record, which only its store changes."""
        return replace(self, sold=self.sold + placed.amounts, instances=(*self.instances, placed))

    def without(self, instance_id: str) -> HostView:
        """With one instance fewer. Raises KeyError where it is not here."""
        gone = self.find(instance_id)
        rest = tuple(placed for placed in self.instances if placed.id != instance_id)
        return replace(self, sold=self.sold - gone.amounts, instances=rest)

    def find(self, instance_id: str) -> Placed:
        """Raises KeyError where it is not here."""
        for placed in self.instances:
            if placed.id == instance_id:
                return placed
        raise KeyError(instance_id)


@dataclass(frozen=True)
class Snapshot:
    """The fleet at one moment; hosts ordered by id."""

    hosts: tuple[HostView, ...]
    spare: bool = False
    """Whether the loss of any one host is to stay covered; see `spare`."""

    def __post_init__(self) -> None:
        ids = [host.id for host in self.hosts]
        if ids != sorted(set(ids)):
            raise ValueError("hosts are not ordered by id, or one is there twice")

    @cached_property
    def _ids(self) -> list[str]:
        return [host.id for host in self.hosts]

    def host(self, host_id: str) -> HostView:
        """Raises KeyError where there is none of this id."""
        return self.hosts[self._position(host_id)]

    def having(self, *changed: HostView) -> Snapshot:
        """With hosts in the place of those of their ids."""
        hosts = list(self.hosts)
        for host in changed:
            hosts[self._position(host.id)] = host
        return Snapshot(tuple(hosts), self.spare)

    def _position(self, host_id: str) -> int:
        position = bisect.bisect_left(self._ids, host_id)
        if position == len(self._ids) or self._ids[position] != host_id:
            raise KeyError(host_id)
        return position
