"""bulkhead cluster"""

from __future__ import annotations

import sys

from bulkhead.cli.app import App
from bulkhead.cli.hosts import HEADER, host_row
from bulkhead.cli.options import Problems, quantity
from bulkhead.cli.output import age, talk, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_format, add_listing
from bulkhead.quantities import parse_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PORT = 8444
"""Where hosts answer one another unless --address says another."""
FILES = ("authority", "certificate", "key")
BASELINE = "the processor of virtual machines made from now on, one of QEMU's models (each host's own)"
POLICIES = ("pack", "spread", "balance")


def _own_arguments(parser: Parser) -> None:
    parser.add_argument("--address", metavar="IP[:PORT]", required=True, help="of this host, for the others (8444)")
    parser.add_argument("--name", metavar="HOST", help="of this host in the fleet (the machine's)")


def _init_arguments(parser: Parser) -> None:
    _own_arguments(parser)
    add = parser.add_argument
    add("--etcd", metavar="URL", action="append", required=True, help="a member of etcd, such as https://10.0.0.1:2379")
    add("--etcd-cacert", dest="authority", metavar="FILE", help="who has signed etcd's certificates")
    add("--etcd-cert", dest="certificate", metavar="FILE", help="the hosts' certificate for etcd")
    add("--etcd-key", dest="key", metavar="FILE", help="its key")
    add("--prefix", metavar="TEXT", help="under which the fleet's keys are in etcd (bulkhead)")
    add("--policy", choices=POLICIES, default="balance", help="how hosts are chosen for what is made (balance)")
    add("--cpu-baseline", metavar="MODEL", default="", help=BASELINE)
    add("--lease", metavar="TIME", default="10s", help="after which a host that is not heard of may be lost (10s)")
    add("fleet", metavar="FLEET", nargs="?", default="bulkhead", help="what to call the fleet (bulkhead)")


def _init(args: Namespace, app: App) -> int:
    problems = Problems("see bulkhead cluster init --help")
    store: dict[str, object] = {"endpoints": [part for given in args.etcd for part in given.split(",")]}
    for name in FILES:
        if path := getattr(args, name):
            store[name] = _read(path, problems)
    if bool(args.certificate) is not bool(args.key):
        problems.add("--etcd-cert and --etcd-key belong together")
    if args.prefix:
        store["prefix"] = args.prefix
    lease = quantity("--lease", args.lease, parse_seconds, problems)
    problems.check()
    body = {"fleet": args.fleet, "name": args.name, "address": _address(args.address), "store": store}
    body |= {"policy": args.policy, "lease": lease, "cpu_baseline": args.cpu_baseline}
    made = app.client.call("POST", "/v1/fleet", body=body)
    write(made["fleet"])
    talk("the next host joins with a token: bulkhead cluster invite")
    return 0


def _set_arguments(parser: Parser) -> None:
    parser.add_argument("--policy", choices=POLICIES, help="how hosts are chosen for what is made")
    parser.add_argument("--spare", choices=("yes", "no"), help="keep room for the loss of any one host")
    parser.add_argument("--cpu-baseline", metavar="MODEL", help=f"{BASELINE}; none: no model")


def _set(args: Namespace, app: App) -> int:
    problems = Problems("see bulkhead cluster set --help")
    body: dict[str, object] = {"policy": args.policy} if args.policy else {}
    if args.spare:
        body["spare"] = args.spare == "yes"
    if args.cpu_baseline is not None:
        body["cpu_baseline"] = "" if args.cpu_baseline == "none" else args.cpu_baseline
    if not body:
        problems.add("nothing is to be changed: --policy, --spare or --cpu-baseline?")
    problems.check()
    write(app.client.call("PATCH", "/v1/fleet", body=body)["fleet"])
    return 0


def _invite_arguments(parser: Parser) -> None:
    parser.add_argument("--expires", metavar="TIME", default="1h", help="for how long it is good, such as 30m (1h)")


def _invite(args: Namespace, app: App) -> int:
    problems = Problems("see bulkhead cluster invite --help")
    seconds = quantity("--expires", args.expires, parse_seconds, problems)
    problems.check()
    write(app.client.call("POST", "/v1/fleet/invitations", body={"seconds": seconds})["token"])
    return 0


def _join_arguments(parser: Parser) -> None:
    _own_arguments(parser)
    parser.add_argument("token", metavar="TOKEN", help="of bulkhead cluster invite; - reads it from standard input")


