"""Prices: what a unit of use costs whom, from which day on."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from bulkhead.errors import Conflict, NotFound, Problem, Refused
from bulkhead.metering.units import BY_NAME, MONTH
from bulkhead.model import Model, Name
from bulkhead.tenancy.names import TenantName

TIME = ("hour", MONTH)
"""Units of which the latest one counts: nobody pays by the hour and by the month at once."""
UNIT_NAMES = (MONTH, *BY_NAME)
MOST = 10_000
Amount = Annotated[str, StringConstraints(pattern=r"^\d{1,12}(\.\d{1,10})?$")]
"""Decimal digits; a price is never a binary fraction."""
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_COLUMNS = ("id", "tenant", "plan", "unit", "amount", "currency", "valid_from")
_DIGITS = {
    **dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""After the point, where it is not 2 (ISO 4217)."""


class NewPrice(Model):
    """A price to be set. None: for all tenants, or all plans."""

    tenant: TenantName | None = None
    plan: Name | None = None
    unit: str
    amount: Amount
    currency: Currency
    valid_from: date
    """The first day (UTC) on which it counts, until another one for the same does."""

    @field_validator("valid_from", mode="before")
    @classmethod
    def _is_written(cls, value: object) -> object:
        # Numbers would be taken for seconds since the epoch.
        if not isinstance(value, date) and not (isinstance(value, str) and _DATE.fullmatch(value)):
            raise ValueError("is not a date such as 2026-12-31")
        return value

    @field_validator("unit")
    @classmethod
    def _known(cls, unit: str) -> str:
        if unit not in UNIT_NAMES:
            raise ValueError(f"is not one of {', '.join(UNIT_NAMES)}")
        return unit

    @model_validator(mode="after")
    def _of_a_plan(self) -> Self:
        if self.plan is not None and self.unit in BY_NAME and not BY_NAME[self.unit].planned:
            raise ValueError(f"{self.unit} cannot have a price of plan {self.plan}: volumes and snapshots have none")
        return self


class Price(NewPrice):
    """One that has been set."""

    id: int = Field(ge=1)


def slot(unit: str) -> str:
    """What a unit is a price of: time, or something that is counted."""
    return "time" if unit in TIME else unit


def choose(prices: Sequence[Price], *, tenant: str, plan: str, wanted: str, day: date) -> Price | None:
    """The price of a slot for a tenant's use of a plan on a day.

    The tenant's own comes before everybody's, that of the plan before that of any; of those the latest.
    """
    fitting = [
        price
        for price in prices
        if slot(price.unit) == wanted
        and price.valid_from <= day
        and price.tenant in (None, tenant)
        and price.plan in (None, plan)
    ]
    return max(fitting, default=None, key=lambda price: (bool(price.tenant), bool(price.plan), price.valid_from))


def money(amount: Decimal, currency: str) -> Decimal:
    """An amount in whole minor units of its currency; halves away from zero."""
    return amount.quantize(Decimal(1).scaleb(-_DIGITS.get(currency, 2)), rounding=ROUND_HALF_UP)


# --- the ledger's table


def load(connection: sqlite3.Connection) -> list[Price]:
    """Every price, by whom and what it is for."""
    rows = connection.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM price ORDER BY tenant, plan, unit, valid_from"  # noqa: S608
    )
    found = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
    return [Price(**{**row, "tenant": row["tenant"] or None, "plan": row["plan"] or None}) for row in found]


def add(connection: sqlite3.Connection, new: NewPrice) -> Price:
    """Set a price, in place of one for the same from the same day. Raises Refused, Conflict."""
    known = load(connection)
    if len(known) >= MOST:
        raise Conflict(f"there are {MOST} prices already", hint="bulkhead price rm removes those that hold no more")
    for other in known:
        meet = other.tenant is None or new.tenant is None or other.tenant == new.tenant
        if meet and other.currency != new.currency:
            what = f"price {other.id} is in {other.currency}: an invoice cannot be in {new.currency} as well"
            raise Refused([Problem(what, f"give it in {other.currency}, or remove that one")])
    same = [price for price in known if _key(price) == _key(new)]
    for price in same:
        connection.execute("DELETE FROM price WHERE id = ?", (price.id,))
    cursor = connection.execute(
        "INSERT INTO price (tenant, plan, unit, amount, currency, valid_from) VALUES (?, ?, ?, ?, ?, ?)",
        (new.tenant or "", new.plan or "", new.unit, new.amount, new.currency, new.valid_from.isoformat()),
    )
    return Price(id=cursor.lastrowid or 0, **new.model_dump())


def _key(price: NewPrice) -> tuple[str | None, str | None, str, date]:
    return (price.tenant, price.plan, slot(price.unit), price.valid_from)


def remove(connection: sqlite3.Connection, number: int) -> None:
    """Take a price back, as if it had never been. Raises NotFound."""
    if connection.execute("DELETE FROM price WHERE id = ?", (number,)).rowcount == 0:
        raise NotFound(f"no such price: {number}", hint="see: bulkhead price ls")
