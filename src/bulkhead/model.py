"""The nouns: specs, instances, networks, volumes, images, and handed on: plans, systems. Frozen, typed, validated once.

Units everywhere: bytes, bits per second for the network's bandwidth, seconds, GHz. Unknown keys are errors.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bulkhead.modelling import NAME_PATTERN as NAME_PATTERN
from bulkhead.modelling import Model as Model
from bulkhead.modelling import Name as Name
from bulkhead.overlay import Overlay
from bulkhead.plan import NamedPlan as NamedPlan
from bulkhead.plan import Plan as Plan
from bulkhead.plan import PlanRequest as PlanRequest
from bulkhead.secret import MOST_USES, SecretUse
from bulkhead.system import DiskBus as DiskBus
from bulkhead.system import Firmware as Firmware
from bulkhead.system import KernelType as KernelType
from bulkhead.system import Machine as Machine
from bulkhead.system import Nic as Nic
from bulkhead.system import Program as Program
from bulkhead.system import System as System
from bulkhead.tenancy import names
from bulkhead.tenancy.names import TenantName, qualified
from bulkhead.where import Where

UID_RANGE = 65536
DEFAULT_TENANT = names.DEFAULT
"""The operator's own."""
Init = Literal["none", "system"]
"""What the first process is: the image's command, or the init of a whole system."""


class Isolation(StrEnum):
    """The wall."""

    CHROOT = "chroot"
    CONTAINER = "container"
    VM = "vm"
    UNIKERNEL = "unikernel"


Trust = Literal["own", "partner", "public"]
"""Whose program it is."""


class State(StrEnum):
    """Where an instance is in its life. The -ing states are those a crash can be found in."""

    CREATING = "creating"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    EXITED = "exited"
    DELETING = "deleting"


class PortMapping(Model):
    """One published port; `host_ip` "" is every address of the host."""

    host_ip: str = ""
    host_port: int = Field(ge=1, le=65535)
    port: int = Field(ge=1, le=65535)
    protocol: Literal["tcp", "udp"] = "tcp"


class Mount(Model):
    """A volume (by name) or a directory or file of the host (absolute path) inside the instance."""

    kind: Literal["volume", "bind"]
    source: str
    target: str = Field(pattern=r"^/.*")
    read_only: bool = False


class Scratch(Model):
    """Memory inside the instance in the place of a directory."""

    target: str = Field(pattern=r"^/.*")
    size: int = Field(gt=0, description="bytes, which count against the plan's memory")


DiskFormat = Literal["raw", "qcow2"]


class ForeignDisk(Model):
    """A disk that is not Bulkhead's: a file or a block device of the host, which a VM gets beside its own disks."""

    source: str = Field(pattern=r"^/.*", max_length=4096)
    read_only: bool = True


class RestartPolicy(Model):
    """What happens after the workload ended; `retries` 0 is without end."""

    kind: Literal["no", "on-failure", "always"] = "no"
    retries: int = Field(default=0, ge=0)


class HealthCheck(Model):
    """A command run in the instance, every `interval` seconds; unhealthy after `retries` failures in a row."""

    command: tuple[str, ...] = Field(min_length=1)
    interval: float = Field(default=30.0, gt=0)
    timeout: float = Field(default=30.0, gt=0)
    retries: int = Field(default=3, ge=1)
    start_period: float = Field(default=0.0, ge=0)
    on_unhealthy: Literal["none", "restart"] = "none"