def _join(args: Namespace, app: App) -> int:
    token = sys.stdin.readline().strip() if args.token == "-" else args.token  # noqa: S105 - where it is read from
    body = {"token": token, "name": args.name, "address": _address(args.address)}
    write(app.client.call("POST", "/v1/fleet/membership", body=body)["fleet"])
    return 0


def _leave(args: Namespace, app: App) -> int:  # noqa: ARG001 - as every command has it
    app.client.call("DELETE", "/v1/fleet/membership")
    return 0


def _status(args: Namespace, app: App) -> int:
    found = app.client.call("GET", "/v1/fleet")
    if args.format == "json":
        write_json(found)
        return 0
    alive = sum(host["alive"] for host in found["hosts"])
    hosts = f"{alive} of {len(found['hosts'])} hosts live"
    write(f"fleet {found['fleet']}: {hosts}, {found['instances']} instances, {_choosing(found)}\n")
    write_table(HEADER, [host_row(host) for host in found["hosts"]])
    if rows := [*map(_waits, found["waiting"]), *map(_was_taken, found["taken"])]:
        write("")
        write_table(("INSTANCE", "HOST", "STATE", "WHY"), rows)
    if lost := sorted({each["host"] for each in found["waiting"] if each["state"] == "lost"}):
        talk(f"hint: bulkhead host rm --force {lost[0]} gives up that host, and what waits for it")
    _warn(found)
    return 0 if not found["error"] else 1


def _choosing(found: dict[str, Any]) -> str:
    told = f"policy {found['policy']}" + (", room for the loss of one host" if found["spare"] else "")
    model = found["cpu_baseline"]
    if not model:
        return told
    without = [host["name"] for host in found["hosts"] if model not in host["machine"]["cpu_models"]]
    return f"{told}, VMs with {model}" + (f" (not on {', '.join(without)})" if without else "")


def _waits(each: dict[str, Any]) -> tuple[str, ...]:
    return each["name"], each["host"], each["state"], each["reason"]


def _was_taken(each: dict[str, Any]) -> tuple[str, ...]:
    after = f", {each['unheard']:.0f} s after that was last heard of" if each["unheard"] else ""
    return each["name"], each["host"], "taken over", f"it was on {each['lost']}, which is lost{after}"


def _replicas(args: Namespace, app: App) -> int:
    found = app.client.call("GET", "/v1/fleet/replicas")
    if args.quiet:
        for each in found:
            write(each["name"])
    elif args.format == "json":
        write_json(found)
    else:
        rows = [
            (
                each["name"],
                each["source"],
                each["target"],
                age(each["at"]) if each["at"] else "not whole yet",
                f"{each['interval']:g}s",
                each["problem"] or "-",
            )
            for each in found
        ]
        write_table(("INSTANCE", "HOST", "REPLICA", "AGE", "EVERY", "PROBLEM"), rows)
    return 0


def _warn(found: dict[str, Any]) -> None:
    if found["error"]:
        import time

        talk(f"warning: this is {time.time() - found['seen']:.0f} s old: {found['error']}")


def _address(text: str) -> str:
    """With the usual port where none is given."""
    bare = text.count(":") != 1 and not text.startswith("[")
    if bare:
        return f"[{text}]:{PORT}" if ":" in text else f"{text}:{PORT}"
    return f"{text}:{PORT}" if text.endswith("]") else text


def _read(path: str, problems: Problems) -> str:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123
            return file.read(1 << 16)
    except (OSError, ValueError) as error:
        problems.add(f"{path} cannot be read: {error}")
        return ""


def _listing(parser: Parser) -> None:
    add_listing(parser, "names")


def _nothing(parser: Parser) -> None:
    """No arguments."""


SUBCOMMANDS = {
    "init": Subcommand("Make a fleet of hosts, with this one as its first", _init_arguments, _init),
    "set": Subcommand("Change how the fleet chooses hosts", _set_arguments, _set),
    "invite": Subcommand("Make a token with which one host can join", _invite_arguments, _invite),
    "join": Subcommand("Join the fleet of a token", _join_arguments, _join),
    "leave": Subcommand("Be in no fleet any more", _nothing, _leave),
    "replicas": Subcommand("List the copies of disks on other hosts, and how old they are", _listing, _replicas),
    "status": Subcommand("Show the fleet as it is seen from here", add_format, _status),
}
