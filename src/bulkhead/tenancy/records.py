"""Tenants, users and tokens as they are kept."""

from __future__ import annotations

from pydantic import Field, model_validator

from bulkhead.model import DEFAULT_TENANT, Isolation, Model
from bulkhead.tenancy.names import PATTERN, TenantName
from bulkhead.tenancy.quotas import Quota
from bulkhead.tenancy.roles import BOUND, UNBOUND, Permission, Role

LEVELS = (Isolation.CONTAINER, Isolation.VM, Isolation.UNIKERNEL)
"""Which a tenant may have. A chroot has the host's network and sees its processes."""


class Tenant(Model):
    """Whoever parts of this host are handed out to."""

    name: TenantName
    quota: Quota = Quota()
    levels: tuple[Isolation, ...] = Field(default=LEVELS, min_length=1, description="behind which walls it may run")
    created: float = 0.0


OPERATORS = Tenant(name=DEFAULT_TENANT, levels=tuple(Isolation))
"""The operator's own, which is always there."""


class User(Model):
    """Somebody who can sign in, by a token or by a client certificate whose common name is the user's."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")
    role: Role
    tenant: TenantName | None = None
    """Whose things alone it finds; None: everybody's."""
    created: float = 0.0

    @model_validator(mode="after")
    def _fits_its_role(self) -> User:
        if self.role in BOUND and self.tenant is None:
            raise ValueError(f"role {self.role} is of one tenant: say of which")
        if self.role in UNBOUND and self.tenant is not None:
            raise ValueError(f"role {self.role} is of no tenant: it sees all of them")
        return self


class Token(Model):
    """An API token. The secret in it is not kept."""

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    user: str
    secret_hash: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    scopes: frozenset[Permission] = frozenset()
    """What it is limited to; empty: all that its user may."""
    label: str = Field(default="", max_length=128)
    created: float = 0.0
    expires: float | None = None
    """Seconds since the epoch; None: never."""


__all__ = ["LEVELS", "OPERATORS", "PATTERN", "Tenant", "Token", "User"]
