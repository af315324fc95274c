"""bulkhead collect: look at servers by ssh for a while; what they used becomes an estate for `bulkhead advise`.

The shells are opened here, not by the daemon: ssh's configuration, keys and agent are the user's.
"""

from __future__ import annotations

import sys

from bulkhead.cli.app import App
from bulkhead.cli.options import Problems
from bulkhead.cli.output import talk
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.cli.writing import written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bulkhead.advise.measured import Measured
    from bulkhead.host.remote import Shell

SPARE_SECONDS = 120.0
"""For the looks themselves, on a server that is busy."""


def arguments(parser: Parser) -> None:
    """Which servers, how long."""
    add = parser.add_argument
    add("--for", dest="duration", metavar="TIME", default="1m", help="how long to look, such as 10m or 24h (1m)")
    add("--every", metavar="TIME", default="10s", help="how often (10s)")
    add("--output", metavar="FILE", help="where to write the estate, as JSON (stdout)")
    add("-o", dest="option", action="append", default=[], metavar="OPTION", help="an option of ssh, such as Port=2222")
    add("targets", metavar="TARGET", nargs="+", help="user@host or ssh://user@host:port; no root is needed")


def main(args: Namespace, app: App) -> int:  # noqa: ARG001 - no daemon is asked
    """Look, and write the estate."""
    looks, every = _times(args)
    from contextlib import ExitStack

    from bulkhead.host import remote

    with ExitStack() as stack:
        # One after the other: ssh may ask for a password.
        shells = [stack.enter_context(remote.ssh(target, args.option)) for target in args.targets]
        talk(f"looking at {len(shells)} servers for {args.duration}")
        found = _look(shells, looks, every)
    pieces = _estate(found)
    if not args.output:
        sys.stdout.writelines(pieces)
        return 0
    from bulkhead.errors import Refused

    try:
        with written(args.output) as file:
            file.writelines(piece.encode() for piece in pieces)
    except OSError as error:
        raise Refused(f"--output {args.output}: {error.strerror}") from None
    return 0


def _times(args: Namespace) -> tuple[int, float]:
    from bulkhead.quantities import parse_seconds

    problems = Problems("see bulkhead collect --help")
    duration, every = problems.of(lambda: parse_seconds(args.duration)), problems.of(lambda: parse_seconds(args.every))
    if duration is not None and every is not None:
        if not 1 <= every <= 3600:
            problems.add(f"--every {args.every} is not in 1s to 1h")
        elif duration < every:
            problems.add(f"--for {args.duration} is shorter than --every {args.every}: use is what counters grow by")
        elif duration / every > 19_999:
            problems.add(f"--for {args.duration} has more than 20000 times --every {args.every}")
    problems.check()
    assert duration is not None and every is not None
    return int(duration / every) + 1, every


def _look(shells: list[Shell], looks: int, every: float) -> list[Measured]:
    """At all of them at the same time. The first that fails ends it once the others have."""
    import time
    from concurrent.futures import ThreadPoolExecutor

    from bulkhead.advise import collecting

    def one(shell: Shell) -> Measured:
        limit, timeout = collecting.limit(looks), looks * every + SPARE_SECONDS
        said = shell.run(collecting.script(looks, every), limit=limit, timeout=timeout)
        return collecting.parse(said, shell.where, time.time())

    with ThreadPoolExecutor(len(shells)) as pool:
        return list(pool.map(one, shells))


def _estate(found: list[Measured]) -> list[str]:
    from bulkhead.advise import building, measured, writing
    from bulkhead.advise.troubles import Troubles

    troubles = Troubles()
    entries, uses = measured.entries(found, troubles)
    troubles.check()
    estate = building.build(entries, uses, [each.name for each in found], troubles)
    troubles.check()
    assert estate is not None
    for note in estate.notes:
        talk(f"note: {note}")
    return list(writing.as_json(estate))
