"""Roles, and what each of them may do. One permission guards one kind of change; `read` guards looking."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Permission(StrEnum):
    """What a route asks for, and what a token can be limited to."""

    READ = "read"
    INSTANCES = "instances"
    EXEC = "exec"
    IMAGES = "images"
    NETWORKS = "networks"
    VOLUMES = "volumes"
    SECRETS = "secrets"
    TOKENS = "tokens"
    HOST = "host"
    TENANTS = "tenants"


MEANING: Mapping[Permission, str] = {
    Permission.READ: "list and inspect, logs, events, statistics, usage, the trail of one's own tenant",
    Permission.INSTANCES: "create, start, stop, change, move and remove instances and snapshots",
    Permission.EXEC: "run commands in instances, attach to them, copy files in and out",
    Permission.IMAGES: "pull, push, import, build, tag and remove images",
    Permission.NETWORKS: "make and remove networks",
    Permission.VOLUMES: "make and remove volumes",
    Permission.SECRETS: "make, replace and remove secrets; who may run commands reads those of an instance",
    Permission.TOKENS: "make and remove tokens of one's own",
    Permission.HOST: "the host: its paths, devices, network and kernels, named plans, doctor, what is public",
    Permission.TENANTS: "tenants, quotas, users, tokens of others, the whole trail",
}


class Role(StrEnum):
    """What a user is."""

    ADMIN = "admin"
    OPERATOR = "operator"
    TENANT = "tenant"
    VIEWER = "viewer"


_TENANT = frozenset(Permission) - {Permission.HOST, Permission.TENANTS}
PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.OPERATOR: frozenset(Permission) - {Permission.TENANTS},
    Role.TENANT: _TENANT,
    Role.VIEWER: frozenset({Permission.READ, Permission.TOKENS}),
}
BOUND = frozenset({Role.TENANT})
"""Roles that always belong to one tenant. A viewer may; admins and operators never do."""
UNBOUND = frozenset({Role.ADMIN, Role.OPERATOR})


def table() -> str:
    """The permissions of each role as a Markdown table: docs/reference/access.md holds it, and a test compares them."""
    rows = ["| permission | what for | " + " | ".join(Role) + " |", "|---|---|" + "---|" * len(Role)]
    for permission in Permission:
        marks = " | ".join("yes" if permission in PERMISSIONS[role] else "no" for role in Role)
        rows.append(f"| `{permission}` | {MEANING[permission]} | {marks} |")
    return "\n".join(rows) + "\n"
