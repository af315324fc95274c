"""autopkgtest-virt-bulkhead: a clean room behind any wall as a testbed of autopkgtest's, and of sbuild's by that.

The protocol is autopkgtest's (README.virtualisation-server in its documentation). What is common to all servers is its
own module VirtSubproc; here are the hooks that it calls. The testbed is a room that this process holds: however it
ends, the room is gone.
"""

from __future__ import annotations

import os
import sys

from bulkhead.cli import options
from bulkhead.cli.app import App
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.cli.session import run_session
from bulkhead.client import quote
from bulkhead.client.rooms import HeldRoom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bulkhead.client import Client

PROGRAM = "autopkgtest-virt-bulkhead"
LIBRARY = "/usr/share/autopkgtest/lib"
EXEC = "--exec"
"""With it this program runs a command in a room: it is what `print-execute-command` answers."""
FAILED = 255
"""What a command ends with that could not be run at all, as the protocol wants it."""
IDLE = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done")
"""A first process that waits, and reaps what is left to it."""
USERS = (1000, 59999)
"""Uids of people (Debian policy 9.2.2)."""
REBOOT_SECONDS = 90.0


def run(words: list[str]) -> int:
    """The program; its exit code. Raises the error tree's errors."""
    config: str | None = os.environ.get("BULKHEAD_CONFIG") or None
    if len(words) > 1 and words[0] == "--config":
        config, words = words[1], words[2:]
    with App(config) as app:
        if words and words[0] == EXEC:
            return _exec(app, words[1], words[2:])
        return serve(app, words)


def _exec(app: App, room: str, command: list[str]) -> int:
    from bulkhead.errors import AgentError, BulkheadError

    request: dict[str, object] = {"command": command, "stdin": True}
    try:
        return run_session(app.client, f"/v1/instances/{quote(room)}/exec", request)
    except BulkheadError as error:
        sys.stderr.write(f"{PROGRAM}: {error.what}\n")
        return error.exit_code if isinstance(error, AgentError) and error.exit_code in (126, 127) else FAILED


def arguments(parser: Parser) -> None:
    """Those of run, of which some say nothing here."""
    parser.add_argument("-d", "--debug", action="store_true", help="say what is done")
    options.add_request(parser)


def request_of(args: Namespace) -> dict[str, object]:
    """What to open a room with. Raises Refused with every problem."""
    problems = options.Problems(f"see {PROGRAM} --help")
    unfit = {
        "--rm": args.rm,
        "--restart": args.restart,
        "--tty": args.tty,
        "--interactive": args.interactive,
        "--entrypoint": args.entrypoint is not None,
        "a command": bool(args.command),
    }
    for flag, given in unfit.items():
        if given:
            problems.add(f"{flag} says nothing of a testbed")
    if args.isolation == "unikernel":
        problems.add("--isolation unikernel: nothing can be run beside a unikernel's one program")
    if args.user not in (None, "root", "0"):
        problems.add(f"--user {args.user}: commands of a testbed run as root; autopkgtest has a --user of its own")
    problems.check()
    request = options.request(args)
    return request if args.init == "system" else {**request, "entrypoint": [], "command": list(IDLE)}


def capabilities(isolation: str, *, system: bool) -> list[str]:
    """What the protocol calls the abilities of a level.

    `revert-full-system` includes the network's configuration: a chroot has the host's. `isolation-*` promises that
    services can be started: that takes an init.
    """
    found = ["revert", "root-on-testbed"]
    if isolation != "chroot":
        found.append("revert-full-system")
    if system:
        found += ["isolation-machine" if isolation == "vm" else "isolation-container"]
    if system or isolation == "vm":
        found.append("reboot")
    return found


