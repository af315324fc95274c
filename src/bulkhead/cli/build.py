"""bulkhead build"""

from __future__ import annotations

import os

from bulkhead.cli import options
from bulkhead.cli.app import App
from bulkhead.cli.options import Problems
from bulkhead.cli.output import write
from bulkhead.cli.parsing import Namespace, Parser, add_rest

LEVELS = ("chroot", "container", "vm")
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
EPOCH = "SOURCE_DATE_EPOCH"
MOST_SECRET = 512 << 10
_UNIKERNEL = ("keep", "env", "user", "workdir", "kernel")
_FILE = ("file", "build_arg", "target", "secret", "no_cache", "isolation", "network", "label", "iidfile", "on_failure")


def arguments(parser: Parser) -> None:
    """What is to be made, and of what."""
    from bulkhead.cli.registry import add_access

    add = parser.add_argument
    add("-t", "--tag", action="append", default=[], metavar="NAME", help="what to call it; may be given several times")
    add("-f", "--file", metavar="FILE", help="the Containerfile (CONTEXT/Containerfile, else Dockerfile); - for stdin")
    add("--build-arg", action="append", default=[], metavar="K=V", help="a value for an ARG; K alone: this process's")
    add("--target", metavar="STAGE", help="the stage that becomes the image (the last)")
    add(
        "--secret", action="append", default=[], metavar="id=ID[,src=FILE|,env=VAR]", help="for RUN --mount=type=secret"
    )
    add("--pull", choices=("missing", "always", "never"), default="missing", help="ask registries for images (missing)")
    add_access(parser)
    add("--platform", metavar="OS/ARCH", help="what the image runs on; this host's own alone can be built")
    add("--progress", choices=("auto", "plain"), default="auto", help="how steps are shown: as lines, either way")
    add("--no-cache", action="store_true", help="carry every step out, whatever was made before")
    add("--isolation", metavar="LEVEL", help="the wall of RUN steps: chroot, container or vm (container)")
    add("--network", "--net", metavar="N", help="of RUN steps: a network's name, none or host (default)")
    add("--http-proxy", choices=("true", "false"), default="true", help="whether RUN steps see this process's proxies")
    add("--label", action="append", default=[], metavar="K=V", help="a label of the image")
    add("--plan", metavar="NAME", help="the plan of RUN steps")
    options.add_plan(parser)
    add(
        "--on-failure",
        choices=("error", "shell"),
        help="what to do with a RUN that fails: a shell in its place (error)",
    )
    add("--iidfile", metavar="FILE", help="write the image's digest to a file")
    add("-q", "--quiet", action="store_true", help="print the image's digest alone, output only of what fails")
    add("--rm", "--force-rm", action="store_true", help="as always here: nothing of a step's instance is left")
    add("--unikernel", action="store_true", help="one program as the whole guest: a kernel, a small init, its files")
    add("--keep", action="append", default=[], metavar="PATH", help="unikernel: a file or directory to put in as well")
    add("-e", "--env", action="append", default=[], metavar="K=V", help="unikernel: an environment variable")
    add("-u", "--user", metavar="USER", help="unikernel: user[:group] that it runs as (the image's)")
    add("-w", "--workdir", metavar="DIR", help="unikernel: working directory (the image's)")
    add("--kernel", metavar="IMAGE", help="unikernel: its kernel (kernel/trim:latest, else kernel/debian:latest)")
    add("source", metavar="CONTEXT", help="a directory, or - for stdin; unikernel: an image, or a program's path")
    add_rest(parser, "command", "CMD", "unikernel: command and arguments, instead of the image's")


