"""Invoices: a tenant's use of a month, at the prices of its days. Amounts are decimal; nothing is a binary fraction.

How it is rounded: a quantity to 6 digits after the point, a line (quantity x price) to the currency's minor units,
halves away from zero both. The sum is that of the lines, the tax of the sum is rounded in the same way. So whoever has
the paper can do every sum on it again.
"""

from __future__ import annotations

import calendar
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Literal

from bulkhead.config import Seller
from bulkhead.errors import NotFound, Problem, Refused
from bulkhead.metering import units
from bulkhead.metering.meters import Usage
from bulkhead.metering.prices import TIME, Price, choose, money
from bulkhead.metering.query import Row
from bulkhead.model import Model

MOST_INSTANCES = 200
"""Told one by one on an invoice, and as many volumes and snapshots; the rest together."""
_KEPT = ("volume", "snapshot")
_QUANTITY = Decimal("0.000001")
_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])", re.ASCII)


class Line(Model):
    """One thing that is paid for."""

    plan: str | None
    """None: of all plans."""
    where: str = ""
    """Whose use it is, where it is not that of instances."""
    unit: str
    label: str
    first: date
    last: date
    """Days with use at this price."""
    quantity: Decimal
    price: Decimal
    amount: Decimal


class InstanceUse(Model):
    """What one instance has come to, for whoever wants to see it."""

    name: str
    plan: str
    hours: Decimal
    cpu_hours: Decimal
    gb_received: Decimal
    gb_sent: Decimal


class KeptUse(Model):
    """What one volume or snapshot has come to."""

    name: str
    kind: Literal["volume", "snapshot"]
    gib_hours: Decimal
    gib_hours_used: Decimal
    """Of a snapshot the same: what it takes is what is sold."""


class Invoice(Model):
    """The whole document. A draft has no number and no date; one with a number never changes."""

    number: str = ""
    issued: date | None = None
    tenant: str
    recipient: tuple[str, ...]
    month: str
    begin: date
    end: date
    """The last day."""
    seller: Seller
    currency: str
    lines: tuple[Line, ...]
    instances: tuple[InstanceUse, ...]
    more_instances: int = 0
    kept: tuple[KeptUse, ...] = ()
    """Volumes and snapshots."""
    more_kept: int = 0
    net: Decimal
    tax_percent: Decimal
    tax: Decimal
    total: Decimal


@dataclass(frozen=True, slots=True)
class Month:
    """A month in UTC."""

    begin: date

    @classmethod
    def parse(cls, text: str) -> Month:
        """Of "2026-11". Raises Refused."""
        found = _MONTH.fullmatch(text)
        if not found or int(found[1]) < 1970:
            raise Refused(f"{text!r} is not a month", hint="say 2026-11")
        return cls(date(int(found[1]), int(found[2]), 1))

    @property
    def next(self) -> date:
        """The first day after it."""
        return self.begin + timedelta(calendar.monthrange(self.begin.year, self.begin.month)[1])

    @property
    def span(self) -> tuple[float, float]:
        """Its begin and end in seconds since the epoch."""
        return _seconds(self.begin), _seconds(self.next)

    def __str__(self) -> str:
        return self.begin.strftime("%Y-%m")


