"""The contract between the engine and a level of isolation.

A driver turns a spec into what runs behind one kind of wall. It is handed everything from outside (paths of
mounted layers, the mounted disk, the namespace of the network): it never asks another part of Bulkhead.
Optional abilities are Protocols of their own; a driver that lacks one simply does not have the method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from bulkhead.agent.collect import Collected
from bulkhead.agent.frames import ExecRequest
from bulkhead.agent.operations import Hidden, Operation
from bulkhead.errors import Problem
from bulkhead.model import Address, DiskFormat, Exit, Isolation, Plan, Spec
from bulkhead.secret import SecretUse


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing that this host can or cannot do, as found by trying it."""

    name: str
    works: bool
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a level really works here, with what it consists of."""

    works: bool
    reason: str = ""
    hint: str = ""
    abilities: tuple[Ability, ...] = ()
    not_isolated: tuple[str, ...] = ()
    """What this level shares with the host, in words, for `inspect`."""


class Limits(Protocol):
    """The operations that put an instance under its plan, as a driver hands them to the agent."""

    @property
    def prepare(self) -> Sequence[Operation]:
        """Make the cgroups and write the limits: before anything of the instance runs."""

    @property
    def join(self) -> Sequence[str]:
        """cgroup.procs files that the workload's process is written to."""

    @property
    def beside(self) -> Sequence[str]:
        """Those of a command that runs beside the workload: where a system manages cgroups, none of its own."""

    @property
    def delegated(self) -> str:
        """The directory of the v2 cgroup that the workload manages itself; "" where it manages none."""

    @property
    def kill(self) -> str:
        """cgroup.kill (v2) or a cgroup.procs (v1) that names every process of the instance."""

    @property
    def finish(self) -> Sequence[Operation]:
        """Read what is worth keeping (reported), then remove the cgroups."""


@dataclass(frozen=True, slots=True)
class NoLimits:
    """For what runs outside of any plan: probes and tests. The agent ends the first process alone."""

    prepare: tuple[Operation, ...] = ()
    join: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    delegated: str = ""
    kill: str = ""
    finish: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """A mount whose source is a directory or file on the host."""

    source: Path
    target: str
    read_only: bool
    volume: bool
    """True: Bulkhead's own volume, ids are as in the image. False: a path of the host's."""


@dataclass(frozen=True, slots=True)
class GivenSecret:
    """A secret that an instance gets with a start."""

    use: SecretUse
    value: Hidden


@dataclass(frozen=True, slots=True)
class Saved:
    """A guest at its ready point, to go on from: a template."""

    ram: int
    """Descriptor of its memory, which nobody can write to any more."""
    state: Path
    """File of its devices' state."""


@dataclass(frozen=True, slots=True)
class Room:
    """How far a VM can grow while it runs: decided at its start, since the guest's kernel makes ready for it."""

    memory: int
    """Bytes in all."""
    vcpus: int


@dataclass(frozen=True, slots=True)
class Attached:
    """A foreign disk, opened: what reads its format is the hypervisor in its jail."""

    fd: int
    """The caller's."""
    form: DiskFormat
    device: bool
    """It is a block device."""
    read_only: bool
    largest: int
    """Bytes that its file may have in the end."""


@dataclass(frozen=True, slots=True)
class Boot:
    """What a VM starts from: files that its hypervisor opens, never what the host has mounted of them."""

    vmm: Path
    """Mount point of the root that the hypervisor sees, and nothing else."""
    kernel: Path
    initrd: Path
    disk: Path | None
    """The instance's own disk: a raw ext4 file. None for a guest that becomes a template."""
    layers: tuple[Path, ...]
    """EROFS files, the lowest layer first."""
    accelerator: Literal["kvm", "tcg"]
    kernel_digest: str = ""
    """Of the kernel's image: kept in the handle, to tell later what runs."""
    tap: str = ""
    """Name of the tap in the instance's network namespace; "" for no network."""
    guest_limits: Limits = NoLimits()
    """The plan within the guest; the bundle's limits hold the hypervisor."""
    slots: int = 0
    """Disks that the guest finds, those that are left over being placeholders; 0: as many as there are."""
    ram: Path | None = None
    """The file that is to be the guest's memory; it becomes a template."""
    saved: Saved | None = None
    """What to start from; None: a cold boot."""
    room: Room | None = None
    """None: it keeps the memory and the processors that it starts with."""
    grow_disk: bool = False
    """Whether the disk's file may be larger than the file system in it, which the guest is then to make as large."""
    resumed: Path | None = None
    """A saved instance to go on with: file with its memory and devices, made by `Snapshots.save`; None: a start."""
    rehearsal: bool = False
    """Whether the disks are only to rehearse a start with."""
    inner: int = 0
    """Instances that the guest can hold."""
    largest: int = 0
    """Bytes of the largest disk of theirs."""
    attached: tuple[Attached, ...] = ()
    """Foreign disks, which come after all others."""
    warm: Handle | None = None
    """The guest that runs already and has rehearsed its start: it has its place on the network."""
    merges: bool = False
    """Whether pages of its memory may be one with equal ones of its tenant's other machines."""
    incoming: bool = False
    """Whether it is to go on as another host's machine, and waits for that."""


