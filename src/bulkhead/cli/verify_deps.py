"""bulkhead verify-deps"""

from __future__ import annotations

import os
import sys

from bulkhead.cli import options
from bulkhead.cli.app import App
from bulkhead.cli.output import printable, talk, write, write_json
from bulkhead.cli.parsing import Namespace, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bulkhead.events import Step
    from bulkhead.packaging.judge import Verdict
    from bulkhead.packaging.missing import Missing
    from bulkhead.packaging.verify import Report

LEVELS = ("chroot", "container")
IMAGE = "debian:bookworm"
USUAL = {"memory": 1 << 30, "disk": 4 << 30, "cpus": 1.0, "pids": 4096}
FOUND = 1


def arguments(parser: Parser) -> None:
    """What, and in what rooms."""
    add = parser.add_argument
    add("--image", metavar="IMAGE", default=IMAGE, help=f"the Debian that rooms begin with ({IMAGE})")
    add("--isolation", metavar="LEVEL", default="container", help="the rooms' wall: container or chroot (container)")
    add("--plan", metavar="NAME", help="a named plan for the rooms")
    options.add_plan(parser)
    add("--no-run", action="store_true", help="build only: do not install what was built and run its tests")
    add("--format", choices=("text", "json"), default="text", help="how to print what was found (text)")
    add("-v", "--verbose", action="store_true", help="show what the build says")
    add("source", metavar="SOURCE", help="a source package's name, its .dsc, or a directory with debian/ in it")


def main(args: Namespace, app: App) -> int:
    """Print what was found; 0 where that is nothing, 1 where it is something."""
    problems = options.Problems("see bulkhead verify-deps --help")
    plan = options.plan(args, problems)
    if args.isolation not in LEVELS:
        problems.add(
            f"--isolation {args.isolation!r}: which files are opened can be seen in a {' or a '.join(LEVELS)} alone"
        )
    if "/" in args.source and not os.path.exists(args.source):  # noqa: PTH110
        problems.add(f"{args.source} does not exist")
    problems.check()
    asked: dict[str, object] = {"name": args.plan, **plan} if args.plan is not None else {**USUAL, **plan}
    request: dict[str, object] = {"image": args.image, "isolation": args.isolation, "plan": asked}
    if args.isolation == "container":
        request["network"] = "none"
    from bulkhead.packaging.verify import Order, verify

    order = Order(source=args.source, room=request, cache=_cache(), run=not args.no_run)
    report = verify(app.client, order, progress=_tell, output=_show if args.verbose else _hide)
    if args.format == "json":
        write_json(_as_json(report))
    else:
        _print(report)
    return 0 if report.clean else FOUND


def _cache() -> Path:
    from pathlib import Path

    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(home) / "bulkhead" / "verify-deps"


def _tell(step: Step) -> None:
    amount = f" ({step.total}{f' {step.unit}' if step.unit else ''})" if step.total else ""
    talk(printable(step.label + amount))


def _hide(data: bytes) -> None:
    """What the build says is shown where it is asked for."""


def _show(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.flush()


def _print(report: Report) -> None:
    build = report.build
    name = f"{report.source} {report.version}".strip()
    write(printable(f"{name}: {'builds' if build.ok else 'does not build'}"))
    _print_missing("to build", build.missing)
    _print_verdict("to build", build.verdict)
    if not build.ok:
        talk(printable_lines(build.log))
    for name, code in report.run.failed:
        write(printable(f"failed: the test {name}, with {code}"))
    _print_missing("to run", report.run.missing)
    for ran in report.run.packages:
        if ran.exercised:
            _print_verdict(f"to run {ran.package}", ran.verdict)
        else:
            write(printable(f"not judged: {ran.package}, of which no test and no program ran"))
    if report.clean:
        write("nothing undeclared, nothing unused")


def _print_missing(what: str, found: Sequence[Missing]) -> None:
    for item in found:
        where = f", which is in {', '.join(item.packages)}" if item.packages else ""
        write(printable(f"missing {what}: the {item.kind} {item.name}{where}"))


def _print_verdict(what: str, verdict: Verdict) -> None:
    for item in verdict.undeclared:
        luck = f"; there by luck, through {', '.join(item.through)}" if item.through else ""
        used = f"{', '.join(item.files)}, used by {', '.join(item.by)}"
        write(printable(f"undeclared {what}: {item.package} ({used}{luck})"))
    for name in verdict.unused:
        write(printable(f"unused {what}: {name}"))


def printable_lines(text: str) -> str:
    """Lines without what a terminal would act upon."""
    return "\n".join(printable(line) for line in text.splitlines())


def _as_json(report: Report) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(report), "clean": report.clean}