class CreateRequest(Model):
    """What a user asks for. None means "as the image says" or "as usual", for a clone "as it was there"."""

    snapshot: str | None = Field(default=None, min_length=1, max_length=128)
    """INSTANCE/NAME, in the place of an image: a clone, with what its disk and maybe its memory held."""
    image: str = Field(default="", max_length=512, validate_default=True)
    isolation: Literal["auto", Isolation.CHROOT, Isolation.CONTAINER, Isolation.VM, Isolation.UNIKERNEL] = (
        Isolation.CONTAINER
    )
    """auto: the cheapest level that what follows allows."""
    trust: Trust | None = None
    """None: public."""
    needs_kernel: bool = False
    hostile_input: bool = False
    kernel: str | None = Field(default=None, min_length=1, max_length=512)
    """A VM's kernel image; None: the default."""
    cold: bool = False
    """A VM is booted, not started from a template."""
    inside: str | None = Field(default=None, min_length=1, max_length=128)
    """The VM to run in, by name or id; "new": one of just the size that it takes, for this instance alone."""
    inner: int | None = Field(default=None, ge=0)
    """Instances that a VM can hold; None: 2."""
    user_data: str | None = Field(default=None, max_length=1 << 18, repr=False)
    """What cloud-init of an unmodified system is told. It may hold secrets: it goes into the bundle, never a spec."""
    machine: Machine | None = None
    disk_bus: DiskBus | None = None
    nic: Nic | None = None
    firmware: Firmware | None = None
    """Of an unmodified system; None: q35, virtio, virtio, as the image says."""
    init: Init = "none"
    plan: PlanRequest = PlanRequest()
    tenant: TenantName | None = None
    """Whose it is to be; None: of whoever asks. Only those who see all tenants may name another."""
    name: Name | None = None
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    workdir: str | None = Field(default=None, pattern=r"^/.*")
    user: str | None = None
    hostname: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?$")
    labels: dict[str, str] = {}
    network: str | None = None
    """A network's name, "none" or "host"; None: "default" for containers, "host" for chroots."""
    aliases: tuple[Name, ...] = Field(default=(), max_length=64, description="more names on its network, maybe shared")
    ports: tuple[PortMapping, ...] = ()
    mounts: tuple[Mount, ...] = ()
    disks: tuple[ForeignDisk, ...] = Field(default=(), max_length=2, description="of a VM that is a room")
    secrets: tuple[SecretUse, ...] = Field(default=(), max_length=MOST_USES, description="files in its memory")
    tty: bool = False
    stdin: bool = False
    restart: RestartPolicy = RestartPolicy()
    health: HealthCheck | None = None
    stop_signal: str | None = None
    stop_timeout: float | None = Field(default=None, ge=0, description="seconds; None: 10, of a whole system 90")
    auto_remove: bool = False
    where: Where = Where()

    @field_validator("image")
    @classmethod
    def _one_origin(cls, image: str, info: ValidationInfo) -> str:
        snapshot = info.data.get("snapshot")
        if not image and not snapshot:
            raise PydanticCustomError("missing", "Field required, or a snapshot")
        if image and snapshot:
            raise ValueError(f"a clone of {snapshot} has its image")
        return image


class Choice(Model):
    """Why an instance with `--isolation auto` has the level that it has."""

    rule: int
    """Of those that `bulkhead isolation explain` lists."""
    reason: str
    trust: Trust
    needs_kernel: bool = False
    hostile_input: bool = False


