"""Prices and invoices, over the ledger."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from bulkhead.engine.context import Context
from bulkhead.engine.metering import Meter
from bulkhead.errors import Conflict, NotFound, Problem, Refused
from bulkhead.host import processes
from bulkhead.metering import drawing, invoices, prices, query
from bulkhead.metering.invoices import Invoice, Month
from bulkhead.metering.prices import NewPrice, Price
from bulkhead.metering.query import By, Span, Wanted

Form = Literal["json", "html", "pdf"]
DRAWING_SECONDS = 60.0


class Billing:
    """What use costs. `tenant` None: everybody's."""

    def __init__(self, context: Context, meter: Meter) -> None:
        self._context = context
        self._meter = meter

    # --- prices

    def prices(self, tenant: str | None) -> Sequence[Price]:
        """All of them; those that hold for one tenant."""
        with self._context.ledger.reader() as connection:
            return [each for each in prices.load(connection) if tenant is None or each.tenant in (None, tenant)]

    def set_price(self, new: NewPrice) -> Price:
        """In place of one for the same from the same day. Raises Refused, Conflict."""
        with self._context.ledger.transaction(durable=True) as connection:
            return prices.add(connection, new)

    def remove_price(self, number: int) -> None:
        """As if it had never been, for all that has not been billed. Raises NotFound."""
        with self._context.ledger.transaction(durable=True) as connection:
            prices.remove(connection, number)

    # --- invoices

    def invoices(self, tenant: str | None) -> Sequence[Mapping[str, object]]:
        """Those that have been issued, the latest first."""
        with self._context.ledger.reader() as connection:
            return [drawing.summary(each) for each in invoices.listed(connection, tenant)]

    def invoice(self, number: str, tenant: str | None) -> Invoice:
        """One that has been issued. Raises NotFound."""
        with self._context.ledger.reader() as connection:
            return invoices.by_number(connection, number, tenant)

    def of_month(self, tenant: str, text: str) -> Invoice:
        """A tenant's invoice for a month, a draft where none has been issued. Raises Refused."""
        month = Month.parse(text)
        with self._context.ledger.reader() as connection:
            found = invoices.issued(connection, tenant, month)
            known = prices.load(connection)
        return found or self._draft(tenant, month, known, ())

    def issue(self, tenant: str, text: str, recipient: Sequence[str]) -> Invoice:
        """Give a month's invoice a number, for good; the one that there is where that has been done.

        Raises Refused, Conflict where the month is not over.
        """
        month, seller = Month.parse(text), self._context.config.invoice
        now = time.time()
        if now < month.span[1]:
            raise Conflict(
                f"{month} is not over: what is used until its end is not known yet", hint="leave --issue out"
            )
        if seller.seller is None:
            hint = "set seller in the table [invoice] of the configuration"
            raise Refused([Problem("nobody is named who sends invoices", hint)])
        if self._meter.sampled < month.span[1]:
            self._meter.sample()
        with self._context.ledger.transaction(durable=True) as connection:
            found = invoices.issued(connection, tenant, month)
            if found:
                return found
            draft = self._draft(tenant, month, prices.load(connection), recipient)
            if not draft.lines:
                raise Refused(f"{tenant} has used nothing in {month} that has a price", hint="see: bulkhead price ls")
            return invoices.issue(connection, draft, datetime.fromtimestamp(now, UTC).date())

    def drawn(self, invoice: Invoice, form: Form) -> bytes:
        """An invoice as a document."""
        if form == "json":
            return invoice.model_dump_json(indent=1).encode()
        page = drawing.html(invoice).encode()
        if form == "html":
            return page
        # The library takes a second to load and 60 MB that it would keep.
        return processes.run((sys.executable, *drawing.PDF_PROGRAM), stdin=page, timeout=DRAWING_SECONDS)

    def _draft(self, tenant: str, month: Month, known: Sequence[Price], recipient: Sequence[str]) -> Invoice:
        ledger, (begin, end), now = self._context.ledger, month.span, time.time()
        if begin < now - ledger.retention.days:
            raise NotFound(f"the use of {month} is kept no longer", hint="see metering_days in the configuration")
        if begin > now:
            raise Refused(f"{month} has not begun", hint="give an earlier --month")
        days = Span(int(begin), int(end), query.TIMES["day"])
        wanted, by_day, by_instance = Wanted(tenant=tenant), list[By](["day", "plan"]), list[By](["instance"])
        return invoices.draw(
            tenant,
            month,
            days=query.rows(ledger, days, wanted, by_day),
            instances=query.rows(ledger, days, wanted, by_instance),
            prices=known,
            seller=self._context.config.invoice,
            recipient=recipient,
        )
