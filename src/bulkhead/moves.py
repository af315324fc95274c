"""The nouns of a change of the wall: what one is about, and how it went."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from bulkhead.model import Instance, Isolation, Model, Spec
from bulkhead.modelling import Taken

Token = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
_FILES = r"^((disk|seed)\.img|uefi\.vars|own\.json|disk\.grown|log(\.[0-9]{1,3})?)$"
Layer = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""Digest of a layer (diff id): its file is named by it."""
FileName = Annotated[str, StringConstraints(pattern=_FILES)]
"""Of a bundle's files, those that go with an instance to another host."""


class Move(Model):
    """What a change of the wall is about. In the bundle while it is under way, so that a crash finds the way back."""

    before: Spec
    after: Spec
    ran: bool
    """Whether it runs again afterwards."""
    within: float
    """Seconds from its start behind the new wall to its first passed health check."""
    entered: bool = False
    """The workload may have run behind the new wall: what counts is the disk there."""


Way = Literal["live", "stop-copy-start"]
"""How an instance gets to another host: running, or with a stop in between."""


class Wanted(Model):
    """How somebody wants a move to another host to go."""

    way: Literal["live", "stop", "any"] | None = Field(
        default=None, description="live: it runs on meanwhile; stop: it is stopped; any: live where that can be"
    )
    """None: a machine that runs goes live, all else is stopped."""
    rate: int | None = Field(default=None, ge=1 << 16, le=1 << 50, description="bytes per second between the hosts")
    downtime: float = Field(default=0.05, gt=0, le=60, description="of a live move: seconds for its last changes")
    patience: float = Field(default=300.0, gt=0, le=86400, description="of a live move: seconds to get that far in")


class Blueprint(Model):
    """What a machine that runs is, for another host to make the very same one."""

    accelerator: Literal["kvm", "tcg"]
    hypervisor: str = Field(max_length=256)
    """Name of the root that QEMU runs in: it is made of QEMU's version."""
    processor: str = Field(max_length=1 << 14)
    """The host's, where the guest uses it directly; "" under emulation, and of one with a named processor."""
    kernel: str = Field(max_length=256)
    """Digest of the kernel's image; "" of an unmodified system, which brings its own."""
    shape: str = Field(max_length=1 << 12)
    """Of an image's machine, how large it is and what it has (JSON); "" of others."""
    disk: int = Field(ge=0, le=1 << 50)
    """Bytes of its disk, with holes."""


class Flow(Model):
    """What a live migration sent of a machine's memory. Bytes."""

    memory: int = 0
    """The machine's."""
    zeros: int = 0
    """What was zeros when it was looked at, of which hardly anything is sent."""
    sent: int = 0
    """Of it, with what had to go again."""
    passes: int = 0
    """How often what had changed was gone through."""
    throttled: int = 0
    """By how many percent the guest was slowed down at the end, so that it came to one."""


class Passage(Model):
    """A move between two hosts, as it was foreseen and, where it was carried out, as it went. Bytes, seconds."""

    source: str
    target: str
    """Names of the hosts."""
    way: Way = "stop-copy-start"
    done: bool
    """False of one that was only asked about."""
    size: int
    """What its disk holds, before it ended."""
    rate: float
    """Bytes per second between the two, measured just before."""
    predicted: float
    """How long it was to be down, its own end aside: what its disk holds at that rate, and its last start. Live: what
    was asked for."""
    sent: int = 0
    """Bytes that went over."""
    digest: str = ""
    """SHA-256 of all that was sent, which the target has found as well."""
    phases: dict[str, float] = {}
    """How long each took: prepare, stop, send, hand-over, start, erase; live in the place of stop and send: machine,
    disk, memory, switch."""
    flow: Flow | None = None
    """Of a live move."""


class Moved(Model):
    """How a change of the wall went. Times in seconds."""

    instance: Instance
    source: Isolation
    downtime: float = 0.0
    """From the request to stop it to its program's start behind the new wall; 0 where it did not run."""
    well: float = 0.0
    """From the request to stop it to the first passed health check, or to when it was clear that it runs."""
    copied: int = 0
    """Bytes of files that went to a fresh disk; 0 where the disk was handed over."""
    dropped: tuple[str, ...] = ()
    """What could not come along, in words."""
    hosts: Passage | None = None
    """Of a move to another host of the fleet."""


class Leaving(Model):
    """In the bundle of an instance that is on its way to another host, until it is known whose it is."""

    move: Token
    target: Token
    """Id of the host."""
    ran: bool
    """Whether it is to run again, wherever it comes to be."""
    stays: bool = False
    """It is known by now that it has not left."""
    live: bool = False
    """It runs while it is sent, and is stopped where it is, whole, until it is known."""