class Spec(Model):
    """A request with everything resolved: what `spec.json` in the bundle holds and a driver gets."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    name: Name
    """Unique in its tenant."""
    tenant: TenantName = DEFAULT_TENANT
    image: str = Field(description="the reference that was asked for")
    image_digest: str = Field(description="of its manifest")
    architecture: str = "amd64"
    isolation: Isolation
    choice: Choice | None = None
    """None: the level was asked for by name."""
    kernel: str = ""
    """A VM's kernel image, as it was asked for; "": the default."""
    cpu_model: str = ""
    """A VM's processor, one of QEMU's models, as its fleet wanted it; "": the host's, or all that QEMU emulates."""
    cold: bool = False
    inside: str = ""
    """Id of the VM that it runs in; "": it runs on the host."""
    inner: int = 0
    """Instances that a VM can hold."""
    only_for: str = ""
    """Of a VM that was made for one instance: the id of that, with which it starts, ends and is removed."""
    system: System | None = None
    """What an unmodified operating system runs on; None: the image is a root file system."""
    program: Program | None = None
    """What a unikernel is; None: it is none."""
    init: Init = "none"
    plan: Plan
    plan_name: str = ""
    argv: tuple[str, ...]
    """Empty for an unmodified system; of a unikernel what is added to its command line."""
    env: tuple[str, ...] = ()
    workdir: str = "/"
    user: str = ""
    hostname: str
    labels: dict[str, str] = {}
    network: str
    aliases: tuple[Name, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    mounts: tuple[Mount, ...] = ()
    disks: tuple[ForeignDisk, ...] = ()
    secrets: tuple[SecretUse, ...] = ()
    tty: bool = False
    stdin: bool = False
    restart: RestartPolicy = RestartPolicy()
    health: HealthCheck | None = None
    stop_signal: str = "SIGTERM"
    stop_timeout: float = 10.0
    auto_remove: bool = False
    where: Where = Where()
    room: bool = False
    """It belongs to the request that opened it, and is removed when that ends, however it ends."""
    build: bool = False
    """It is a step of a build: after a crash there is nobody whom it is for."""
    scratch: tuple[Scratch, ...] = ()
    created: float
    """Seconds since the epoch."""

    @model_validator(mode="after")
    def _has_something_to_run(self) -> Self:
        if not self.argv and not self.powered and not self.only_for:
            raise ValueError("argv is empty, and there is no system that knows what to start")
        return self

    @property
    def key(self) -> str:
        """Its name, unique on this host."""
        return qualified(self.tenant, self.name)

    @property
    def network_key(self) -> str:
        """Its network's name, unique on this host; that of "none" and "host" means nothing."""
        return qualified(self.tenant, self.network)

    @property
    def volumes(self) -> tuple[str, ...]:
        """Names of its volumes, unique on this host."""
        return tuple(qualified(self.tenant, mount.source) for mount in self.mounts if mount.kind == "volume")

    @property
    def powered(self) -> bool:
        """Whether it is a computer with a power button and nobody of Bulkhead's inside: signals are not for it."""
        return self.system is not None or self.program is not None


class Address(Model):
    """Where an instance is on its network. Prefix lengths and `mtu` (0: the usual) are those of the network."""

    network: str
    ipv4: str
    prefix4: int
    gateway4: str
    ipv6: str
    prefix6: int
    gateway6: str
    mac: str
    mtu: int = 0


class Exit(Model):
    """How a workload ended. `code` is 128 + signal where a signal ended it."""

    code: int
    signal: int = 0
    oom: bool = False
    error: str = ""
    """Why it never ran or was lost, in words; "" for an ordinary end."""
    started: float = 0.0
    ended: float = 0.0


class Instance(Model):
    """An instance's record in the store."""

    spec: Spec
    state: State
    uid_start: int | None = None
    """First host uid of its range; None where the level has no user namespace."""
    cpuset: tuple[int, ...] = ()
    """Host cores that it may run on."""
    address: Address | None = None
    kept_address: Address | None = None
    """The address that nobody else gets, and that it has with its next start: while it moves, or for good."""
    pid: int = 0
    """Host pid of the workload's first process while it runs."""
    started: float = 0.0
    exit: Exit | None = None
    restarts: int = 0
    health: Literal["", "starting", "healthy", "unhealthy"] = ""
    stop_requested: bool = False
    """Set by stop and kill, so that no restart policy undoes them."""
    start_seconds: float = 0.0
    """How long the last start took, from the request to the workload's exec."""


class Snapshot(Model):
    """What an instance's disk held at one moment, and with `memory` where a VM was at it. Never changes."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    name: Name
    """One of its instance's: the user says INSTANCE/NAME."""
    spec: Spec
    """The instance as it was then."""
    state: Literal["creating", "ready", "deleting"] = "creating"
    memory: bool = False
    size: int = 0
    """Bytes that it takes on the host; where the file system shares blocks, not all of them are its own."""
    created: float

    @property
    def reference(self) -> str:
        """As a user names it."""
        return f"{self.spec.key}/{self.name}"


class Network(Model):
    """A bridge with its subnets; with `overlay` one on every host of the fleet."""

    name: Name
    tenant: TenantName = DEFAULT_TENANT
    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    subnet4: str
    subnet6: str
    created: float = 0.0
    overlay: Overlay | None = None

    @property
    def key(self) -> str:
        """Its name, unique on this host."""
        return qualified(self.tenant, self.name)


class Volume(Model):
    """A disk that outlives instances."""

    name: Name
    tenant: TenantName = DEFAULT_TENANT
    size: int = Field(description="bytes of its ext4 file")
    created: float = 0.0

    @property
    def key(self) -> str:
        """Its name, unique on this host."""
        return qualified(self.tenant, self.name)