def main(args: Namespace, app: App) -> int:
    """Show the steps on stderr; print the image's digest."""
    if args.unikernel:
        from bulkhead.cli import unikernel

        _refuse_others(args, _FILE, "is of no concern to a unikernel")
        return unikernel.build(args, app)
    args = _options_behind(args)
    _refuse_others(args, _UNIKERNEL, "is of a unikernel: give --unikernel too")
    order = request(args)
    from bulkhead.cli import building
    from bulkhead.cli.context import open_context

    context = open_context(args.source, args.file)
    order["containerfile"] = context.text
    digest = building.build(app, order, context.chunks, args)
    if args.iidfile is not None:
        with open(args.iidfile, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(digest)
    write(digest)
    return 0


def request(args: Namespace) -> dict[str, object]:
    """The order as the API takes it, without the Containerfile. Raises Refused with every problem."""
    problems = Problems("see bulkhead build --help")
    if args.isolation is not None and args.isolation not in LEVELS:
        problems.add(f"--isolation {args.isolation!r} is not one of {', '.join(LEVELS)}")
    from bulkhead.cli import values

    given = dict(pair for pair in problems.each(_argument, args.build_arg) if pair)
    plan = options.plan(args, problems)
    if args.plan is not None:
        plan["name"] = args.plan
    proxies = {name: os.environ[name] for lower in PROXIES for name in (lower, lower.upper()) if name in os.environ}
    order: dict[str, object] = {
        "names": args.tag,
        "arguments": {name: value for name, value in given.items() if name.lower() not in PROXIES},
        "proxies": {
            **(proxies if args.http_proxy == "true" else {}),
            **{name: value for name, value in given.items() if name.lower() in PROXIES},
        },
        "target": args.target or "",
        "platform": args.platform or "",
        "labels": dict(problems.each(values.parse_label, args.label)),
        "secrets": dict(problems.each(_secret, args.secret)),
        "no_cache": args.no_cache,
        "pull": args.pull,
        "isolation": args.isolation or "container",
        "network": args.network,
        "plan": plan,
        "keep_failed": args.on_failure == "shell",
    }
    if EPOCH in os.environ and EPOCH not in given:
        order["epoch"] = problems.of(lambda: values.parse_number(os.environ[EPOCH], EPOCH, low=0))
    problems.check()
    return order


def _argument(text: str) -> tuple[str, str] | None:
    name, equals, value = text.partition("=")
    if not name:
        raise ValueError(f"--build-arg {text!r} is not K=V")
    if equals:
        return name, value
    return (name, os.environ[name]) if name in os.environ else None


def _secret(text: str) -> tuple[str, str]:
    """An id and base64."""
    import binascii

    fields = dict(field.partition("=")[::2] for field in text.split(","))
    identifier = fields.pop("id", "")
    kind = fields.pop("type", "")
    path = fields.pop("src", fields.pop("source", ""))
    variable = fields.pop("env", identifier if kind == "env" else "")
    if not identifier or fields or kind not in ("", "file", "env") or (path and variable):
        raise ValueError(f"--secret {text!r} is not id=ID,src=FILE or id=ID,env=VAR")
    if variable or (not path and identifier in os.environ):
        name = variable or identifier
        if name not in os.environ:
            raise ValueError(f"--secret {text!r}: there is no variable {name}")
        data = os.environb[os.fsencode(name)]
    else:
        try:
            with open(path or identifier, "rb") as file:  # noqa: PTH123
                data = file.read(MOST_SECRET + 1)
        except OSError as error:
            raise ValueError(f"--secret {text!r}: {path or identifier} cannot be read: {error.strerror}") from None
    if len(data) > MOST_SECRET:
        raise ValueError(f"--secret {text!r} has more than {MOST_SECRET} bytes")
    return identifier, binascii.b2a_base64(data, newline=False).decode()


def _options_behind(args: Namespace) -> Namespace:
    """Options that stand behind CONTEXT, as users of docker write them."""
    if not args.command:
        return args
    words, args.command = args.command, None
    parser = Parser("bulkhead build")
    arguments(parser)
    first = args.source
    found = parser.parse_args([*words, first], namespace=args)
    if found.source != first or found.command:
        from bulkhead.errors import Refused

        raise Refused(f"there is more than one CONTEXT: {first}, {found.source}", hint="see bulkhead build --help")
    return found


def _refuse_others(args: Namespace, names: tuple[str, ...], why: str) -> None:
    problems = Problems("see bulkhead build --help")
    for name in names:
        if getattr(args, name):
            problems.add(f"--{name.replace('_', '-')} {why}")
    problems.check()