@dataclass(frozen=True, slots=True)
class Inside:
    """Where an instance within a VM runs, and what the VM is given for it."""

    machine: str
    """The VM's id."""
    directory: Path
    """Of the VM's bundle."""
    pid: int
    """Its hypervisor's, on the host."""
    disks: int
    """The VM's own disks, after which the spare ones come."""
    inner: int
    """Instances that it can hold."""
    disk: Path
    """The instance's own disk: a raw ext4 file."""
    layers: tuple[tuple[str, Path], ...]
    """Digests and EROFS files, the lowest layer first."""


@dataclass(frozen=True, slots=True)
class SystemBoot:
    """What an unmodified operating system starts from."""

    vmm: Path
    """As for `Boot`."""
    accelerator: Literal["kvm", "tcg"]
    disk: Path
    """The instance's own copy of its image's disk."""
    seed: Path
    """A disk that tells cloud-init who the machine is."""
    uefi: str = ""
    """UEFI's program, a path in the hypervisor's root; "": it boots by a BIOS."""
    variables: Path | None = None
    """The instance's own variables of its UEFI."""
    tap: str = ""
    incoming: bool = False
    """As for `Boot`."""


@dataclass(frozen=True, slots=True)
class ProgramBoot:
    """What a unikernel starts from."""

    vmm: Path
    """As for `Boot`."""
    accelerator: Literal["kvm", "tcg"]
    kernel: Path
    initrd: Path | None
    disk: Path | None
    """The instance's own disk, where it has asked for one; None for a guest that becomes a template."""
    tap: str = ""
    ram: Path | None = None
    """The file that is to be the guest's memory; it becomes a template."""
    saved: Saved | None = None
    """What to start from; None: a boot."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One instance's directory and what the engine has made ready for this start."""

    directory: Path
    spec: Spec
    limits: Limits = NoLimits()
    layers: tuple[Path, ...] = ()
    """Mount points of the layers, the lowest first."""
    disk: Path | None = None
    """Mount point of the instance's own disk."""
    volumes: tuple[MountedVolume, ...] = ()
    secrets: tuple[GivenSecret, ...] = ()
    netns_fd: int | None = None
    """The network namespace to run in; None: the level's own default ("none": a fresh one, "host": the host's)."""
    uid_start: int | None = None
    cpuset: tuple[int, ...] = ()
    resolv_conf: str = ""
    hosts: str = ""
    address: Address | None = None
    """Where it is on its network; a VM sets this up itself."""
    boot: Boot | None = None
    """For a VM. Its `layers` and `disk` stand in the place of those above, and the sources of volumes are files."""
    system: SystemBoot | None = None
    """In the place of `boot` for an unmodified operating system."""
    program: ProgramBoot | None = None
    """The same for a unikernel."""
    inside: Inside | None = None
    """For an instance within a VM: `layers` and `disk` are there in the place of those above, `limits` the guest's."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run beside a workload. None: as the workload has it."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    """On top of the workload's."""
    user: str | None = None
    workdir: str | None = None
    tty: bool = False
    stdin: bool = False
    rows: int = 0
    columns: int = 0
    program: bytes = b""
    """An executable of ours, run from memory under the name `argv[0]`; empty: argv[0] is looked up in the instance."""


