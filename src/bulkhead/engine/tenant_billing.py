"""What use costs, and what Prometheus is told, as a tenant sees it: of its own things alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from bulkhead.engine.billing import Form
from bulkhead.engine.engine import Engine
from bulkhead.errors import Forbidden, NotFound
from bulkhead.metering.invoices import Invoice
from bulkhead.metering.prices import NewPrice, Price


class TenantBilling:
    """Prices and invoices of one tenant, to be looked at."""

    def __init__(self, engine: Engine, tenant: str) -> None:
        self._billing, self._tenant = engine.billing, tenant

    def prices(self, tenant: str | None) -> Sequence[Price]:
        """Those that hold for it."""
        return self._billing.prices(self._tenant)

    def set_price(self, new: NewPrice) -> NoReturn:
        """Not for tenants."""
        raise Forbidden("prices are the operator's")

    def remove_price(self, number: int) -> NoReturn:
        """Not for tenants."""
        raise Forbidden("prices are the operator's")

    def invoices(self, tenant: str | None) -> Sequence[Mapping[str, object]]:
        """Its own."""
        return self._billing.invoices(self._tenant)

    def invoice(self, number: str, tenant: str | None) -> Invoice:
        """One of its own. Raises NotFound."""
        return self._billing.invoice(number, self._tenant)

    def of_month(self, tenant: str, text: str) -> Invoice:
        """Its own. Raises NotFound where another's is asked for."""
        if tenant != self._tenant:
            raise NotFound(f"no such tenant: {tenant}", hint="leave out --tenant")
        return self._billing.of_month(tenant, text)

    def issue(self, tenant: str, text: str, recipient: Sequence[str]) -> NoReturn:
        """Not for tenants."""
        raise Forbidden("invoices are issued by the operator")

    def drawn(self, invoice: Invoice, form: Form) -> bytes:
        """One that it has been given."""
        return self._billing.drawn(invoice, form)


class TenantExposer:
    """A tenant's instances for Prometheus."""

    def __init__(self, engine: Engine, tenant: str) -> None:
        self._exposer, self._tenant = engine.exposer, tenant

    def metrics(self, tenant: str | None) -> bytes:
        """Of its own instances; nothing of the host."""
        return self._exposer.metrics(self._tenant)