class Parcel(Model):
    """What arrives from another host: first as the head of what is sent, then beside the files that it came with."""

    move: Token
    instance: Instance
    """As it was on the other host, stopped."""
    ran: bool
    layers: tuple[Layer, ...] = Field(max_length=1000)
    """The lowest first."""
    foreign: bool
    """Whether a guest's kernel has written its disk."""
    files: dict[FileName, Annotated[int, Field(ge=0)]] = Field(max_length=64)
    """Their sizes with holes."""
    machine: Blueprint | None = None
    """It runs: its disk and memory come by themselves."""


class Shipment(Model):
    """The head of what a replica is made of: the digest of each block follows, then what has changed."""

    spec: Spec
    layers: tuple[Layer, ...] = Field(max_length=1000)
    foreign: bool
    """Whether a guest's kernel has written the disk."""
    size: int = Field(ge=0, le=1 << 38)
    """Bytes of the disk."""
    base: int = Field(ge=0)
    """Number of the copy that the difference was made to; 0: none."""
    at: float
    """When the disk was so, in seconds since the epoch."""


class Kept(Model):
    """A replica as it is on its host."""

    number: int = Field(ge=1)
    shipment: Shipment


def _base64(text: str) -> str:
    base64.b64decode(text, validate=True)
    return text


class Held(Model):
    """What a host has of a disk."""

    number: int = 0
    """0: nothing."""
    digests: Annotated[str, AfterValidator(_base64)] = ""
    """Base64: 32 bytes per block."""


class Receipt(Model):
    """What the target has found in what was sent."""

    received: int
    """Bytes without holes."""
    digest: str


class Inquiry(Model):
    """What a host is asked before an instance is moved there."""

    spec: Spec
    size: int = Field(ge=0, le=1 << 50)
    """Bytes that its disk holds."""
    fetch: bool = False
    """Get its image where it is not there."""
    padding: int = Field(default=0, ge=0, le=1 << 26)
    """Bytes that come after this, to see how fast they do."""
    kernels: tuple[str, ...] = Field(default=(), max_length=2)
    """Name and digest of a machine's kernel, to be fetched where it is not there."""
    machine: Blueprint | None = None
    """What is to be made there, of one that is to go on running."""


class Objection(Model):
    """Why not."""

    what: str
    hint: str = ""


class Judgement(Model):
    """What a host says of an instance that is to be moved there."""

    objections: tuple[Objection, ...]
    live: tuple[Objection, ...] = ()
    """What stands in the way of its running on meanwhile alone."""
    amounts: Taken
    """What it takes there, in the units of Amounts."""
    seconds: float
    """In which the padding came."""


class Settled(Model):
    """An instance that has arrived."""

    instance: Instance
    problem: str = ""
    """Why it could not be started again; "" where it was, or was not to be."""


class Went(Model):
    """An instance that has left a host that is drained, or would. Bytes, seconds."""

    name: str
    host: str
    """Where it is now."""
    downtime: float
    size: int
    warning: str = ""
    """What did not go as it was to: that it was started anew there, or does not run."""


class Stays(Model):
    """One that has not, and why."""

    name: str
    reason: str
    hint: str = ""


class Drained(Model):
    """How a host was emptied."""

    host: str
    done: bool
    """False of one that was only asked about."""
    went: tuple[Went, ...]
    stays: tuple[Stays, ...]


class Proposal(Model):
    """A move that makes hosts more alike or frees one, and what became of it. Bytes, seconds."""

    id: Token
    """The instance's."""
    name: str
    tenant: str
    source: str
    target: str
    """Names of the hosts."""
    how: Literal["live", "copied", "carried"]
    """live: it runs on; copied: it is stopped, sent and started; carried: it does not run."""
    gain: float | None
    """By how much the fuller of both hosts gets less full, 0 to 1 of its scarcest resource; None: it frees a host."""
    size: int
    predicted: float
    """For how long it was to be down."""
    done: bool = False
    downtime: float | None = None
    """For how long it was; None where it has not been moved."""
    warning: str = ""
    """What did not go as it was to, of one that has moved."""
    problem: str = ""
    hint: str = ""
    """Why it was not moved when it was to be."""


class FreedHost(Model):
    """A host on which nothing is left, or would be."""

    host: str
    done: bool
    """It is empty now, and takes nothing new."""
    watts: float | None
    """What switching it off saves, less what the others draw more; None where nobody said what hosts draw."""
    problem: str = ""
    """Why it was not freed when it was to be."""


class Rebalanced(Model):
    """What a rebalance came to. `before` and `after`: the fullest host above the mean of all, 0 to 1."""

    done: bool
    """False of one that was only asked about."""
    moves: tuple[Proposal, ...]
    freed: tuple[FreedHost, ...]
    before: float
    after: float
    """As it was foreseen."""
    watts: float | None
    """Saved in all; None where it is not known of every freed host, or none is freed."""
    reason: str
    """Why nothing, or nothing more, is worth moving; "" where it is as it should be."""
    unheard: tuple[str, ...]
    """Names of hosts that did not say what their instances use, and were left out."""
