"""A fleet's nouns: hosts that share a state in etcd, what is placed where, and invitations to join. See design 0027."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from bulkhead.errors import Refused
from bulkhead.model import Isolation, Model, PortMapping, Spec
from bulkhead.modelling import Taken
from bulkhead.tenancy.names import TenantName, qualified
from bulkhead.where import OnHostLoss, Where

HostName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
HostId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Address = Annotated[str, StringConstraints(pattern=r"^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:]+\]):\d{1,5}$")]
"""IP address and port where a host's daemon answers the others."""
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$")]
Policy = Literal["pack", "spread", "balance"]
"""Which of the hosts that would do is taken; see cluster/policies.py."""
CpuModel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""One of QEMU's processor models, such as Nehalem."""
IDLE, PEAK = "power.idle", "power.peak"
"""Labels by which an operator says how many watts a host draws."""
MOST_WATTS = 100_000.0
WATTS_HINT = f"bulkhead host label HOST {IDLE}=80 {PEAK}=250"
CERTIFICATE_PREFIX = "host:"
"""Of the common name in a host's certificate; no user's name has a colon."""
LEASE_SECONDS = 10.0
_INVITATION = re.compile(r"^bhj_([A-Za-z0-9_-]{1,2000})$")


class Fleet(Model):
    """The fleet itself, with the authority that signs its hosts' certificates."""

    id: HostId
    name: HostName
    created: float
    certificate: str
    """PEM."""
    key: str = Field(repr=False)
    """PEM. Whoever can read the fleet's store owns the fleet."""
    policy: Policy = "balance"
    spare: bool = False
    """Whether the loss of any one host is to stay covered."""
    cpu_baseline: CpuModel | Literal[""] = ""
    """The processor that VMs are made with; "": each host's own."""
    lease: float = Field(default=LEASE_SECONDS, ge=2, le=600)
    """Seconds for which a host lives after it has last been heard of. All hosts go by it, so it never changes."""


class HostState(StrEnum):
    """Whether a host takes new instances."""

    READY = "ready"
    DRAINING = "draining"


class Level(Model):
    """What a host's probe said of a level."""

    works: bool
    reason: str = ""
    hint: str = ""


class Machine(Model):
    """What a host is. Bytes, GHz."""

    cores: int
    ghz: float | None
    """By which its cores are sold: their clock times the host's factor."""
    clock: float | None = None
    memory: int
    kernel: str
    architecture: str
    version: str
    """Of Bulkhead."""
    accelerator: Literal["kvm", "tcg"] = "tcg"
    """Of its virtual machines."""
    cpu_models: tuple[CpuModel, ...] = ()
    """QEMU's processor models that its virtual machines can have whole."""
    idle_watts: float | None = Field(default=None, ge=0, le=MOST_WATTS)
    peak_watts: float | None = Field(default=None, ge=0, le=MOST_WATTS)
    """What it draws with nothing to do and with everything busy, as its configuration says; None: nobody said."""


class Host(Model):
    """A member of the fleet."""

    id: HostId
    name: HostName
    address: Address
    state: HostState = HostState.READY
    labels: dict[Label, str] = {}
    joined: float
    machine: Machine
    levels: dict[Isolation, Level] = {}
    sellable: dict[str, int] = {}
    """Of each resource that it is sold by, in the units of Amounts."""
    factor: float = Field(default=1.0, gt=0, le=100)
    """Work of one of its cores in a cycle over that of a reference core. It is in `machine.ghz`, and so in all that the
    host sells by.
    """

    @property
    def watts(self) -> tuple[float, float] | None:
        """What it draws, idle and at its peak: by its labels, else by its configuration; None where one is not known.

        Raises Refused where the labels tell of no such host.
        """
        machine = self.machine
        known = machine.idle_watts, machine.peak_watts
        told = (_watts(self.labels, IDLE), _watts(self.labels, PEAK))
        idle, peak = (known[0] if told[0] is None else told[0]), (known[1] if told[1] is None else told[1])
        if idle is None or peak is None:
            return None
        if idle > peak:
            raise Refused(f"host {self.name} would draw more idle ({idle:g} W) than busy ({peak:g} W)", hint=WATTS_HINT)
        return idle, peak


