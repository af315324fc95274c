"""bulkhead price"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.each import for_each
from bulkhead.cli.output import write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_listing
from bulkhead.client import quote

HEADER = ("ID", "TENANT", "PLAN", "UNIT", "PRICE", "FROM")
UNITS = (
    *("month", "hour", "cpu-hour", "ghz-hour", "memory-gib-hour", "memory-used-gib-hour", "disk-gib-hour"),
    *("disk-used-gib-hour", "gb-received", "gb-sent", "gb-read", "gb-written", "million-io"),
    *("volume-gib-hour", "volume-used-gib-hour", "snapshot-gib-hour"),
)


def _ls(args: Namespace, app: App) -> int:
    prices = app.client.call("GET", "/v1/prices")
    if args.quiet:
        for price in prices:
            write(str(price["id"]))
    elif args.format == "json":
        write_json(prices)
    else:
        write_table(HEADER, [_row(price) for price in prices])
    return 0


def _row(price: dict[str, object]) -> tuple[object, ...]:
    return (
        price["id"],
        price["tenant"] or "(all)",
        price["plan"] or "(all)",
        price["unit"],
        f"{price['amount']} {price['currency']}",
        price["valid_from"],
    )


def _set_arguments(parser: Parser) -> None:
    parser.add_argument("--plan", metavar="P", help="of instances under this named plan (all)")
    parser.add_argument("--tenant", metavar="T", help="for this tenant (all)")
    parser.add_argument(
        "--from", dest="valid_from", metavar="DATE", help="the first day on which it counts (today, UTC)"
    )
    parser.add_argument("unit", metavar="UNIT", choices=UNITS, help=f"what it is the price of: {', '.join(UNITS)}")
    parser.add_argument("amount", metavar="AMOUNT", help="decimal digits: 4.50")
    parser.add_argument("currency", metavar="CURRENCY", help="three letters: EUR")


def _set(args: Namespace, app: App) -> int:
    import time

    today = time.strftime("%Y-%m-%d", time.gmtime())
    body = {
        "tenant": args.tenant,
        "plan": args.plan,
        "unit": args.unit,
        "amount": args.amount,
        "currency": args.currency,
        "valid_from": args.valid_from or today,
    }
    write(str(app.client.call("POST", "/v1/prices", body=body)["id"]))
    return 0


def _rm_arguments(parser: Parser) -> None:
    parser.add_argument("prices", metavar="ID", nargs="+", help="the prices, as price ls numbers them")


def _rm(args: Namespace, app: App) -> int:
    return for_each(args.prices, lambda number: app.client.call("DELETE", f"/v1/prices/{quote(number)}"))


SUBCOMMANDS = {
    "ls": Subcommand("List the prices", add_listing, _ls),
    "set": Subcommand("Set what a unit of use costs from a day on", _set_arguments, _set),
    "rm": Subcommand("Take prices back, for all that has not been billed", _rm_arguments, _rm),
}
