"""Tenants, users and operations as a tenant sees them: its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NoReturn

from bulkhead.engine.engine import Engine
from bulkhead.engine.operations import Operations
from bulkhead.engine.operations import Report as Progress
from bulkhead.engine.tenants import Report
from bulkhead.engine.users import Users
from bulkhead.errors import Forbidden, NotFound
from bulkhead.events import Step
from bulkhead.metering.query import By
from bulkhead.model import Isolation
from bulkhead.operation import Operation, OperationState
from bulkhead.store import State
from bulkhead.store.access import Access
from bulkhead.tenancy.quotas import Quota
from bulkhead.tenancy.records import User
from bulkhead.tenancy.roles import Role

NOT_YOURS = "tenants are the administrator's"


class TenantTenants:
    """The one tenant that it is."""

    def __init__(self, engine: Engine, tenant: str) -> None:
        self._tenants, self._tenant = engine.tenants, tenant

    def list(self) -> Sequence[Report]:
        """Itself."""
        return [self._tenants.get(self._tenant)]

    def get(self, name: str) -> Report:
        """Itself. Raises NotFound for every other."""
        if name != self._tenant:
            raise NotFound(f"no such tenant: {name}", hint="see: bulkhead tenant ls")
        return self._tenants.get(name)

    def create(self, name: str, *, quota: Quota, levels: Sequence[Isolation] | None) -> NoReturn:
        """Not for tenants."""
        raise Forbidden(NOT_YOURS)

    def update(self, name: str, *, quota: Quota | None, levels: Sequence[Isolation] | None) -> NoReturn:
        """Not for tenants."""
        raise Forbidden(NOT_YOURS)

    def remove(self, name: str) -> NoReturn:
        """Not for tenants."""
        raise Forbidden(NOT_YOURS)


class TenantUsers(Users):
    """The tenant's users. Of tokens and the trail Users itself shows each asker its own."""

    def __init__(self, access: Access, tenant: str) -> None:
        super().__init__(access)
        self._tenant = tenant

    def list(self) -> Sequence[User]:
        """Its own."""
        return self._access.users(self._tenant)

    def create(self, name: str, *, role: Role, tenant: str | None) -> NoReturn:
        """Not for tenants."""
        raise Forbidden("users are the administrator's")

    def remove(self, name: str) -> NoReturn:
        """Not for tenants."""
        raise Forbidden("users are the administrator's")


class TenantOperations(Operations):
    """The tenant's operations, whatever is asked for."""

    def __init__(self, state: State, whole: Operations, tenant: str) -> None:
        super().__init__(state)
        self._whole, self._tenant = whole, tenant

    def begin(self, kind: str, target: str, *, tenant: str, cancellable: bool) -> Operation:
        """One of its own."""
        return self._whole.begin(kind, target, tenant=self._tenant, cancellable=cancellable)

    def tell(self, operation_id: str, step: Step) -> bool:
        """See Operations."""
        return self._whole.tell(operation_id, step)

    def is_cancelled(self, operation_id: str) -> bool:
        """See Operations."""
        return self._whole.is_cancelled(operation_id)

    def end(self, operation_id: str, state: OperationState, *, result: object = None, problem: object = None) -> None:
        """See Operations."""
        self._whole.end(operation_id, state, result=result, problem=problem)

    def list(self, *, tenant: str | None = None) -> Sequence[Operation]:
        """Its own."""
        return self._whole.list(tenant=self._tenant)

    def get(self, operation_id: str, *, tenant: str | None = None) -> Operation:
        """One of its own. Raises NotFound."""
        return self._whole.get(operation_id, tenant=self._tenant)

    def cancel(self, operation_id: str, *, tenant: str | None = None) -> Operation | None:
        """One of its own. Raises NotFound."""
        return self._whole.cancel(operation_id, tenant=self._tenant)

    def follow(self, operation_id: str, *, after: int, alive: Callable[[], bool]) -> Iterator[Progress | Operation]:
        """One of its own. Raises NotFound."""
        self.get(operation_id)
        return self._whole.follow(operation_id, after=after, alive=alive)


class TenantUsage:
    """What the tenant has used."""

    def __init__(self, engine: Engine, tenant: str) -> None:
        self._usage, self._tenant = engine.usage, tenant

    def use(
        self,
        *,
        instances: Collection[str] | None,
        tenant: str | None,
        plan: str | None,
        begin: float | None,
        end: float | None,
        by: Collection[By],
        known: bool = False,
    ) -> Mapping[str, object]:
        """Of its own instances, whatever is asked for."""
        return self._usage.use(
            instances=instances, tenant=self._tenant, plan=plan, begin=begin, end=end, by=by, known=known
        )
