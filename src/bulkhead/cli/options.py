"""The options of run and create, and what they make of a request. Every problem is found before any is told."""

from __future__ import annotations

import os
from collections.abc import Callable

from bulkhead import quantities
from bulkhead.cli import values
from bulkhead.cli.parsing import Namespace, Parser, add_rest
from bulkhead.cli.secret_use import parse_secret
from bulkhead.cli.where import wished

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from bulkhead.cli.app import App
    from bulkhead.errors import Problem

    T = TypeVar("T")

INITS = ("none", "system")
LEVELS = ("auto", "chroot", "container", "vm", "unikernel")
TRUST = ("own", "partner", "public")
PLAN_HELP = (
    ("--memory", "-m", "SIZE", "bytes of memory, such as 512M"),
    ("--swap", None, "SIZE", "bytes of swap on top of the memory (0)"),
    ("--cpus", None, "N", "cores, such as 2 or 0.5"),
    ("--ghz", None, "GHZ", "speed of a core, such as 2.0"),
    ("--baseline", None, "N", "cores of these that are sold: what it gets when everybody wants all (all of them)"),
    ("--disk", None, "SIZE", "size of the instance's disk, such as 5G"),
    ("--iops", None, "N", "disk operations per second, each way"),
    ("--disk-bps", None, "SIZE", "disk bytes per second, each way"),
    ("--bandwidth", None, "RATE", "network bits per second, each way, such as 100M"),
    ("--pids", None, "N", "processes and threads"),
)


HARDWARE = {
    "machine": ("q35", "pc"),
    "disk_bus": ("virtio", "sata", "ide"),
    "nic": ("virtio", "e1000"),
    "firmware": ("bios", "uefi"),
}
WORDS = {"isolation": LEVELS, "trust": TRUST, **HARDWARE}
"""Options that take one of a few words."""
"""What a whole system's computer may be made of, by the field of the request."""


class Problems:
    """Collects what is wrong with a command line, to tell it all at once."""

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self._found: list[str] = []

    def add(self, what: str) -> None:
        """One thing that is wrong."""
        self._found.append(what)

    def of(self, parse: Callable[[], T]) -> T | None:
        """What `parse` gives; None, and the reason kept, where it raises ValueError."""
        try:
            return parse()
        except ValueError as error:
            self.add(str(error))
            return None

    def each(self, parse: Callable[[str], T | None], texts: list[str]) -> list[T]:
        """`parse` for every text, without those that fail."""
        parsed = [self.of(lambda text=text: parse(text)) for text in texts]  # type: ignore[misc]
        return [item for item in parsed if item is not None]

    def check(self, others: Callable[[], list[Problem]] = list) -> None:
        """Raise Refused where anything was wrong, together with what `others` finds wrong with the rest."""
        if self._found:
            from bulkhead.errors import Problem, Refused

            problems: list[Problem] = [Problem(what) for what in self._found[:-1]]
            raise Refused([*problems, Problem(self._found[-1], self._hint), *others()])


def add_plan(parser: Parser) -> None:
    """The fields of a plan."""
    for flag, short, metavar, help_line in PLAN_HELP:
        flags = (short, flag) if short else (flag,)
        parser.add_argument(*flags, metavar=metavar, help=help_line)


def plan(args: Namespace, problems: Problems) -> dict[str, object]:
    """The fields of a plan that were given."""
    size, rate = quantities.parse_size, quantities.parse_rate
    fields = {
        "memory": quantity("--memory", args.memory, size, problems),
        "swap": quantity("--swap", args.swap, size, problems),
        "cpus": quantity("--cpus", args.cpus, lambda text: _positive(text, "--cpus"), problems),
        "ghz": quantity("--ghz", args.ghz, lambda text: _positive(text, "--ghz"), problems),
        "baseline": quantity("--baseline", args.baseline, lambda text: _positive(text, "--baseline"), problems),
        "disk": quantity("--disk", args.disk, size, problems),
        "iops": quantity("--iops", args.iops, lambda text: values.parse_number(text, "--iops", low=1), problems),
        "disk_bps": quantity("--disk-bps", args.disk_bps, size, problems),
        "bandwidth": quantity("--bandwidth", args.bandwidth, rate, problems),
        "pids": quantity("--pids", args.pids, lambda text: values.parse_number(text, "--pids", low=1), problems),
    }
    return {key: value for key, value in fields.items() if value is not None}


def quantity(flag: str, text: str | None, parse: Callable[[str], float], problems: Problems) -> float | None:
    """What `parse` makes of a flag's text; None where it was not given or is wrong."""
    if text is None:
        return None

    def parsed() -> float:
        try:
            return parse(text)
        except ValueError as error:
            said = str(error)
            raise ValueError(said if said.startswith(flag) else f"{flag} {said}") from None

    return problems.of(parsed)


def _positive(text: str, flag: str) -> float:
    number = values.parse_number(text, flag, low=0, whole=False)
    if not number:
        raise ValueError(f"{flag} {text} is not more than 0")
    return number


