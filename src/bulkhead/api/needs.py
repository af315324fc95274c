"""What the API needs of the engine for who may do what and has used what. What it returns becomes JSON as it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal, Protocol

from bulkhead.events import Progress
from bulkhead.metering.invoices import Invoice
from bulkhead.metering.prices import NewPrice, Price
from bulkhead.metering.query import By
from bulkhead.model import Instance, Isolation
from bulkhead.tenancy.principal import Principal
from bulkhead.tenancy.quotas import Quota
from bulkhead.tenancy.roles import Permission, Role


class Tenants(Protocol):
    """Tenants with their quotas and what they use."""

    def list(self) -> Sequence[object]: ...
    def get(self, name: str) -> object: ...
    def create(self, name: str, *, quota: Quota, levels: Sequence[Isolation] | None) -> object: ...
    def update(self, name: str, *, quota: Quota | None, levels: Sequence[Isolation] | None) -> object: ...
    def remove(self, name: str) -> None: ...


class Users(Protocol):
    """Users, their tokens, and what they did."""

    def authenticate(self, text: str, *, source: str) -> Principal: ...
    def by_certificate(self, name: str, *, source: str) -> Principal: ...
    def list(self) -> Sequence[object]: ...
    def create(self, name: str, *, role: Role, tenant: str | None) -> object: ...
    def remove(self, name: str) -> None: ...
    def tokens(self, asker: Principal) -> Sequence[object]: ...
    def create_token(
        self, asker: Principal, *, user: str | None, scopes: Collection[Permission], expires: float | None, label: str
    ) -> object: ...
    def remove_token(self, asker: Principal, identifier: str) -> None: ...
    def trail(self, asker: Principal, *, most: int, user: str | None, since: float) -> Sequence[object]: ...


class Usages(Protocol):
    """What has been used."""

    def use(
        self,
        *,
        instances: Collection[str] | None,
        tenant: str | None,
        plan: str | None,
        begin: float | None,
        end: float | None,
        by: Collection[By],
    ) -> Mapping[str, object]: ...


class Exposer(Protocol):
    """What Prometheus is told."""

    def metrics(self, tenant: str | None) -> bytes: ...


class Billing(Protocol):
    """Prices and invoices. `tenant` None: everybody's."""

    def prices(self, tenant: str | None) -> Sequence[Price]: ...
    def set_price(self, new: NewPrice) -> Price: ...
    def remove_price(self, number: int) -> None: ...
    def invoices(self, tenant: str | None) -> Sequence[Mapping[str, object]]: ...
    def invoice(self, number: str, tenant: str | None) -> Invoice: ...
    def of_month(self, tenant: str, text: str) -> Invoice: ...
    def issue(self, tenant: str, text: str, recipient: Sequence[str]) -> Invoice: ...
    def drawn(self, invoice: Invoice, form: Literal["json", "html", "pdf"]) -> bytes: ...


class Temporaries(Protocol):
    """Names of images that go with the request that holds them."""

    def name(self) -> str: ...
    def end(self, name: str) -> None: ...


class Audits(Protocol):
    """What can be reached from behind walls, and what it comes to."""

    def audit(self, instance: Instance, *, progress: Progress) -> object:
        """Look at an instance that runs."""

    def audit_level(self, level: Isolation, *, image: str | None, progress: Progress) -> object:
        """The same of a level, by an instance that is made for it and thrown away."""


class Watches(Protocol):
    """Which files are opened in instances."""

    def watch(self, instance: Instance, *, alive: Callable[[], bool]) -> Iterator[Mapping[str, str | int]]: ...
    def end(self, instance_id: str) -> None: ...
