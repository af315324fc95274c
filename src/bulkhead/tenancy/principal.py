"""Who makes a request."""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead.errors import Forbidden
from bulkhead.tenancy.names import DEFAULT
from bulkhead.tenancy.roles import PERMISSIONS, Permission, Role


@dataclass(frozen=True, slots=True)
class Principal:
    """A user as one request shows it. Nothing secret is in here."""

    user: str
    role: Role
    tenant: str | None = None
    """Whose things alone it finds; None: everybody's."""
    token_id: str = ""
    """Of the token that it came with; "" for a certificate or the unix socket."""
    scopes: frozenset[Permission] = frozenset()
    """What its token is limited to; empty: all that the role may."""
    source: str = ""
    """Where the request came from: an address, or the unix socket with the peer's process."""

    @property
    def permissions(self) -> frozenset[Permission]:
        """What it may do."""
        allowed = PERMISSIONS[self.role]
        return allowed & self.scopes if self.scopes else allowed

    @property
    def home(self) -> str:
        """The tenant that what it makes belongs to, where it names none."""
        return self.tenant or DEFAULT

    def may(self, permission: Permission) -> bool:
        """Whether it may do what this permission guards."""
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raises Forbidden where it may not."""
        if not self.may(permission):
            limited = permission in PERMISSIONS[self.role]
            what = f"this token has no scope {permission}" if limited else f"role {self.role} has no {permission}"
            raise Forbidden(f"{self.user} may not do this: {what}", hint="who may what: docs/reference/access.md")


ROOT = Principal(user="root", role=Role.ADMIN, source="unix socket")
"""Whoever reaches the unix socket of the daemon, whose file mode says who that is."""
