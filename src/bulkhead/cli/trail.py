"""bulkhead trail"""

from __future__ import annotations

import time

from bulkhead.cli.app import App
from bulkhead.cli.options import Problems
from bulkhead.cli.output import write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, add_format
from bulkhead.quantities import parse_seconds


def arguments(parser: Parser) -> None:
    """Of whom, and since when."""
    add_format(parser)
    parser.add_argument("--user", metavar="USER", help="what this user did")
    parser.add_argument("--since", metavar="TIME", help="not older than this, such as 30m or 12h")
    parser.add_argument("-n", "--last", metavar="N", default="100", help="the last so many (100, at most 1000)")


def main(args: Namespace, app: App) -> int:
    """Print who did what, the oldest first."""
    problems = Problems("see bulkhead trail --help")
    since = problems.of(lambda: parse_seconds(args.since)) if args.since else None
    if not args.last.isdigit() or not 1 <= int(args.last) <= 1000:
        problems.add(f"--last {args.last!r} is not a number from 1 to 1000")
    problems.check()
    query = {"user": args.user, "most": args.last, "since": time.time() - float(since) if since else None}
    traces = app.client.call("GET", "/v1/trail", query=query)
    if args.format == "json":
        write_json(traces)
        return 0
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(trace["when"])),
            f"{trace['user']}@{trace['tenant']}" if trace["tenant"] else trace["user"],
            trace["action"],
            ", ".join(trace["targets"]) or "-",
            trace["result"],
            trace["source"] or "-",
        )
        for trace in traces
    ]
    write_table(("WHEN", "WHO", "WHAT", "ON", "RESULT", "FROM"), rows)
    return 0