@dataclass(frozen=True, slots=True)
class Handle:
    """What finds a running instance again after the daemon's restart; stored as `handle.json`."""

    supervisor_pid: int
    supervisor_started: int
    """Start time of the supervisor in clock ticks after boot: with the pid, an identity."""
    pid: int
    """Host pid of the workload's first process."""
    data: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a driver finds out about a handle: whether it runs, and how it ended if it does not."""

    running: bool
    pid: int = 0
    exit: Exit | None = None


class Driver(Protocol):
    """A level of isolation."""

    isolation: Isolation

    def probe(self) -> Probe:
        """Find out whether this level works on this host, by trying. Cheap when called again."""

    def not_isolated(self, spec: Spec) -> Sequence[str]:
        """What an instance of this spec shares with the host, in words."""

    def check(self, spec: Spec) -> list[Problem]:
        """Everything that this level or this host cannot do for `spec`; empty when all can be done."""

    def create(self, bundle: Bundle) -> None:
        """Make what the level needs in the bundle. Idempotent."""

    def start(self, bundle: Bundle, *, on_launch: Callable[[Path], None] | None = None) -> Handle:
        """Run the workload; returns when it has been executed. Raises AgentError; leaves nothing then.

        `on_launch` is called with the agent's socket before the workload starts, so that a client which attaches
        there misses none of its output.
        """

    def exec_request(self, spec: Spec, handle: Handle, command: Command) -> ExecRequest:
        """What to ask the agent of a running instance for, to run a command behind the same wall."""

    def inspect(self, bundle: Path, handle: Handle) -> Inspection:
        """What is there now. Does not change anything."""

    def stop(self, bundle: Path, handle: Handle, *, signal: str, timeout: float) -> None:
        """Ask it to end with `signal`, end it with KILL after `timeout` seconds; returns when all is gone."""

    def delete(self, bundle: Path, instance_id: str) -> None:
        """Remove what create and start made, also after a crash in the middle of either. Idempotent."""


@dataclass(frozen=True, slots=True)
class Change:
    """Another plan for a running instance."""

    old: Plan
    new: Plan
    host: Callable[[Plan, Plan], Sequence[Operation]]
    """What turns the limits of one plan into those of another where its cgroups are: on the host, or in its VM."""
    guest: Callable[[Plan, Plan], Sequence[Operation]]
    """The same within a guest; for VMs."""
    guest_use: Sequence[Operation] = ()
    """What reads the memory that a guest's workload uses."""
    check_guest_use: Callable[[Plan, Plan, Sequence[str]], None] | None = None
    """Given what that has reported: raises Conflict where the second plan has too little for it."""


@runtime_checkable
class Resizes(Protocol):
    """A driver that can change the plan of a running instance."""

    def resize(self, bundle: Path, handle: Handle, change: Change) -> None:
        """Turn the old plan into the new one, also from anywhere between them. Raises Refused before anything changes.

        Where it fails on the way, the old plan is in force again; AgentError. A disk that grows does so last.
        """


@runtime_checkable
class Holds(Protocol):
    """A driver that can open the files of an instance that does not run."""

    def hold(self, bundle: Bundle) -> Handle:
        """Make the instance's root without running its program; `stop` ends it. Raises AgentError."""


@runtime_checkable
class Pauses(Protocol):
    """A driver that can freeze an instance."""

    def pause(self, bundle: Path, handle: Handle) -> None:
        """Freeze every process."""

    def resume(self, bundle: Path, handle: Handle) -> None:
        """Let them go on."""


@runtime_checkable
class Flushes(Protocol):
    """A driver whose instances have a kernel of their own, which keeps what has been written in its memory."""

    def flush(self, bundle: Path, handle: Handle) -> None:
        """Let a running instance write that to its disks. Raises AgentError, Unavailable."""


@runtime_checkable
class Snapshots(Protocol):
    """A driver that can save the memory of a running instance, and go on from it."""

    def save(self, bundle: Path, handle: Handle, state: Path) -> None:
        """Stop it where it is and write its memory and devices to the new file `state`.

        It stays stopped until `resume_saved`.
        """

    def resume_saved(self, bundle: Path, handle: Handle) -> None:
        """Let an instance that `save` has stopped go on."""


@runtime_checkable
class Collects(Protocol):
    """A driver that runs a command to its end and keeps what it said, since no client can be joined to it."""

    def collect(self, bundle: Path, command: Command, *, alive: Callable[[], bool]) -> Collected:
        """Run it; given up when `alive()` is false. Raises Refused where it cannot be, AgentError, Unavailable."""


@runtime_checkable
class Presses(Protocol):
    """A driver of machines with a power button."""

    def press_power(self, bundle: Path) -> None:
        """Press it once. Raises Unavailable."""


@runtime_checkable
class Measures(Protocol):
    """A driver whose instances are not in the host's cgroups: what they use is read where they are."""

    def measure(self, bundle: Path, operations: Sequence[Operation]) -> list[str]:
        """What these operations report. Raises AgentError, Unavailable."""


@runtime_checkable
class Explains(Protocol):
    """A driver that can tell what a start would do without doing it."""

    def explain(self, bundle: Bundle) -> str:
        """The steps of a start in words, a line each, under headings."""
