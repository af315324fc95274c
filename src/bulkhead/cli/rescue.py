"""bulkhead rescue"""

from __future__ import annotations

import os
import sys

from bulkhead.cli import options
from bulkhead.cli.app import App
from bulkhead.cli.output import write_json
from bulkhead.cli.parsing import Namespace, Parser, add_rest
from bulkhead.cli.session import DETACH_KEYS, run_session
from bulkhead.client.rooms import HeldRoom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USUAL = {"memory": 1 << 30, "disk": 1 << 30}
"""The helper machine's plan, in bytes; and two processors, where the host has them."""
SYSTEM = "/mnt"
"""Where the helper machine has what it has opened."""
KERNEL = "kernel/debian:latest"


def arguments(parser: Parser) -> None:
    """How to open it, then the disk, then what to run in it."""
    add = parser.add_argument
    add("-w", "--write", action="store_true", help="let it be written to (it is opened read-only)")
    add("--tools", action="store_true", help="stay beside the system, among the helper's tools (fsck, lvm, ...)")
    add("--root", metavar="DEVICE", help="where its root is, such as /dev/vdc1 (what looks like one)")
    add("--on-host", action="store_true", help="by this host's kernel, not in a helper machine: for a disk of your own")
    add("--instance", action="store_true", help="DISK names an instance: an unmodified system that is stopped")
    add("--network", "--net", metavar="N", help="the helper's network: a network's name or none (default)")
    add("--name", metavar="N", help="a name for the helper, for exec and cp meanwhile")
    add("--dry-run", action="store_true", help="print the request for the helper machine, and do nothing")
    options.add_plan(parser)
    add("target", metavar="DISK", help="a disk's file (raw, qcow2) or block device")
    add_rest(parser, "command", "CMD", "command in the system instead of a shell")


def main(args: Namespace, app: App) -> int:
    """Open the disk, run the shell or the command; its exit code. All is put away then, however this ends."""
    command = args.command or []
    if command and command[0] == "--":
        command = command[1:]
    problems = options.Problems("see bulkhead rescue --help")
    plan = options.plan(args, problems)
    words = [*(["--write"] if args.write else []), *(["--tools"] if args.tools else [])]
    if args.on_host:
        _check_on_host(args, plan, problems)
        from bulkhead.cli import on_host

        return on_host.main(
            args.target, [*words, *(["--root", args.root] if args.root else [])], command, write=args.write
        )
    problems.check()
    if not args.instance:
        app.require_local(args.target)
    request = request_of(
        source_of(args.target, app) if args.instance else os.path.abspath(args.target),  # noqa: PTH100
        plan=plan,
        words=words,
        root=args.root,
        write=args.write,
        command=command,
    )
    given = {"network": args.network, "name": args.name}
    request |= {key: value for key, value in given.items() if value is not None}
    if args.dry_run:
        write_json(request)
        return 0
    request["image"] = prepare(app)
    with HeldRoom(app.client, request) as room:
        return run_session(app.client, room.path("run"), {"stdin": True}, detach_keys=DETACH_KEYS)


def _check_on_host(args: Namespace, plan: dict[str, object], problems: options.Problems) -> None:
    """Refuse what is a helper machine's."""
    flags = {"--instance": args.instance, "--network": args.network, "--name": args.name, "--dry-run": args.dry_run}
    given = [flag for flag, value in flags.items() if value] + (["a plan"] if plan else [])
    if given:
        problems.add(f"{', '.join(given)}: there is no helper machine with --on-host")
    problems.check()


def request_of(
    source: str, *, plan: dict[str, object], words: list[str], root: str | None, write: bool, command: list[str]
) -> dict[str, Any]:
    """The request for the helper machine that opens a disk."""
    where = ["--root", root] if root else []
    return {
        "image": "rescue/debian:bookworm",
        "isolation": "vm",
        "kernel": KERNEL,
        "plan": {**USUAL, "cpus": min(2, os.cpu_count() or 1), **plan},
        "hostname": "rescue",
        "entrypoint": ["/usr/local/sbin/bulkhead-rescue", *words, *where, "--"],
        "command": command,
        "disks": [{"source": source, "read_only": not write}],
        "tty": os.isatty(0) and os.isatty(1),
        "stdin": True,
        "stop_timeout": 30,
    }


def source_of(name: str, app: App) -> str:
    """The file of an instance's disk. What may be done with it is the daemon's to say."""
    from bulkhead.cli.each import instance_path

    described = app.client.call("GET", instance_path(name, "describe"))
    return os.path.join(described["bundle"], "disk.img")  # noqa: PTH118


def prepare(app: App) -> str:
    """Have the helper's image; what it is called."""
    if sys.stderr.isatty():
        from bulkhead.cli.progress import show
    else:
        from bulkhead.cli.steps import show
    with app.client.stream("POST", "/v1/images/rescue") as response:
        return str(show(response.json_lines())["references"][0])
