"""bulkhead invoice"""

from __future__ import annotations

import os
import sys

from bulkhead.cli.app import App
from bulkhead.cli.output import talk, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, add_format
from bulkhead.client import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMS = {".json": "json", ".html": "html", ".htm": "html", ".pdf": "pdf"}
LIST_HEADER = ("NUMBER", "DATE", "TENANT", "MONTH", "TOTAL")
HEADER = ("WHAT", "DAYS", "QUANTITY", "PRICE", "AMOUNT")


def arguments(parser: Parser) -> None:
    """Which one, and where to."""
    parser.add_argument("--tenant", metavar="T", help="whose (default; a tenant's user: its own)")
    parser.add_argument("--month", metavar="YYYY-MM", help="of which month (the last one)")
    parser.add_argument("--issue", action="store_true", help="give it a number, for good; its month must be over")
    parser.add_argument(
        "--to", action="append", default=[], metavar="LINE", help="a line of name and address; with --issue"
    )
    parser.add_argument("--list", action="store_true", dest="lists", help="list those that have been issued")
    parser.add_argument("-o", "--output", metavar="FILE", help="write it to FILE.html, FILE.pdf or FILE.json")
    add_format(parser)
    parser.add_argument("number", metavar="NUMBER", nargs="?", help="of one that has been issued")


def main(args: Namespace, app: App) -> int:
    """Show it, or write it."""
    form = _form(args)
    tenant = {"tenant": args.tenant} if args.tenant else {}
    if args.lists:
        return _list(args, app, tenant)
    if args.number:
        path = f"/v1/invoices/{quote(args.number)}"
        tenant = {}
    else:
        month = args.month or _last_month()
        path = f"/v1/invoices/month/{quote(month)}"
        if args.issue:
            body = {**tenant, "month": month, "recipient": args.to}
            path, tenant = f"/v1/invoices/{quote(app.client.call('POST', '/v1/invoices', body=body)['number'])}", {}
    found = app.client.call("GET", path, query=tenant)
    if not found["number"]:
        talk(f"a draft: {found['month']} has not been billed (--issue)")
    if args.output:
        with app.client.stream("GET", path, query={**tenant, "format": form}) as response:
            _save(args.output, response.read())
    elif args.format == "json":
        write_json(found)
    else:
        _show(found)
    return 0


def _form(args: Namespace) -> str:
    """What the file is to be. Raises Refused with all that does not go together."""
    from bulkhead.errors import Problem, Refused

    form = FORMS.get(os.path.splitext(args.output)[1].lower()) if args.output else "json"  # noqa: PTH122 - hot path
    problems = []
    if form is None:
        problems.append(Problem(f"-o {args.output}: an invoice is .html, .pdf or .json", "name the file so"))
    if args.number and (args.month or args.tenant or args.issue):
        problems.append(Problem(f"{args.number} is issued, and names its tenant and month", "leave the others out"))
    if args.to and not args.issue:
        problems.append(Problem("--to is for an invoice that is issued", "add --issue"))
    if args.lists and (args.number or args.month or args.issue or args.output):
        problems.append(Problem("--list goes with --tenant and --format alone", "leave the others out"))
    if problems:
        raise Refused(problems)
    return form or "json"


def _last_month() -> str:
    import time

    year, month, *_ = time.gmtime()
    return f"{year - 1}-12" if month == 1 else f"{year}-{month - 1:02d}"


def _list(args: Namespace, app: App, tenant: dict[str, str]) -> int:
    found = app.client.call("GET", "/v1/invoices", query=tenant)
    if args.format == "json":
        write_json(found)
    else:
        rows = [[each[key] for key in ("number", "issued", "tenant", "month")] for each in found]
        totals = [f"{each['total']} {each['currency']}" for each in found]
        write_table(LIST_HEADER, [[*row, total] for row, total in zip(rows, totals, strict=True)])
    return 0


def _save(path: str, data: bytes) -> None:
    from bulkhead.errors import HostError

    try:
        with open(path, "wb") as file:  # noqa: PTH123 - hot path
            file.write(data)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from None


def _show(found: dict[str, Any]) -> None:
    title = f"Invoice {found['number']} of {found['issued']}" if found["number"] else "Draft"
    sys.stdout.write(f"{title}: {found['tenant']}, {found['begin']} to {found['end']}\n\n")
    write_table(HEADER, [_line(line) for line in found["lines"]])
    tax = f"{found['seller']['tax_name']} {found['tax_percent']} %"
    sums = (("Net", found["net"]), (tax, found["tax"]), (f"Total {found['currency']}", found["total"]))
    width = max(len(amount) for _, amount in sums)
    sys.stdout.write("\n" + "".join(f"{name:<20}{amount:>{width}}\n" for name, amount in sums))


def _line(line: dict[str, Any]) -> tuple[str, ...]:
    plan = "all plans" if line["plan"] is None else f"plan {line['plan'] or '-'}"
    days = f"{line['first']} to {line['last']}"
    return (f"{plan}, {line['label']}", days, line["quantity"], line["price"], line["amount"])
