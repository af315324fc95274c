"""An invoice as a page: HTML by a template, and the same page as PDF."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import NoReturn

from bulkhead.metering.invoices import Invoice

TEMPLATE = Path(__file__).with_name("invoice.html")
PDF_PROGRAM = ("-m", "bulkhead.metering.drawing")
"""`python` turns HTML (stdin) into PDF (stdout) with these, in a process of its own, which gives its memory back."""


def html(invoice: Invoice) -> str:
    """A whole page without scripts, links or anything from elsewhere. All text in it is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"money": _money, "number": _number}
    return environment.from_string(TEMPLATE.read_text()).render(invoice=invoice)


def _money(amount: Decimal) -> str:
    """With thousands apart."""
    return f"{amount:,}"


def _number(amount: Decimal) -> str:
    """Without zeros at the end."""
    text = f"{amount:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def pdf(page: str) -> bytes:
    """A page as PDF. It has nothing to fetch, and nothing would be fetched."""
    from weasyprint import HTML

    made = HTML(string=page, url_fetcher=_fetch_nothing).write_pdf()
    assert isinstance(made, bytes)
    return made


def _fetch_nothing(url: str, *_: object, **__: object) -> NoReturn:
    raise ValueError(f"an invoice fetches nothing, not {url[:100]!r}")


def summary(invoice: Invoice) -> Mapping[str, object]:
    """What a list tells of it."""
    told = ("number", "issued", "tenant", "month", "currency", "net", "tax", "total")
    return invoice.model_dump(mode="json", include=set(told))


if __name__ == "__main__":
    import sys

    sys.stdout.buffer.write(pdf(sys.stdin.read()))