class Testbed:
    """The hooks that VirtSubproc calls."""

    def __init__(self, app: App, request: dict[str, object], program: str, virt: Any) -> None:
        self._app = app
        self._request = request
        self._program = program
        self._virt = virt
        self._room: HeldRoom | None = None
        self._system = request.get("init") == "system"
        self._user = ""

    def hook_open(self) -> None:
        """A new room, which runs when this returns."""
        room = HeldRoom(self._client(), self._request)
        room.__enter__()
        self._room = room
        config = ["--config", self._app.config] if self._app.config else []
        self._virt.auxverb = [self._program, *config, EXEC, room.id]
        self._start()
        self._user = self._find_user()

    def hook_downtmp(self, path: str | None) -> str:
        """A directory in it for whatever is to be passed; nothing of the host's is shared with a testbed."""
        made: str = self._virt.downtmp_mktemp(path)
        return made

    def hook_revert(self) -> None:
        """Another room in the place of the one that is there."""
        self.hook_cleanup()
        self.hook_open()

    def hook_cleanup(self) -> None:
        """Throw the room away."""
        if self._room:
            room, self._room = self._room, None
            self._client()
            room.__exit__(None, None, None)

    def hook_capabilities(self) -> list[str]:
        """What it can."""
        level = str(
            self._room.record["spec"]["isolation"] if self._room else self._request.get("isolation", "container")
        )
        found = capabilities(level, system=self._system)
        return [*found, f"suggested-normal-user={self._user}"] if self._user else found

    def hook_wait_reboot(self) -> None:
        """A system ends by itself when it was told to reboot; anything else is ended here. Then it starts again."""
        room = self._held()
        if self._system:
            ended = self._client().call("GET", room.path("wait"), query={"timeout": REBOOT_SECONDS})
            if ended is None:
                self._virt.bomb(f"the testbed did not end within {REBOOT_SECONDS:g} s of being told to reboot")
        else:
            self._client().call("POST", room.path("stop"), body={})
        self._start()

    def hook_debug_fail(self) -> str:
        """What to look at when a command could not be run."""
        record = self._client().call("GET", self._held().path())
        return f"the room is {record['state']}; how it ended: {record['exit']}"

    def _client(self) -> Client:
        """The client without its kept connection: by default SIGPIPE, which VirtSubproc restores, kills who writes into
        one that the daemon has closed meanwhile."""
        self._app.client.close()
        return self._app.client

    def _held(self) -> HeldRoom:
        if self._room is None:
            raise RuntimeError("the testbed is not open")
        return self._room

    def _start(self) -> None:
        self._client().call("POST", self._held().path("start"))
        if self._system:
            self._virt.wait_booted(self._virt.auxverb)

    def _find_user(self) -> str:
        """The first account of a person's; "" where there is none."""
        script = "cat /etc/passwd 2>/dev/null || true"
        told: str = self._virt.check_exec(["sh", "-c", script], downp=True, outp=True, timeout=60)
        accounts = [fields for fields in (line.split(":") for line in told.splitlines()) if len(fields) == 7]
        people = [(int(fields[2]), fields[0]) for fields in accounts if fields[2].isascii() and fields[2].isdigit()]
        names = [name for uid, name in sorted(people) if USERS[0] <= uid <= USERS[1]]
        return names[0] if names and names[0].isascii() and names[0].isprintable() and " " not in names[0] else ""


def serve(app: App, words: list[str]) -> int:
    """Speak the protocol on stdin and stdout until told to quit."""
    parser = Parser(PROGRAM, description="A Bulkhead room as a testbed of autopkgtest")
    arguments(parser)
    args = parser.parse_args(words)
    request = request_of(args)
    virt, log = _library()
    if args.debug:
        log.verbosity = 2
    virt.progname = PROGRAM
    virt.caller = Testbed(app, request, os.path.abspath(sys.argv[0]), virt)  # noqa: PTH100
    app.client.connect()  # where no daemon can be had, that is told before the protocol begins
    virt.main()
    return 0


def _library() -> tuple[Any, Any]:
    """autopkgtest's modules VirtSubproc and adtlog."""
    from importlib import import_module

    sys.path.append(LIBRARY)
    try:
        return import_module("VirtSubproc"), import_module("adtlog")
    except ImportError as error:
        from bulkhead.errors import Unavailable

        raise Unavailable(f"autopkgtest is not installed: {error}", hint="apt install autopkgtest") from error
