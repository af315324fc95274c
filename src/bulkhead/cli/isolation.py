"""bulkhead isolation"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.output import write_json, write_table
from bulkhead.cli.parsing import Namespace, Subcommand, add_format


def _ls(args: Namespace, app: App) -> int:
    levels = app.client.call("GET", "/v1/isolation")["levels"]
    if args.format == "json":
        write_json(levels)
        return 0
    rows = []
    for item in levels:
        why = " - ".join(text for text in (item["reason"], item["hint"]) if text)
        rows.append((item["level"], "works" if item["works"] else "does not", why))
    write_table(("LEVEL", "HERE", "REASON AND HINT"), rows)
    return 0


def _explain(args: Namespace, app: App) -> int:
    rules = app.client.call("GET", "/v1/isolation")["rules"]
    if args.format == "json":
        write_json(rules)
        return 0
    rows = [(rule["number"], rule["when"], rule["level"], rule["because"]) for rule in rules]
    write_table(("RULE", "WHEN", "LEVEL", "BECAUSE"), rows)
    return 0


SUBCOMMANDS = {
    "ls": Subcommand("List the levels, and whether each works on this host", add_format, _ls),
    "explain": Subcommand("Print the rules of --isolation auto: the first that fits decides", add_format, _explain),
}
