"""What a host keeps of its fleet: who it is there, its certificate and key, and where the fleet's store is.

A host is a member while `state_dir/fleet/member.json` is there: it is written last and removed first.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from bulkhead.config import FLEET_DIRECTORY, FLEET_MEMBER
from bulkhead.errors import HostError
from bulkhead.fleet import Address, HostId, HostName
from bulkhead.host import private
from bulkhead.model import Model
from bulkhead.store.fleet import FleetState


class Coordinates(Model):
    """Where the fleet's store is, and how a host shows itself there."""

    endpoints: tuple[str, ...] = Field(min_length=1, max_length=16)
    """http(s)://HOST:PORT of etcd's members."""
    prefix: str = Field(default="bulkhead", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Under which the fleet's keys are: several fleets can share one etcd."""
    authority: str | None = None
    """PEM of who has signed etcd's certificates."""
    certificate: str | None = None
    """PEM of the hosts' certificate for etcd, with its key below."""
    key: str | None = Field(default=None, repr=False)


class Identity(Model):
    """This host in its fleet."""

    fleet_id: HostId
    fleet: HostName
    id: HostId
    name: HostName
    address: Address
    store: Coordinates


class Files:
    """Its files. Only root can look inside."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / FLEET_DIRECTORY
        self.authority, self.certificate = self.directory / "ca.pem", self.directory / "host.pem"
        self.key, self.member = self.directory / "host.key", self.directory / FLEET_MEMBER

    def read(self) -> Identity | None:
        """Who this host is; None where it is in no fleet. Raises HostError where the file cannot be read."""
        try:
            return Identity.model_validate_json(self.member.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise HostError(f"{self.member} cannot be read: {error}", hint="restore it from a backup") from error

    def write(self, identity: Identity, *, authority: str, certificate: bytes, key: bytes) -> None:
        """Be this member from here on."""
        self.remove()
        self.directory.mkdir(mode=0o700, parents=True)
        for path, data in (
            (self.authority, authority.encode()),
            (self.certificate, certificate),
            (self.key, key),
            (self.member, identity.model_dump_json().encode()),
        ):
            private.write(path, data)

    def remove(self) -> None:
        """Be none any more. Idempotent."""
        self.member.unlink(missing_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Opened:
    """This host as a member, with the fleet's store open."""

    identity: Identity
    state: FleetState
