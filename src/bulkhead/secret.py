"""Secrets: values that have a name, which instances get as files in memory. What is in them is in no record."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from bulkhead.modelling import Model
from bulkhead.tenancy import names
from bulkhead.tenancy.names import TenantName, qualified

MOST_SIZE = 512_000
"""Bytes of one secret, as docker and podman have it, and of all that one instance gets: they come with its start."""
MOST_USES = 64
DIRECTORY = "/run/secrets"
LAST_ID = (1 << 32) - 2
SecretName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$")]


class Secret(Model):
    """A secret's record: everything but its value."""

    name: SecretName
    tenant: TenantName = names.DEFAULT
    id: str = Field(pattern=r"^[0-9a-f]{32}$", description="of its value: another one where that is replaced")
    size: int = Field(description="bytes of its value")
    labels: dict[str, str] = {}
    created: float
    """Seconds since the epoch."""
    updated: float
    """The same of its present value."""

    @property
    def key(self) -> str:
        """Its name, unique on this host."""
        return qualified(self.tenant, self.name)


class SecretUse(Model):
    """A secret that an instance gets, as a file in its memory."""

    source: SecretName
    target: str = Field(default="", pattern=r"^(/.*)?$", max_length=4095, description="empty: /run/secrets/NAME")
    uid: int = Field(default=0, ge=0, le=LAST_ID)
    gid: int = Field(default=0, ge=0, le=LAST_ID)
    mode: int = Field(default=0o444, ge=0, le=0o777)

    @property
    def path(self) -> str:
        """Where it is in the instance."""
        return self.target or f"{DIRECTORY}/{self.source}"
