"""Names within a tenant, and how they are told apart from everybody else's.

The default tenant's names are as they are. Another tenant's are kept, and said by operators, as TENANT@NAME: no name
can hold an @, so nobody can name what is another's.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

DEFAULT = "default"
"""The operator's own tenant, which everything belongs to that nobody else was named for."""
SEPARATOR = "@"
PATTERN = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"
TenantName = Annotated[str, StringConstraints(pattern=PATTERN)]


def qualified(tenant: str, name: str) -> str:
    """The name that is unique on this host: `name` of the default tenant, else TENANT@NAME."""
    return name if tenant == DEFAULT else f"{tenant}{SEPARATOR}{name}"


def split(text: str) -> tuple[str, str]:
    """Tenant and name of a qualified name."""
    tenant, separator, name = text.partition(SEPARATOR)
    return (tenant, name) if separator else (DEFAULT, text)
