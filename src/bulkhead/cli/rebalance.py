"""bulkhead rebalance"""

from __future__ import annotations

import sys

from bulkhead.cli.app import App
from bulkhead.cli.options import Problems
from bulkhead.cli.output import printable, table, talk, write, write_json
from bulkhead.cli.parsing import Namespace, Parser, add_format
from bulkhead.quantities import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = ("NAME", "FROM", "TO", "HOW", "GAIN", "DOWN", "SIZE")
POWER = "what hosts draw is not known: bulkhead host label HOST power.idle=WATTS power.peak=WATTS"


def arguments(parser: Parser) -> None:
    """What is to be gained."""
    add = parser.add_argument
    add("--dry-run", action="store_true", help="only say what would go where, with its gain and its cost")
    add("--consolidate", action="store_true", help="free whole hosts, which then can be switched off")
    add("--by", choices=("use", "sold"), default="use", help="by what instances use, or by what is sold to them (use)")
    add("--most-moves", metavar="N", default="50", help="at most so many moves (50)")
    add_format(parser)


def main(args: Namespace, app: App) -> int:
    """Carry it out; 1 where something stays that was to go."""
    problems = Problems("see bulkhead rebalance --help")
    if not args.most_moves.isdecimal() or not 1 <= int(args.most_moves) <= 1000:
        problems.add(f"--most-moves {args.most_moves!r} is no number from 1 to 1000")
    problems.check()
    if sys.stderr.isatty():
        from bulkhead.cli.progress import show
    else:
        from bulkhead.cli.steps import show
    body = {
        "consolidate": args.consolidate,
        "by": args.by,
        "most_moves": int(args.most_moves),
        "dry_run": args.dry_run,
    }
    with app.client.stream("POST", "/v1/fleet/rebalance", body=body) as response:
        found: dict[str, Any] = show(response.json_lines())
    if args.format == "json":
        write_json(found)
    else:
        _tell(found, consolidate=args.consolidate)
    gone = {each["id"] for each in found["moves"] if each["done"]}  # perhaps after another host had refused it
    left = [each for each in found["moves"] if each["problem"] and each["id"] not in gone]
    return 1 if left or any(each["problem"] for each in found["freed"]) else 0


def _tell(found: dict[str, Any], *, consolidate: bool) -> None:
    if found["moves"]:
        write(table(HEADER, [_row(each) for each in found["moves"]]).rstrip("\n"))
    gone = {each["id"] for each in found["moves"] if each["done"]}
    for each in found["moves"]:
        if each["warning"]:
            talk(printable(f"warning: {each['name']}: {each['warning']}"))
        if each["problem"]:
            what = f"does not go to {each['target']}" if each["id"] in gone else "stays"
            talk(printable(f"{each['name']} {what}: {each['problem']}"))
            if each["hint"]:
                talk(printable(f"hint: {each['hint']}"))
    for each in found["freed"]:
        talk(printable(_freed(each, found["done"])))
    if found["moves"] and not consolidate:
        verb = "was" if found["done"] else "is"
        talk(
            f"the fullest host {verb} {found['before']:.1%} above the mean, and would be {found['after']:.1%} with all"
            " of these"
        )
    if consolidate and found["freed"]:
        talk(POWER if found["watts"] is None else f"power saved with them switched off: {found['watts']:.0f} W")
    for name in found["unheard"]:
        talk(f"warning: {name} does not say what its instances use, and was left out")
    if found["reason"]:
        talk(printable(found["reason"]))


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    down = each["predicted"] if each["downtime"] is None else each["downtime"]
    return (
        each["name"],
        each["source"],
        each["target"],
        each["how"],
        "-" if each["gain"] is None else f"{each['gain']:.1%}",
        f"{down:.2f} s" if down else "-",
        format_size(each["size"]),
    )


def _freed(each: dict[str, Any], done: bool) -> str:
    saved = "" if each["watts"] is None else f", which saves {each['watts']:.0f} W"
    if not done:
        return f"{each['host']} would be free{saved}"
    if each["problem"]:
        return f"{each['host']} is not free: {each['problem']}"
    return f"{each['host']} is free and takes nothing new until bulkhead host undrain {each['host']}{saved}"
