"""bulkhead advise: from an estate to a report. Nothing is changed; but for --fleet no daemon is asked."""

from __future__ import annotations

import sys
from collections import namedtuple

from bulkhead.cli.app import App
from bulkhead.cli.options import Problems
from bulkhead.cli.output import printable, talk, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_format
from bulkhead.cli.values import parse_number
from bulkhead.cli.writing import written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulkhead.advise.advising import Advice
    from bulkhead.advise.asking import Added, Asked
    from bulkhead.advise.estate import Estate
    from bulkhead.advise.prices import Prices

Chance = namedtuple("Chance", ("seconds", "seed"))
FORMATS = {"html": "html", "htm": "html", "md": "markdown", "json": "json"}
"""What the end of a file's name says."""


def rearranged(words: list[str]) -> list[str]:
    """`bulkhead advise FILE` is `bulkhead advise report FILE`."""
    if not words or words[0] in SUBCOMMANDS or words[0] in ("-h", "--help"):
        return words
    return ["report", *words]


def _report_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--use", metavar="CSV", help="use over time: time,workload,cpu,memory,disk,network")
    add("-o", dest="output", action="append", default=[], metavar="FILE", help="write the report: .html, .md or .json")
    add("--format", choices=("text", "markdown", "json"), default="text", help="how to print it (text)")
    _add_prices(parser)
    add("--without", action="append", default=[], metavar="SERVER", help="what if this server were gone")
    add("--add", action="append", default=[], metavar="N:PLAN[:IMAGE]", help="what if there were N more, each of PLAN")
    add("--fit", metavar="PLAN", help="how many more of MEMORY,CPUSxGHZ,DISK[,BANDWIDTH] would fit afterwards")
    add("--seconds", metavar="S", default="20", help="how long the packing may take (20)")
    add("--seed", metavar="N", default="0", help="what chance begins with (0)")
    add("--fleet", action="store_true", help="in place of files: the daemon's fleet, by its own metering")
    add("--last", metavar="TIME", default="720h", help="with --fleet: how long back (720h)")
    add("files", metavar="FILE", nargs="*", help="CSV, JSON, Ganeti's text, or node_exporter's of several moments")


def _add_prices(parser: Parser) -> None:
    parser.add_argument("--price", action="append", default=[], metavar="NAME=VALUE", help="a price of your own")
    parser.add_argument("--prices", metavar="TOML", help="a file of them: NAME = VALUE a line")


def _report(args: Namespace, app: App) -> int:
    problems = Problems("see bulkhead advise report --help")
    from bulkhead.advise import asking

    kinds = {path: FORMATS.get(path.rpartition(".")[2].lower()) for path in args.output}
    for path, kind in kinds.items():
        if kind is None:
            problems.add(f"-o {path}: the name ends in none of .html, .md, .json")
    added = problems.each(lambda text: asking.parse_added(text, "--add"), args.add)
    wanted = problems.of(lambda: asking.parse_plan(args.fit, "--fit")) if args.fit else None
    seconds = problems.of(lambda: parse_number(args.seconds, "--seconds", low=0.1, whole=False))
    seed = problems.of(lambda: parse_number(args.seed, "--seed", low=0))
    prices = _prices(args, problems)
    last = problems.of(lambda: _hours(args.last))
    if args.fleet == bool(args.files):
        problems.add("name the files of an estate" if not args.fleet else "--fleet takes the place of files")
    if args.fleet and args.use:
        problems.add("--use is for files: a fleet's use is known from its metering")
    problems.check()
    assert seconds is not None and seed is not None and last is not None
    estate = _fleet(app, last) if args.fleet else _files(args)
    advice = _advise(args, estate, prices, added, Chance(float(seconds), int(seed)))
    for path, kind in kinds.items():
        _write(path, [_drawn(advice, str(kind))])
    _print(args, advice, wanted)
    return 0


def _prices(args: Namespace, problems: Problems) -> Prices:
    from bulkhead.advise import prices

    given = []
    if args.prices:
        text = problems.of(lambda: _text(args.prices))
        given += prices.parse_file(text, args.prices) if text is not None else []
    given += problems.each(prices.parse, args.price)
    return prices.Prices().changed(given)


def _text(path: str) -> str:
    from bulkhead.cli.values import read_text

    return read_text(path)


def _hours(text: str) -> float:
    """Seconds of whole hours."""
    from bulkhead.quantities import parse_seconds

    seconds = parse_seconds(text)
    if seconds < 3600:
        raise ValueError(f"--last {text} is less than an hour")
    return seconds


def _files(args: Namespace) -> Estate:
    from bulkhead.advise import reading

    return reading.read(args.files, args.use)


