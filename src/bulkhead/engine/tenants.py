"""Tenants as the operator sees them: made with what they begin with, limited, removed when nothing is theirs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead.engine.context import Context
from bulkhead.engine.networks import DEFAULT, NetworkCatalog
from bulkhead.engine.quotas import used
from bulkhead.errors import Conflict, Problem, Refused
from bulkhead.model import DEFAULT_TENANT, Isolation
from bulkhead.store.access import Access
from bulkhead.store.secrets import SecretRecords
from bulkhead.tenancy import acting
from bulkhead.tenancy.quotas import Quota, Used
from bulkhead.tenancy.records import LEVELS, Tenant


@dataclass(frozen=True, slots=True)
class Report:
    """A tenant, and what it has."""

    tenant: Tenant
    used: Used
    users: tuple[str, ...]


class Tenants:
    """The tenants of this host."""

    def __init__(self, context: Context, access: Access, networks: NetworkCatalog) -> None:
        self._context = context
        self._access = access
        self._networks = networks

    def list(self) -> Sequence[Report]:
        """Every tenant, the operator's own first."""
        return [self._report(tenant) for tenant in self._access.tenants()]

    def get(self, name: str) -> Report:
        """One tenant. Raises NotFound."""
        return self._report(self._access.tenant(name))

    def create(self, name: str, *, quota: Quota, levels: Sequence[Isolation] | None) -> Report:
        """Make a tenant with a network of its own. Raises Conflict where there is one, Refused."""
        acting.touched("tenant", name)
        chosen = tuple(levels) if levels is not None else LEVELS
        _check_levels(chosen)
        tenant = Tenant(name=name, quota=quota, levels=chosen, created=time.time())
        with self._context.locks.hold(f"tenant-{name}"):
            self._access.create_tenant(tenant)
            try:
                self._networks.create(DEFAULT, subnet4=None, subnet6=None, tenant=name)
            except BaseException:
                self._access.delete_tenant(name)
                raise
        return self._report(tenant)

    def update(self, name: str, *, quota: Quota | None, levels: Sequence[Isolation] | None) -> Report:
        """Change what is not None. A quota below what is used holds from the next change on; nothing is taken away."""
        acting.touched("tenant", name)
        changes: dict[str, object] = {}
        if levels is not None:
            if name != DEFAULT_TENANT:
                _check_levels(levels)
            changes["levels"] = tuple(levels)
        with self._context.state.atomic():
            tenant = self._access.tenant(name)
            if quota is not None:
                given = {field: getattr(quota, field) for field in quota.model_fields_set}
                changes["quota"] = tenant.quota.model_copy(update=given)
            tenant = tenant.model_copy(update=changes)
            self._access.save_tenant(tenant)
        return self._report(tenant)

    def remove(self, name: str) -> None:
        """Forget a tenant that has nothing any more. Raises Conflict with all that it has."""
        acting.touched("tenant", name)
        context = self._context
        if name == DEFAULT_TENANT:
            raise Conflict(f"tenant {name} is the operator's own", hint="it cannot be removed")
        with context.locks.hold(f"tenant-{name}"):
            with context.state.atomic():
                self._access.tenant(name)
                if has := self._has(name):
                    raise Conflict(f"tenant {name} still has {'; '.join(has)}", hint="remove these first")
            for network in context.state.networks(name):
                context.networks.down(network)
                context.state.delete_network(network.key)
            context.seen_by(name).images.forget_partial()
            self._access.delete_tenant(name)

    def _has(self, name: str) -> Sequence[str]:
        state = self._context.state
        found = {
            "instances": [one.spec.name for one in state.instances() if one.spec.tenant == name],
            "networks": [one.name for one in state.networks(name) if one.name != DEFAULT],
            "volumes": [one.name for one in state.volumes(name)],
            "secrets": [one.name for one in SecretRecords(state).all(name)],
            "snapshots": [one.reference for one in state.snapshots() if one.spec.tenant == name],
            "images": sorted(self._context.seen_by(name).images.own_names()),
            "users": [one.name for one in self._access.users(name)],
        }
        return [f"the {kind} {', '.join(names[:8])}" for kind, names in found.items() if names]

    def _report(self, tenant: Tenant) -> Report:
        users = tuple(user.name for user in self._access.users(tenant.name))
        return Report(tenant, used(self._context, tenant.name), users)


def _check_levels(levels: Sequence[Isolation]) -> None:
    if wrong := [level for level in levels if level not in LEVELS]:
        what = f"a tenant cannot have {', '.join(wrong)}: a chroot is in the host's network and sees its processes"
        raise Refused([Problem(what, f"choose of {', '.join(LEVELS)}")])
