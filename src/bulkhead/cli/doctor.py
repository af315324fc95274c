"""bulkhead doctor"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.output import write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, add_format


def arguments(parser: Parser) -> None:
    """How to print it."""
    add_format(parser)


def main(args: Namespace, app: App) -> int:
    """Print every ability of this host."""
    abilities = app.client.call("GET", "/v1/doctor")
    if args.format == "json":
        write_json(abilities)
        return 0
    rows = []
    for ability in abilities:
        why = " - ".join(text for text in (ability["reason"], ability["hint"]) if text)
        rows.append((ability["name"], "works" if ability["works"] else "does not", why))
    write_table(("ABILITY", "HERE", "REASON AND HINT"), rows)
    return 0