def add_request(parser: Parser) -> None:
    """Everything that describes an instance; IMAGE and the command come last."""
    add = parser.add_argument
    add("--isolation", metavar="LEVEL", help="the wall: chroot, container, vm, unikernel, or auto (container)")
    add("--trust", metavar="WHOSE", help="auto: whose program it is: own, partner or public (public)")
    add("--needs-kernel", action="store_true", help="auto: it changes the kernel, or needs one of its own")
    add("--hostile-input", action="store_true", help="auto: it reads what strangers send")
    add("--kernel", metavar="IMAGE", help="a VM's kernel image (kernel/debian:latest)")
    add("--no-template", action="store_true", help="boot a VM cold, not from a template of its kernel and size")
    add("--inside", metavar="VM", help="run in this VM; new: in one of just the size, for this instance alone")
    add("--inner", metavar="N", help="how many instances a VM can hold (2)")
    add("--user-data", metavar="FILE", help="what cloud-init of a whole system is told; - for stdin")
    add("--machine", metavar="M", help="computer of a whole system: q35 or pc (q35)")
    add("--disk-bus", metavar="BUS", help="how a whole system sees its disk: virtio, sata or ide (virtio)")
    add("--nic", metavar="NIC", help="network card of a whole system: virtio or e1000 (virtio)")
    add("--firmware", metavar="F", help="what a whole system boots by: bios or uefi (as its image says)")
    add("--init", metavar="KIND", help="the first process: none (the command), system (an init such as systemd)")
    add("--plan", metavar="NAME", help="a named plan; single fields given beside it override it")
    add_plan(parser)
    add("--name", metavar="N", help="a name for the instance")
    add("--tenant", metavar="TENANT", help="whose it is to be; for those who see all tenants")
    add("--rm", action="store_true", help="remove the instance when it has ended")
    add("-i", "--interactive", action="store_true", help="keep stdin open")
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="K=V",
        help="set an environment variable; K alone passes it on",
    )
    add(
        "--env-file", action="append", default=[], metavar="FILE", help="environment variables from a file of K=V lines"
    )
    add("-v", "--volume", action="append", default=[], metavar="SRC:DST[:ro]", help="mount a volume, or a host's path")
    add("--secret", action="append", default=[], metavar="NAME[,target=/PATH]", help="a secret, as a file in memory")
    add("-p", "--publish", action="append", default=[], metavar="[IP:]HOST:PORT[/udp]", help="publish a port")
    add("--network", "--net", metavar="N", help="a network's name, none or host")
    add("--network-alias", action="append", default=[], metavar="NAME", help="another name on its network")
    add("-w", "--workdir", metavar="DIR", help="working directory")
    add("-u", "--user", metavar="USER", help="user[:group], names or numbers of the image")
    add("--hostname", metavar="NAME", help="host name inside")
    add("--entrypoint", metavar="E", help="program to run instead of the image's")
    add("--label", action="append", default=[], metavar="K=V", help="a label, for listings")
    add("--restart", metavar="POLICY", help="no, on-failure[:n] or always (no)")
    add("--stop-signal", metavar="SIGNAL", help="what stop sends first (the image's, or TERM; a system: RTMIN+3)")
    add("--stop-timeout", metavar="S", help="seconds that stop waits before KILL (10; a system: 90)")
    add("--health-cmd", metavar="C", help="shell command that tells whether it is well")
    add("--health-interval", metavar="S", help="time between health checks (30s)")
    add("--health-timeout", metavar="S", help="time that a health check may take (30s)")
    add("--health-retries", metavar="N", help="failures in a row that make it unhealthy (3)")
    add("--health-start-period", metavar="S", help="time after the start in which failures do not count (0s)")
    add("--on-unhealthy", choices=("none", "restart"), help="what to do with an unhealthy instance (none)")
    add("--from", dest="snapshot", metavar="SNAPSHOT", help="clone INSTANCE/NAME; what is not given is as it was there")
    # A clone has no IMAGE: then this is the first word of the command, if there is one.
    add("image", metavar="IMAGE", help="the image; none with --from").required = False
    add_rest(parser, "command", "CMD", "command and arguments, instead of the image's")