def _watts(labels: Mapping[str, str], key: str) -> float | None:
    text = labels.get(key)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text) or float(text) > MOST_WATTS:
        raise Refused(f"label {key}={text!r} is no number of watts up to {MOST_WATTS:g}", hint=WATTS_HINT)
    return float(text)


class HostLine(Host):
    """A host as a list shows it."""

    alive: bool
    """Whether it is heard of."""
    lost: bool = False
    """Whether it counts as lost, as the host that answers has seen: others may have started what ran there."""
    unheard: float = 0.0
    """Seconds for which the host that answers has not heard of it."""
    here: bool
    """Whether it is the one that answers."""
    sold: dict[str, int] = {}
    """In the units of Amounts."""
    instances: int = 0


class Fate(StrEnum):
    """What becomes of an instance whose host is not heard of."""

    UNHEARD = "unheard"
    """Its host does not answer, and may run it: that does not count as lost yet."""
    LOST = "lost"
    """Its host counts as lost, which alone has its disk: it waits for that."""
    WAITING = "waiting"
    """It is to be started elsewhere, and has found no place yet."""
    RECOVERING = "recovering"
    """Another host is about to start it."""


class Waiting(Model):
    """An instance whose host is not heard of, or that another host is about to start in its place."""

    id: HostId
    name: str
    tenant: TenantName
    host: HostName
    """The one that is not heard of; of one that recovers the one that is about to start it."""
    level: Isolation
    image: str = ""
    on_host_loss: OnHostLoss
    state: Fate
    reason: str
    """In words."""
    problem: str = ""
    """Why it is not started elsewhere (yet); "" of what waits for its host, and before that is known."""
    refused: dict[str, str] = {}
    """What hosts have said that were to start it, by their names."""


class TakenOver(Model):
    """An instance of a host that is not heard of, which is another one's by now."""

    id: HostId
    name: str
    tenant: TenantName
    lost: HostName
    """The host that had it."""
    host: HostName
    """The one that has it."""
    runs: bool
    """Whether it is to run."""
    unheard: float = 0.0
    """Seconds for which its host had not been heard of when it was taken."""


class FleetView(Model):
    """The fleet as one of its hosts sees it."""

    fleet: HostName
    id: HostId
    host: HostName
    """Who answers."""
    hosts: list[HostLine]
    instances: int
    policy: Policy
    spare: bool
    cpu_baseline: str = ""
    """The processor that VMs are made with; "": each host's own."""
    seen: float
    """When, in seconds since the epoch."""
    error: str = ""
    """Why it is not seen as it is now; "" where it is."""
    lease: float
    """Seconds after which a host that is not heard of may be lost."""
    waiting: list[Waiting] = []
    """What is on hosts that are not heard of."""
    taken: list[TakenOver] = []
    """What was on them, and is another host's."""


class Phase(StrEnum):
    """How far a place has come."""

    RESERVED = "reserved"
    PLACED = "placed"
    MOVING = "moving"
    RECOVERING = "recovering"
    """Its host was lost; the one that it is on now is about to start it."""


class Place(Model):
    """Where an instance is, or is about to be made."""

    id: HostId
    """The instance's."""
    name: str
    tenant: TenantName
    host: HostId
    level: Isolation
    image: str = ""
    amounts: Taken
    labels: dict[str, str] = {}
    phase: Phase = Phase.RESERVED
    generation: int = 1
    """Goes up whenever the instance becomes another host's: what has a lower one is not it any more."""
    until: float = 0.0
    """Seconds since the epoch after which a reservation that nothing has come of may be dropped."""
    target: HostId | None = None
    """While it moves: the host that it is to be on."""
    move: HostId | None = None
    """While it moves: which move it is; an earlier one can never be carried out any more."""
    by: HostId | None = None
    """Of a reservation: the host whose daemon answers for it."""
    trusted: bool = True
    """Whether it may share a kernel with other tenants."""
    where: Where = Where()
    moved: float = 0.0
    """When it last went from one host to another, seconds since the epoch; 0: never."""
    network: str = ""
    """Key of the fleet's network that it is on; "" where it is on none."""
    ipv4: str = ""
    """Its address there, wherever it runs."""
    cpu_model: str = ""
    """The processor that it has as a VM, wherever it runs; "": its host's own."""
    ports: tuple[PortMapping, ...] = ()
    """Those that every host publishes for it."""

    @property
    def key(self) -> str:
        """Its name in the whole fleet."""
        return qualified(self.tenant, self.name)


