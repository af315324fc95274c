"""The daemon's configuration: where state lives and how everything that it makes on a host is named.

Two daemons with different configurations never share a directory, a cgroup, a link, an address, an nftables
table, a socket or a uid range; the tests give each run its own.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from bulkhead.errors import Problem, Refused
from bulkhead.tenancy.names import TenantName

DEFAULT_FILE = Path("/etc/bulkhead/config.toml")
FLEET_DIRECTORY, FLEET_MEMBER = "fleet", "member.json"
"""Below state_dir: what a host keeps of its fleet, and the file by which it is a member."""


class Listen(BaseModel):
    """A place where the API listens over TCP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = "127.0.0.1"
    port: int = Field(default=8443, ge=1, le=65535)
    cert: Path | None = None
    """The server's certificate, with those between it and its CA."""
    key: Path | None = None
    client_ca: Path | None = None
    """Whose client certificates sign users in by their common name."""
    require_certificate: bool = False
    """Nobody gets as far as a request without a client certificate; a token may still say who it is."""
    plain: bool = False
    """Without TLS, on an address of loopback alone: behind a proxy of this host's."""

    @property
    def where(self) -> str:
        """Address and port in words."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:
            raise ValueError(f"address {self.address!r} is no IP address") from None
        if self.plain and not address.is_loopback:
            raise ValueError(f"plain TCP at {self.where}: tokens would go over the wire in clear; give cert and key")
        if self.plain and (self.cert or self.key or self.client_ca):
            raise ValueError("plain TCP has no certificates: leave out plain, or cert, key and client_ca")
        if not self.plain and not (self.cert and self.key):
            raise ValueError(f"TLS at {self.where} needs cert and key; bulkhead ca makes some")
        if self.require_certificate and not self.client_ca:
            raise ValueError("require_certificate needs client_ca")
        return self


TextLine = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Seller(BaseModel):
    """The table `invoice`: who sends invoices, and what they say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seller: TextLine | None = None
    """The name; None: nobody, and no invoice can be issued."""
    address: tuple[TextLine, ...] = Field(default=(), max_length=10)
    tax_id: TextLine | None = None
    tax_name: TextLine = "VAT"
    tax_percent: Annotated[str, StringConstraints(pattern=r"^\d{1,2}(\.\d{1,4})?$")] = "0"
    """Decimal digits, of the sum."""
    note: Annotated[str, StringConstraints(max_length=2000)] = ""
    """Below the sum: how to pay, why there is no tax."""
    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{0,16}$")] = ""
    """Of every number: PREFIX2026-00001."""


