"""What use costs: prices by day, whole invoices, numbers without gaps."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from bulkhead.config import Seller
from bulkhead.errors import NotFound, Refused
from bulkhead.metering import drawing, invoices, prices, query, schema
from bulkhead.metering.invoices import Invoice, Month
from bulkhead.metering.ledger import Ledger, Subject
from bulkhead.metering.prices import NewPrice, Price
from bulkhead.metering.query import By, Span, Wanted
from tests.harness.abilities import require
from tests.unit.metering.ledgers import keep, ledger, run, subject

NOVEMBER = Month.parse("2026-11")
SELLER = Seller(
    seller="Example Hosting Ltd",
    address=("1 Example Street", "Example Town"),
    tax_id="XX123",
    tax_percent="19",
    note="Payable within 14 days.",
)


def price(unit: str, amount: str, *, since: str = "2026-01-01", **changes: str | None) -> NewPrice:
    """One in EUR."""
    given = {"unit": unit, "amount": amount, "currency": "EUR", "valid_from": since, **changes}
    return NewPrice.model_validate(given)


def numbered(*new: NewPrice) -> list[Price]:
    """As the ledger has them."""
    return [Price(id=number, **each.model_dump()) for number, each in enumerate(new, 1)]


def draft(book: Ledger, known: Sequence[Price], *, tenant: str = "acme", month: Month = NOVEMBER) -> Invoice:
    """An invoice for what the ledger has."""
    span = Span(*map(int, month.span), schema.DAY)
    by_day, by_instance = list[By](["day", "plan"]), list[By](["instance"])
    return invoices.draw(
        tenant,
        month,
        days=query.rows(book, span, Wanted(tenant=tenant), by_day),
        instances=query.rows(book, span, Wanted(tenant=tenant), by_instance),
        prices=known,
        seller=SELLER,
    )


def test_a_price_that_changes_within_the_month(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    run(book, subject(), "2026-11-01", "2026-12-01")
    known = numbered(
        price("month", "6.00", plan="small"),
        price("month", "9.00", plan="small", since="2026-11-16"),
        price("month", "1.00", plan="large"),
    )
    found = draft(book, known)
    told = [(line.first.day, line.last.day, str(line.quantity), str(line.amount)) for line in found.lines]
    assert told == [(1, 15, "0.500000", "3.00"), (16, 30, "0.500000", "4.50")]
    assert (str(found.net), str(found.tax), str(found.total)) == ("7.50", "1.43", "8.93"), "1.425 is rounded up"


def test_a_whole_month_costs_the_months_price(tmp_path: Path) -> None:
    for month, days in (("2026-02", 28), ("2026-11", 30), ("2026-12", 31)):
        book = ledger(tmp_path / month) if (tmp_path / month).mkdir() is None else None
        assert book
        first = date.fromisoformat(f"{month}-01")
        run(book, subject(), str(first), str(Month(first).next), step=86_400)
        found = draft(book, numbered(price("month", "4.49")), month=Month(first))
        assert (days, str(found.net)) == (days, "4.49")


def test_hours_in_the_place_of_months_from_a_day_on(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    run(book, subject(), "2026-11-01", "2026-12-01")
    found = draft(book, numbered(price("month", "30"), price("hour", "0.01", since="2026-11-30")))
    assert [(line.unit, str(line.amount)) for line in found.lines] == [("month", "29.00"), ("hour", "0.24")]


def test_the_nearest_price_counts() -> None:
    known = numbered(
        price("gb-sent", "1"),
        price("gb-sent", "2", plan="small"),
        price("gb-sent", "3", tenant="acme"),
        price("gb-sent", "4", tenant="acme", plan="small", since="2026-11-10"),
        price("gb-sent", "5", since="2026-11-05"),
    )

    def amount(tenant: str, plan: str, day: int) -> str:
        found = prices.choose(known, tenant=tenant, plan=plan, wanted="gb-sent", day=date(2026, 11, day))
        return found.amount if found else ""

    assert [amount("beta", "", 1), amount("beta", "", 5)] == ["1", "5"]
    assert amount("beta", "small", 5) == "2"
    assert [amount("acme", "small", 9), amount("acme", "small", 10), amount("acme", "large", 10)] == ["3", "4", "3"]
    assert prices.choose(known, tenant="acme", plan="", wanted="gb-sent", day=date(2025, 1, 1)) is None


def test_units_are_billed_over_all_plans_and_rounded_by_the_line(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    run(book, subject(1), "2026-11-03", "2026-11-04", sent=1_234_567_890, cpu=5 * 10**12)
    run(book, subject(2, plan="large"), "2026-11-03", "2026-11-04", sent=1_000_000_000, reads=1_500_000)
    run(book, subject(3, tenant="beta"), "2026-11-03", "2026-11-04", sent=10**15)
    known = numbered(
        price("gb-sent", "0.01"), price("cpu-hour", "0.0123"), price("million-io", "0.333"), price("hour", "0.005")
    )
    found = draft(book, known)
    told = {(line.unit, line.plan): (str(line.quantity), str(line.amount)) for line in found.lines}
    assert told == {
        ("hour", "small"): ("24.000000", "0.12"),
        ("hour", "large"): ("24.000000", "0.12"),
        ("gb-sent", None): ("2.234568", "0.02"),
        ("cpu-hour", None): ("1.388889", "0.02"),
        ("million-io", None): ("1.500000", "0.50"),
    }
    for line in found.lines:
        assert line.amount == prices.money(line.quantity * line.price, "EUR"), "it can be done again from the paper"
    assert found.net == sum(line.amount for line in found.lines)
    assert found.total == found.net + found.tax
    assert [(each.name, str(each.hours)) for each in found.instances] == [("web1", "24.000"), ("web2", "24.000")]


@pytest.mark.parametrize(("currency", "amount"), [("EUR", "1.01"), ("JPY", "1"), ("KWD", "1.005"), ("XXX", "1.01")])
def test_money_is_in_whole_minor_units(currency: str, amount: str) -> None:
    assert str(prices.money(Decimal("1.005"), currency)) == amount


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": "1e5"},
        {"amount": "-1"},
        {"amount": "0.12345678901"},
        {"amount": "NaN"},
        {"unit": "year"},
        {"currency": "eur"},
        {"currency": "EURO"},
        {"since": "2026-13-01"},
        {"tenant": "A B"},
        {"plan": "../x"},
    ],
)
def test_a_price_that_makes_no_sense_is_none(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        price(**{"unit": "hour", "amount": "1", **wrong})


def test_prices_are_kept_and_replaced(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    with book.transaction() as connection:
        first = prices.add(connection, price("hour", "0.01", plan="small"))
        again = prices.add(connection, price("month", "5", plan="small"))
        other = prices.add(connection, price("hour", "0.02", plan="small", tenant="acme"))
        assert [each.amount for each in prices.load(connection)] == ["5", "0.02"], "one price for time from one day"
        assert len({first.id, again.id, other.id}) == 3
        with pytest.raises(Refused, match="is in EUR"):
            prices.add(connection, price("gb-sent", "1", currency="USD", tenant="acme"))
        prices.remove(connection, again.id)
        prices.add(connection, price("gb-sent", "1", currency="USD", tenant="beta"))
        with pytest.raises(NotFound):
            prices.remove(connection, again.id)


def test_numbers_have_no_gaps_and_invoices_never_change(tmp_path: Path) -> None:
    book, known = ledger(tmp_path), numbered(price("hour", "0.005"))
    for number in range(8):
        run(book, subject(number, tenant=f"t{number}"), "2026-11-01", "2026-11-02")
    drafts = {number: draft(book, known, tenant=f"t{number}") for number in range(8)}
    with pytest.raises(ZeroDivisionError), book.transaction() as connection:
        invoices.issue(connection, drafts[0], date(2026, 12, 1))
        raise ZeroDivisionError

    def issue(number: int) -> None:
        with book.transaction(durable=True) as connection:
            invoices.issue(connection, drafts[number], date(2026, 12, 1))

    threads = [threading.Thread(target=issue, args=(number,)) for number in drafts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with book.reader() as connection:
        found = invoices.listed(connection, None)
        assert [each.number for each in found] == [f"2026-{number:05d}" for number in range(8, 0, -1)]
        before = invoices.by_number(connection, "2026-00003", None)
        with pytest.raises(NotFound):
            invoices.by_number(connection, "2026-00003", "somebody")
        assert invoices.issued(connection, before.tenant, NOVEMBER) == before
        assert [each.tenant for each in invoices.listed(connection, "t3")] == ["t3"]
    run(book, subject(1, tenant="t1"), "2026-11-05", "2026-11-06", sent=5)
    assert draft(book, known, tenant="t1").net == drafts[1].net, "what comes late is in the next month"
    january = date(2027, 1, 1)
    with book.transaction() as connection:
        assert (
            invoices.issue(connection, drafts[1].model_copy(update={"month": "2026-12"}), january).number
            == "2027-00001"
        )


def test_without_prices_there_is_nothing_to_bill(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no prices for acme"):
        draft(ledger(tmp_path), [])
    with pytest.raises(Refused, match="is not a month"):
        Month.parse("2026-13")


def test_what_is_in_names_stays_text(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    run(book, subject(), "2026-11-03", "2026-11-04")
    seller = Seller(seller="<script>alert(1)</script>", note="</div><img src=file:///etc/passwd onerror=x>")
    found = draft(book, numbered(price("hour", "1"))).model_copy(
        update={"seller": seller, "recipient": ("{{ 7 * 7 }}", "<b>x</b>")}
    )
    page = drawing.html(found)
    for harmless in ("&lt;script&gt;", "{{ 7 * 7 }}", "&lt;b&gt;x", "&lt;img src"):
        assert harmless in page
    assert "<script" not in page
    assert "<img" not in page
    assert drawing.pdf(page).startswith(b"%PDF-")


def test_the_pdf_says_what_the_invoice_does(tmp_path: Path) -> None:
    require("pdftotext")
    book = ledger(tmp_path)
    run(book, subject(), "2026-11-01", "2026-12-01", sent=10**12)
    made = draft(book, numbered(price("month", "4.50", plan="small"), price("gb-sent", "0.01"))).model_copy(
        update={"number": "2026-00007", "issued": date(2026, 12, 1), "recipient": ("Acme Gesch\u00e4ft", "1 Street")}
    )
    (tmp_path / "invoice.pdf").write_bytes(drawing.pdf(drawing.html(made)))
    argv = ["pdftotext", "-layout", str(tmp_path / "invoice.pdf"), "-"]
    words = " ".join(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())
    who = ("2026-00007", "Acme Gesch\u00e4ft", "Example Hosting Ltd", "2026-11-01 to 2026-11-30")
    for told in (*who, "VAT 19 %", "14.50", "17.26"):
        assert told in words
    assert "Page 1 of" in words


def test_a_page_fetches_nothing() -> None:
    with pytest.raises(ValueError, match="fetches nothing"):
        drawing._fetch_nothing("file:///etc/passwd")


VOLUME = Subject("a" * 32, "data", "acme", "", "volume")
SNAPSHOT = Subject("b" * 32, "web1/before", "acme", "", "snapshot")


def test_volumes_and_snapshots_are_billed_for_their_time_at_the_price_of_the_day(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    run(book, subject(), "2026-11-01", "2026-11-02")
    keep(book, VOLUME, "2026-11-10T00:00", "2026-11-20T12:00", sold=4 << 30, used=1 << 30)
    keep(book, SNAPSHOT, "2026-10-31T12:00", "2026-11-01T06:00", sold=2 << 30, used=None)
    known = numbered(
        price("volume-gib-hour", "0.01"),
        price("volume-gib-hour", "0.02", since="2026-11-20"),
        price("volume-used-gib-hour", "0.5", since="2026-11-20"),
        price("snapshot-gib-hour", "0.1"),
        price("disk-gib-hour", "0"),
    )
    found = draft(book, known)
    told = {(line.unit, line.first.day): (line.where, str(line.quantity), str(line.amount)) for line in found.lines}
    assert told.pop(("disk-gib-hour", 1)) == ("", "48.000000", "0.00"), "of the plan's disk alone"
    assert told == {
        ("volume-gib-hour", 10): ("Volumes", "960.000000", "9.60"),
        ("volume-gib-hour", 20): ("Volumes", "48.000000", "0.96"),
        ("volume-used-gib-hour", 20): ("Volumes", "12.000000", "6.00"),
        ("snapshot-gib-hour", 1): ("Snapshots", "12.000000", "1.20"),
    }
    assert [each.name for each in found.instances] == ["web1"]
    assert [(each.name, each.kind, str(each.gib_hours), str(each.gib_hours_used)) for each in found.kept] == [
        ("data", "volume", "1008.000", "252.000"),
        ("web1/before", "snapshot", "12.000", "12.000"),
    ]
    page = drawing.html(found)
    assert page.index("Volumes<small>GiB hours of volumes</small>") < page.index("Volumes and snapshots</h2>")
    assert Invoice.model_validate_json(found.model_dump_json()) == found


def test_what_has_no_plan_has_no_price_of_one() -> None:
    with pytest.raises(ValidationError, match="volumes and snapshots have none"):
        price("volume-gib-hour", "1", plan="small")