def _seconds(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def draw(
    tenant: str,
    month: Month,
    *,
    days: Iterable[Row],
    instances: Sequence[Row],
    prices: Sequence[Price],
    seller: Seller,
    recipient: Sequence[str] = (),
) -> Invoice:
    """A draft: `days` are the tenant's use by day and plan, `instances` that by instance. Raises Refused."""
    lines = _lines(tenant, month, days, prices)
    currencies = {price.currency for price in prices if price.tenant in (None, tenant)}
    if not currencies:
        what = f"there are no prices for {tenant}, so there is nothing to bill"
        raise Refused([Problem(what, "bulkhead price set month 4.50 EUR --plan small")])
    currency = currencies.pop()
    kept = sorted((row for row in instances if row.subject.kind in _KEPT), key=_size)
    others = [row for row in instances if row.subject.kind not in _KEPT and _as_an_instance(row.usage)]
    shown = sorted(others, key=lambda row: (-row.usage.uptime, row.subject.name))
    net = sum((line.amount for line in lines), Decimal(0))
    percent = Decimal(seller.tax_percent)
    tax = money(net * percent / 100, currency)
    return Invoice(
        tenant=tenant,
        recipient=tuple(recipient) or (tenant,),
        month=str(month),
        begin=month.begin,
        end=month.next - timedelta(1),
        seller=seller,
        currency=currency,
        lines=tuple(lines),
        instances=tuple(_instance(row) for row in shown[:MOST_INSTANCES]),
        more_instances=max(0, len(shown) - MOST_INSTANCES),
        kept=tuple(_kept(row) for row in kept[:MOST_INSTANCES]),
        more_kept=max(0, len(kept) - MOST_INSTANCES),
        net=money(net, currency),
        tax_percent=percent,
        tax=tax,
        total=money(net + tax, currency),
    )


@dataclass(slots=True)
class _Part:
    price: Price
    plan: str | None
    first: date
    last: date
    amount: Fraction = Fraction(0)


def _lines(tenant: str, month: Month, days: Iterable[Row], prices: Sequence[Price]) -> list[Line]:
    """A line for each price and plan: use is billed at the price of its day."""
    parts: dict[tuple[int, str | None], _Part] = {}
    for row in sorted(days, key=lambda row: row.begin):
        day, plan = datetime.fromtimestamp(row.begin, UTC).date(), row.subject.plan
        for wanted in ("time", *(name for name in units.BY_NAME if name not in TIME)):
            price = choose(prices, tenant=tenant, plan=plan, wanted=wanted, day=day)
            amount = _quantity(price.unit, row.usage, month) if price else Fraction(0)
            if price is None or not amount:
                continue
            billed = plan if price.plan or price.unit in TIME else None
            part = parts.setdefault((price.id, billed), _Part(price, billed, day, day))
            part.last = day
            part.amount += amount
    order = [units.MONTH, *units.BY_NAME]

    def place(part: _Part) -> tuple[bool, str, int, date]:
        return part.plan is None, part.plan or "", order.index(part.price.unit), part.first

    return [_line(part) for part in sorted(parts.values(), key=place)]


def _quantity(unit: str, use: Usage, month: Month) -> Fraction:
    if unit == units.MONTH:
        begin, end = month.span
        return Fraction(use.uptime, 1000) / Fraction(int(end - begin))
    return units.BY_NAME[unit].amount(use)


def _line(part: _Part) -> Line:
    price, quantity = Decimal(part.price.amount), _decimal(part.amount)
    unit = units.BY_NAME.get(part.price.unit)
    return Line(
        plan=part.plan,
        where=unit.where if unit else "",
        unit=part.price.unit,
        label=unit.label if unit else "months",
        first=part.first,
        last=part.last,
        quantity=quantity,
        price=price,
        amount=money(quantity * price, part.price.currency),
    )


def _decimal(amount: Fraction) -> Decimal:
    """To 6 digits after the point, halves up."""
    return Decimal((amount * 10**6 * 2 + 1) // 2).scaleb(-6).quantize(_QUANTITY)


def _shown(unit: str, use: Usage) -> Decimal:
    exact = units.BY_NAME[unit].amount(use)
    return (Decimal(exact.numerator) / exact.denominator).quantize(Decimal("0.001"), rounding=ROUND_HALF_UP)


def _size(row: Row) -> tuple[int, str]:
    """The largest first."""
    return -row.usage.volume_sold - row.usage.snapshot_sold, row.subject.name


def _as_an_instance(use: Usage) -> bool:
    """Not in a sum of what has been removed that is of volumes and snapshots alone."""
    return bool(replace(use, volume_sold=0, volume_used=0, snapshot_sold=0))


def _kept(row: Row) -> KeptUse:
    volume = row.subject.kind == "volume"
    sold, used = ("volume-gib-hour", "volume-used-gib-hour") if volume else ("snapshot-gib-hour",) * 2
    return KeptUse(
        name=row.subject.name,
        kind="volume" if volume else "snapshot",
        gib_hours=_shown(sold, row.usage),
        gib_hours_used=_shown(used, row.usage),
    )


def _instance(row: Row) -> InstanceUse:
    def amount(unit: str) -> Decimal:
        return _shown(unit, row.usage)

    return InstanceUse(
        name=row.subject.name or "(removed instances)",
        plan=row.subject.plan,
        hours=amount("hour"),
        cpu_hours=amount("cpu-hour"),
        gb_received=amount("gb-received"),
        gb_sent=amount("gb-sent"),
    )


# --- the ledger's tables


def issue(connection: sqlite3.Connection, draft: Invoice, today: date) -> Invoice:
    """Give a draft the next number and keep it for good, in a transaction of the caller's."""
    series = f"{draft.seller.prefix}{today.year}"
    last = connection.execute("SELECT max(sequence) FROM invoice WHERE series = ?", (series,)).fetchone()[0]
    sequence = (last or 0) + 1
    invoice = draft.model_copy(update={"number": f"{series}-{sequence:05d}", "issued": today})
    connection.execute(
        "INSERT INTO invoice (number, series, sequence, tenant, month, document) VALUES (?, ?, ?, ?, ?, ?)",
        (invoice.number, series, sequence, invoice.tenant, invoice.month, invoice.model_dump_json()),
    )
    end = int(Month.parse(invoice.month).span[1])
    connection.execute(
        "INSERT INTO closed (tenant, until) VALUES (?, ?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
        (invoice.tenant, end),
    )
    return invoice


def issued(connection: sqlite3.Connection, tenant: str, month: Month) -> Invoice | None:
    """The invoice that a tenant has got for a month."""
    found = connection.execute("SELECT document FROM invoice WHERE tenant = ? AND month = ?", (tenant, str(month)))
    row = found.fetchone()
    return Invoice.model_validate_json(row[0]) if row else None


def by_number(connection: sqlite3.Connection, number: str, tenant: str | None) -> Invoice:
    """Raises NotFound, also where it is another tenant's."""
    row = connection.execute("SELECT document FROM invoice WHERE number = ?", (number,)).fetchone()
    found = Invoice.model_validate_json(row[0]) if row else None
    if found is None or tenant not in (None, found.tenant):
        raise NotFound(f"no such invoice: {number}", hint="see: bulkhead invoice --list")
    return found


def listed(connection: sqlite3.Connection, tenant: str | None) -> list[Invoice]:
    """All of them, or a tenant's, the latest first."""
    rows = connection.execute(
        "SELECT document FROM invoice WHERE ? IS NULL OR tenant = ? ORDER BY series DESC, sequence DESC",
        (tenant, tenant),
    )
    return [Invoice.model_validate_json(row[0]) for row in rows]