class Load(Model):
    """What an instance takes and uses, as its host has measured it."""

    id: HostId
    running: bool
    written: int = Field(ge=0)
    """Bytes of its disk that hold something."""
    resident: int = Field(ge=0)
    """Bytes of memory that it uses."""
    used: dict[str, int] | None
    """In the units of Amounts, the mean of up to an hour; None where it has not been measured for long enough."""
    live: bool = False
    """Whether it can run on while it moves, as far as its own host knows."""
    pinned: str = ""
    """Why it cannot leave its host; "" where it can."""


class Present(Model):
    """An instance that runs on a network of the fleet."""

    id: HostId
    """The instance's."""
    network: str
    """The network's key."""
    ipv4: str
    names: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")], ...] = Field(
        min_length=1, max_length=80
    )
    """By which others on the network find it."""
    ports: tuple[PortMapping, ...] = Field(default=(), max_length=1024)
    """Those that every host publishes for it."""


class Presence(Model):
    """What runs on the fleet's networks on one host, as that one tells it."""

    host: HostId
    instances: tuple[Present, ...] = ()


class Will(Model):
    """What is to become of an instance when the host that it is on is lost."""

    spec: Spec
    runs: bool = True
    """Whether it is to run."""
    lost: str = ""
    """Name of the host that it was taken from; "" where it runs as ever."""
    unheard: float = 0.0
    """Seconds for which that host had not been heard of."""
    problem: str = ""
    """Why it is not started elsewhere (yet)."""
    refused: dict[HostName, str] = {}
    """What hosts have said that were to start it, by their names."""


class Replica(Model):
    """Where the copy of an instance's disk is."""

    id: HostId
    """The instance's."""
    name: str
    tenant: TenantName
    host: HostId
    amounts: Taken
    interval: float
    """Seconds after which it is made anew: what was written since the last time is lost with the host."""
    at: float = 0.0
    """When the disk was as this copy is, in seconds since the epoch; 0: it is not whole yet."""
    problem: str = ""
    """Why it could not be made anew the last time."""


class ReplicaLine(Replica):
    """A replica as a list shows it."""

    source: HostName
    """Name of the host that the instance is on."""
    target: HostName
    """Name of the replica's."""


class Invitation(Model):
    """A secret that was given out to let one host join; its hash is its key."""

    until: float
    by: str
    """Who made it."""


@dataclass(frozen=True, slots=True)
class Invited:
    """What a token to join says: whom to ask, which authority has to be behind it, and the secret to show."""

    address: str
    fingerprint: str
    """SHA-256 of the authority's certificate (PEM), in hex."""
    secret: str

    @property
    def hash(self) -> str:
        """Under which the fleet knows the secret. It is 256 random bits: a fast hash is enough."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def encode(self) -> str:
        """The token as it is handed over."""
        document = json.dumps([self.address, self.fingerprint, self.secret], separators=(",", ":"))
        return "bhj_" + base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")


def invite(address: str, certificate: str) -> Invited:
    """A new one, for the fleet with this authority."""
    return Invited(address, fingerprint(certificate), secrets.token_urlsafe(32))


def fingerprint(certificate: str) -> str:
    """SHA-256 of a PEM, in hex."""
    return hashlib.sha256(certificate.encode()).hexdigest()


class _Token(Model):
    address: Address
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    secret: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]


def parse_invitation(text: str) -> Invited:
    """Read a token. Raises Refused, without repeating it."""
    found = _INVITATION.match(text.strip())
    try:
        if found is None:
            raise ValueError("no token")
        address, mark, secret = json.loads(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
        token = _Token(address=address, fingerprint=mark, secret=secret)
    except (ValueError, TypeError, binascii.Error, ValidationError):
        hint = "bulkhead cluster invite, on a host of the fleet, makes one"
        raise Refused("this is no token to join a fleet", hint=hint) from None
    return Invited(token.address, token.fingerprint, token.secret)