class Config(BaseModel):
    """Everything that distinguishes one daemon from another on the same host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state_dir: Path = Path("/var/lib/bulkhead")
    """Kept over reboots: the store, images, instances (bundles), volumes."""
    run_dir: Path = Path("/run/bulkhead")
    """Gone after a reboot: the socket, mount points, pid files."""
    cache_dir: Path = Path("/var/cache/bulkhead")
    """May be deleted at any time: downloaded packages."""
    socket: Path | None = None
    """The API's unix socket; `run_dir/bulkhead.sock` when not given."""
    socket_group: str = "root"
    listen: tuple[Listen, ...] = Field(default=(), max_length=16)
    """Where the API listens over TCP as well; nowhere where none is given."""
    containers_dir: Path = Path("/etc/containers")
    """registries.conf, registries.conf.d, certs.d and policy.json, which podman, buildah and skopeo read too."""

    cgroup: str = Field(default="bulkhead", pattern=r"^[a-z][a-z0-9_-]{0,40}$")
    """Name of the cgroup, in every hierarchy, under which each instance gets its own."""
    link_prefix: str = Field(default="bh", pattern=r"^[a-z][a-z0-9]{0,3}$")
    """First letters of every link (bridge, veth) made; at most 4, since a link's name has at most 15."""
    nft_table: str = Field(default="bulkhead", pattern=r"^[a-z][a-z0-9_]{0,40}$")
    subnet_pool4: str = "10.144.0.0/16"
    """Networks without a subnet of their own get a /24 of this."""
    subnet_pool6: str = "fd42:b01c::/48"
    """Networks without a subnet of their own get a /64 of this."""
    fleet_subnet_pool4: str = "10.145.0.0/16"
    """Networks of the fleet get theirs of this: apart from those that hosts have each for itself."""
    fleet_subnet_pool6: str = "fd42:b01d::/48"
    fleet_port: int = Field(default=8474, ge=1024, le=65533)
    """UDP port of packets between hosts, the same on all of them; WireGuard has the next two."""
    published_ports: Literal["input", "forward"] = "input"
    """Which of the host's firewall chains judge a new connection to a published port: input and forward, as if a
    program of the host listened there, or forward alone (for hosts with strict reverse path filtering)."""
    connections: int = Field(default=8192, ge=16)
    """Connections that an instance can have through the host or to it at once, in each address family: entries of the
    host's one table (nf_conntrack_max)."""
    uid_base: int = Field(default=1_000_000_000, ge=65536, lt=2_000_000_000)
    """First host uid of the ranges of 65,536 ids, one range for each container."""

    host_ghz: float | None = Field(default=None, gt=0)
    """Speed of this host's cores where cpufreq and cpuinfo do not tell or are wrong."""
    host_factor: float | None = Field(default=None, ge=0.1, le=10)
    """Work of a core in one of its cycles over that of a reference core; None: measured on a host of a fleet."""
    host_bandwidth: int | None = Field(default=None, gt=0)
    """Bits per second of this host's uplink, each way, where it is to be sold by."""
    host_iops: int | None = Field(default=None, gt=0)
    """Operations per second of the disks under state_dir, where they are to be sold by."""
    host_disk_bps: int | None = Field(default=None, gt=0)
    """Bytes per second of the disks under state_dir, where they are to be sold by."""
    host_idle_watts: float | None = Field(default=None, ge=0, le=100_000)
    host_peak_watts: float | None = Field(default=None, ge=0, le=100_000)
    """What this host draws with nothing to do and with everything busy; both or neither. Its labels go first."""
    reserve_memory: int | None = Field(default=None, ge=0)
    """Bytes that are never sold; None: 1/16 of the host's, at least 512 MiB and at most 4 GiB."""
    reserve_cpus: float | None = Field(default=None, ge=0)
    """Cores that are never sold; None: 5 % of them."""
    reserve_disk: int | None = Field(default=None, ge=0)
    """Bytes of the file system under state_dir that are never sold; None: 5 % of it."""
    overcommit_memory: float = Field(default=1.0, gt=0, le=1000)
    """How often what the reserve leaves of a resource can be sold."""
    overcommit_cpu: float = Field(default=4.0, gt=0, le=1000)
    overcommit_disk: float = Field(default=1.0, gt=0, le=1000)
    overcommit_bandwidth: float = Field(default=1.0, gt=0, le=1000)
    overcommit_iops: float = Field(default=1.0, gt=0, le=1000)
    """Of operations and of bytes per second."""
    reclaim_idle: float | None = Field(default=None, ge=1)
    """Seconds without work after which chroots and containers have their page cache taken; None: never."""
    merge_tenant: TenantName | None = None
    """The one tenant whose virtual machines may have equal pages merged; None: nobody's are."""
    default_plan: str = "default"
    disk_pool: int = Field(default=8, ge=0, le=256)
    """Formatted, attached disks of the default plan's size kept ready."""
    network_pool: int = Field(default=8, ge=0, le=256)
    """Network namespaces with their links kept ready for the default network."""
    template_space: int = Field(default=1 << 30, ge=0)
    """Bytes that templates of virtual machines may take below cache_dir; 0: none are made."""
    warm_memory: int = Field(default=512 << 20, ge=0)
    """Bytes of memory of the virtual machines that are kept ready to go on as the next one that is run; 0: none."""
    log_size: int = Field(default=10 << 20, ge=4096)
    """Bytes after which an instance's log file is rotated."""
    log_files: int = Field(default=3, ge=1, le=99)

    metering_interval: float = Field(default=60.0, ge=1, le=3600)
    """Seconds after which the use of all instances is read again."""
    metering_minutes: int = Field(default=3 * 3600, ge=3600, le=30 * 86400)
    """Seconds for which use is kept by the minute."""
    metering_hours: int = Field(default=14 * 86400, ge=2 * 86400, le=366 * 86400)
    """Seconds for which use is kept by the hour."""
    metering_days: int = Field(default=400 * 86400, ge=62 * 86400, le=3660 * 86400)
    """Seconds for which use is kept by the day; invoices are made from these."""
    metering_removed: int = Field(default=10_000, ge=100, le=1_000_000)
    """How many removed instances have their use kept apart; that of earlier ones is in sums per tenant and plan."""

    metrics_instances: int = Field(default=1000, ge=0, le=100_000)
    """How many instances Prometheus is told of at most."""
    invoice: Seller = Seller()

    @model_validator(mode="after")
    def _draws_power(self) -> Self:
        idle, peak = self.host_idle_watts, self.host_peak_watts
        if (idle is None) is not (peak is None):
            raise ValueError("host_idle_watts and host_peak_watts belong together")
        if idle is not None and peak is not None and idle > peak:
            raise ValueError(f"host_idle_watts {idle:g} is more than host_peak_watts {peak:g}")
        return self

    @property
    def socket_path(self) -> Path:
        """Where the API listens."""
        return self.socket or self.run_dir / "bulkhead.sock"

    @property
    def instances_dir(self) -> Path:
        """One bundle per instance."""
        return self.state_dir / "instances"

    @property
    def images_dir(self) -> Path:
        """The OCI layout with the EROFS files beside it."""
        return self.state_dir / "images"

    @property
    def volumes_dir(self) -> Path:
        """One sparse file per volume."""
        return self.state_dir / "volumes"

    @property
    def secrets_dir(self) -> Path:
        """What is in secrets, one file each."""
        return self.state_dir / "secrets"

    @property
    def snapshots_dir(self) -> Path:
        """One directory per snapshot."""
        return self.state_dir / "snapshots"

    @property
    def ledger_file(self) -> Path:
        """The SQLite database of what has been used, prices and invoices."""
        return self.state_dir / "usage.db"

    @property
    def store_file(self) -> Path:
        """The SQLite database."""
        return self.state_dir / "state.db"


def load(path: Path | None = None) -> Config:
    """Read the configuration from `path`, `$BULKHEAD_CONFIG` or the default file; defaults where there is none."""
    named = path or (Path(os.environ["BULKHEAD_CONFIG"]) if os.environ.get("BULKHEAD_CONFIG") else None)
    file = named or DEFAULT_FILE
    if not file.exists():
        if named:
            raise Refused(f"configuration {file} does not exist", hint="check --config and $BULKHEAD_CONFIG")
        return Config()
    try:
        return Config.model_validate(tomllib.loads(file.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"configuration {file} is not TOML: {error}") from error
    except ValidationError as error:
        hint = "see docs/reference/configuration.md"
        raise Refused(
            Problem(f"configuration {file}: {'.'.join(map(str, item['loc']))}: {item['msg']}", hint)
            for item in error.errors()
        ) from error
