"""Where in a fleet an instance is to run: options of run and create."""

from __future__ import annotations

from bulkhead.cli.parsing import Namespace, Parser

PLACES = ("constraints", "affinity", "anti_affinity")
LOSS = ("on_host_loss", "priority", "replicas")
ON_HOST_LOSS = ("stay", "restart", "recreate")


def add_where(parser: Parser) -> None:
    """On which host of a fleet."""
    add = parser.add_argument
    add("--host", metavar="HOST", help="the host of the fleet that it is to be on")
    add(
        "--constraint",
        dest="constraints",
        action="append",
        default=[],
        metavar="LABEL",
        help="what its host's labels must be: KEY=VALUE, KEY!=VALUE, KEY, !KEY",
    )
    add(
        "--affinity",
        action="append",
        default=[],
        metavar="[~]NAME|K=V",
        help="on the host of an instance with this name or label; ~: where that can be",
    )
    add(
        "--anti-affinity",
        action="append",
        default=[],
        metavar="[~]NAME|K=V",
        help="on another host than instances with this name or label; ~: where that can be",
    )
    add(
        "--on-host-loss",
        choices=ON_HOST_LOSS,
        help="when its host is lost: wait for it (stay, the usual), start elsewhere from its disk's copy (restart, "
        "the usual with --replicas), or be made anew elsewhere with an empty disk (recreate)",
    )
    add("--replicas", type=int, choices=(0, 1), help="copies of its disk that are kept on other hosts")
    add("--replica-interval", metavar="TIME", help="how often the copy is made anew: what may be lost (1m)")
    add("--priority", metavar="N", type=int, help="higher is started elsewhere before lower (0 to 1000; 0)")


def where(args: Namespace) -> dict[str, str]:
    """The query that says on which host of a fleet something is to be made; nothing where that was not given."""
    return {"host": args.host} if args.host else {}


def wished(args: Namespace, interval: float | None) -> dict[str, object]:
    """What has to hold of the host, and what becomes of it when that is lost, as the API takes it; nothing where
    nothing was said. `interval`: seconds between copies of its disk.
    """
    given: dict[str, object] = {name: list(getattr(args, name, None) or ()) for name in PLACES}
    given |= {name: getattr(args, name, None) for name in LOSS}
    if given["replicas"] and not given["on_host_loss"]:
        given["on_host_loss"] = "restart"
    given["replica_interval"] = interval
    return {name: each for name, each in given.items() if each}