def _fleet(app: App, last: float) -> Estate:
    import time

    from bulkhead.advise import fleets

    begin = (int(time.time() - last) // 3600 + 1) * 3600
    use = app.client.call("GET", "/v1/usage", query={"from": repr(float(begin)), "by": ["instance", "hour"]})
    hosts, instances = app.client.call("GET", "/v1/hosts"), app.client.call("GET", "/v1/instances")
    return fleets.read(fleets.Fleet(hosts, instances, use["rows"]))


def _advise(args: Namespace, estate: Estate, prices: Prices, added: list[Added], chance: Chance) -> Advice:
    from bulkhead.advise import advising, asking
    from bulkhead.advise.arranging import Wish

    new = [load for at, each in enumerate(added, 1) for load in asking.loads(estate, each, at)]
    if new:
        estate = advising.more(estate, new)
    wish = Wish(frozenset(args.without))
    return advising.advise(estate, prices, wish, advising.Effort(*chance))


def _drawn(advice: Advice, kind: str) -> str:
    import json

    from bulkhead.advise import report

    if kind == "html":
        return report.html(advice)
    if kind == "markdown":
        return report.markdown(advice)
    return json.dumps(report.document(advice), indent=1) + "\n"


def _print(args: Namespace, advice: Advice, wanted: Asked | None) -> None:
    from bulkhead.advise import advising, report

    fits = advising.fit(advice, wanted.amounts) if wanted is not None else None
    if args.format == "markdown":
        sys.stdout.write(report.markdown(advice))
    elif args.format == "json":
        document = report.document(advice)
        write_json({**document, "fit": fits} if fits is not None else document)
    else:
        for line in report.lines(advice):
            write(printable(line))
        if fits is not None:
            write(f"  {sum(fits.values())} more of {args.fit} would fit")


def _write(path: str, pieces: Iterable[str]) -> None:
    from bulkhead.errors import Refused

    try:
        with written(path) as file:
            for piece in pieces:
                file.write(piece.encode())
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None


# --- the others


def _generate_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--servers", metavar="N", default="40", help="how many, each with one application (40)")
    add("--days", metavar="D", default="30", help="how long they were measured (30)")
    add("--step", metavar="S", default="300", help="seconds between two values (300)")
    add("--seed", metavar="N", default="0", help="what chance begins with (0)")
    add("--use", metavar="CSV", help="with a CSV estate: write the use over time there")
    add("-o", dest="output", metavar="FILE", required=True, help="where to: .json with use over time, .csv with peaks")


def _generate(args: Namespace, app: App) -> int:  # noqa: ARG001
    problems = Problems("see bulkhead advise generate --help")
    servers = problems.of(lambda: parse_number(args.servers, "--servers", low=1))
    days = problems.of(lambda: parse_number(args.days, "--days", low=0.01, whole=False))
    step = problems.of(lambda: parse_number(args.step, "--step", low=1, whole=False))
    seed = problems.of(lambda: parse_number(args.seed, "--seed", low=0))
    kind = args.output.rpartition(".")[2].lower()
    if kind not in ("json", "csv"):
        problems.add(f"-o {args.output}: the name ends in neither .json nor .csv")
    if args.use and kind == "json":
        problems.add("--use is for a CSV estate: a JSON one has the use over time in it")
    if None not in (servers, days, step) and servers * days * 86400 / step > 50_000_000:  # type: ignore[operator]
        problems.add(f"{args.servers} servers over {args.days} days in steps of {args.step} s are too many values")
    problems.check()
    from bulkhead.advise import generating, writing

    assert servers is not None and days is not None and step is not None and seed is not None
    estate = generating.generate(int(servers), days=float(days), step=float(step), seed=int(seed))
    _write(args.output, writing.as_json(estate) if kind == "json" else [writing.as_csv(estate, use=not args.use)])
    if args.use:
        _write(args.use, writing.as_use(estate))
    talk(_summary(estate))
    return 0


def _summary(estate: Estate) -> str:
    most = {server.name: server.capacity[0] for server in estate.servers}
    parts = [load.cpu_mean / most[load.server] for load in estate.loads if load.server]
    mean = sum(parts) / max(1, len(parts))
    count = f"{len(estate.servers)} servers, {len(estate.loads)} workloads"
    return f"{count}, {estate.steps} values each, mean cpu use {mean:.1%}"


def _prices_arguments(parser: Parser) -> None:
    _add_prices(parser)
    add_format(parser)


def _list_prices(args: Namespace, app: App) -> int:  # noqa: ARG001
    problems = Problems("see bulkhead advise prices --help")
    prices = _prices(args, problems)
    problems.check()
    from dataclasses import asdict

    if args.format == "json":
        write_json([asdict(price) for price in prices.values()])
        return 0
    rows = [(each.name, f"{each.value:g}", each.unit or "-", each.what, each.source) for each in prices.values()]
    write_table(("NAME", "VALUE", "UNIT", "WHAT", "SOURCE"), rows)
    return 0


def _no_arguments(parser: Parser) -> None:
    """It has none."""


def _schema(args: Namespace, app: App) -> int:  # noqa: ARG001
    from bulkhead.advise.entries import schema

    write_json(schema())
    return 0


def _apply_arguments(parser: Parser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only say what is done already, and what is to do")
    parser.add_argument("report", metavar="REPORT", help="what advise --fleet -o REPORT.json has written")


def _apply(args: Namespace, app: App) -> int:
    from bulkhead.cli import applying

    return applying.main(args, app)


SUBCOMMANDS = {
    "report": Subcommand(
        "Say which wall and which host each workload should have (the default)", _report_arguments, _report
    ),
    "generate": Subcommand("Make up an estate, by a seed", _generate_arguments, _generate),
    "apply": Subcommand("Carry out a report's steps in its fleet, or go on with them", _apply_arguments, _apply),
    "prices": Subcommand(
        "List the prices that are counted with, and where they come from", _prices_arguments, _list_prices
    ),
    "schema": Subcommand("Print the JSON schema of an estate", _no_arguments, _schema),
}