def request(args: Namespace, app: App | None = None) -> dict[str, object]:
    """The request as the API takes it; what was not given is left out. Raises Refused with every problem.

    Where something is wrong, the daemon of `app` is asked about the rest, so that all of it is told in one round.
    """
    problems = Problems("see bulkhead run --help")
    image, command = _what(args, problems)
    fields: dict[str, object] = {
        "image": image,
        "snapshot": args.snapshot,
        "needs_kernel": args.needs_kernel,
        "hostile_input": args.hostile_input,
        "kernel": args.kernel,
        "cold": args.no_template,
        "inside": args.inside,
        "inner": None if args.inner is None else problems.of(lambda: values.parse_number(args.inner, "--inner", low=0)),
        "user_data": None if args.user_data is None else problems.of(lambda: values.read_text(args.user_data)),
        **{key: _one_of(key, getattr(args, key), problems) for key in WORDS},
        "init": _init(args.init, problems),
        "tenant": args.tenant,
        "name": _name(args.name, problems),
        "command": command,
        "entrypoint": None
        if args.entrypoint is None
        else problems.of(lambda: values.parse_entrypoint(args.entrypoint)),
        "env": environment(args.env, args.env_file, problems),
        "workdir": _absolute("--workdir", args.workdir, problems),
        "user": args.user,
        "hostname": args.hostname,
        "labels": dict(problems.each(values.parse_label, args.label)),
        "network": args.network,
        "aliases": problems.each(_alias, args.network_alias),
        "ports": problems.each(values.parse_port, args.publish),
        "mounts": problems.each(values.parse_volume, args.volume),
        "secrets": problems.each(parse_secret, args.secret),
        "tty": args.tty,
        "stdin": args.interactive,
        "restart": problems.of(lambda: values.parse_restart(args.restart)) if args.restart else None,
        "health": health(args, problems),
        "stop_signal": args.stop_signal,
        "stop_timeout": seconds("--stop-timeout", args.stop_timeout, problems),
        "auto_remove": args.rm,
        "where": wished(args, seconds("--replica-interval", getattr(args, "replica_interval", None), problems)),
    }
    asked = plan(args, problems)
    if args.plan is not None:
        asked["name"] = args.plan
    made = {"plan": asked, **{key: value for key, value in fields.items() if _given(key, value)}}
    problems.check(lambda: app.judge("/v1/dry-run", made) if app else [])
    for mount in problems.each(values.parse_volume, args.volume) if app else ():
        if app and mount["kind"] == "bind":
            app.require_local(f"-v {mount['source']}")
    return made


def _what(args: Namespace, problems: Problems) -> tuple[str | None, list[str]]:
    """The image, and the command; with a snapshot in its place None, and the word that is there is the command's."""
    command = args.command or []
    if args.snapshot is not None:
        return None, [*([args.image] if args.image is not None else []), *command]
    if args.image is None:
        problems.add("IMAGE is missing: which image, or --from which snapshot?")
    return args.image, command


def _one_of(key: str, given: str | None, problems: Problems) -> str | None:
    if given is not None and given not in WORDS[key]:
        problems.add(f"--{key.replace('_', '-')} {given!r} is not one of {', '.join(WORDS[key])}")
        return None
    return given


def _init(given: str | None, problems: Problems) -> str | None:
    if given is not None and given not in INITS:
        problems.add(
            f"--init {given!r} is not one of {', '.join(INITS)}; the small init that docker and podman add is the"
            " image's to bring, such as tini"
        )
        return None
    return given


def _name(given: str | None, problems: Problems) -> str | None:
    if given is not None and not values.NAME.match(given):
        problems.add(f"--name {given!r}: a name has letters, digits, _ . - and at most 63 of them")
        return None
    return given


def _given(key: str, value: object) -> bool:
    """Whether a field says anything: an empty entrypoint does, other empty lists do not."""
    if key == "entrypoint":
        return value is not None
    return value is not None and value is not False and value not in ([], {})


def environment(given: list[str], files: list[str], problems: Problems) -> list[str]:
    """Files first, so that -e wins."""
    entries = [entry for lines in problems.each(_env_file, files) for entry in lines]
    return entries + problems.each(_env, given)


def _alias(text: str) -> str:
    if not values.NAME.match(text):
        raise ValueError(f"--network-alias {text!r}: a name has letters, digits, _ . - and at most 63 of them")
    return text


def _env(text: str) -> str | None:
    return values.parse_env(text, os.environ)


def _env_file(path: str) -> list[str]:
    return values.read_env_file(path, os.environ)


def health(args: Namespace, problems: Problems) -> dict[str, object] | None:
    """The health check, where there is one."""
    fields = {
        "interval": seconds("--health-interval", args.health_interval, problems),
        "timeout": seconds("--health-timeout", args.health_timeout, problems),
        "start_period": seconds("--health-start-period", args.health_start_period, problems),
        "retries": None
        if args.health_retries is None
        else problems.of(lambda: values.parse_number(args.health_retries, "--health-retries", low=1)),
        "on_unhealthy": args.on_unhealthy,
    }
    given = {key: value for key, value in fields.items() if value is not None}
    if args.health_cmd is None:
        if given or args.on_unhealthy:
            problems.add("--health-... and --on-unhealthy need --health-cmd")
        return None
    return {"command": ["/bin/sh", "-c", args.health_cmd], **given}


def seconds(flag: str, text: str | None, problems: Problems) -> float | None:
    """Seconds that a flag was given; None where it was not."""
    return quantity(flag, text, quantities.parse_seconds, problems)


def _absolute(flag: str, path: str | None, problems: Problems) -> str | None:
    if path is not None and not path.startswith("/"):
        problems.add(f"{flag} {path!r} is not an absolute path")
        return None
    return path
