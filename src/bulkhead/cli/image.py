"""bulkhead image"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from bulkhead.cli import archives, registry, values
from bulkhead.cli.app import App
from bulkhead.cli.archives import chunks, made, stream_of
from bulkhead.cli.each import for_each
from bulkhead.cli.options import Problems, environment
from bulkhead.cli.output import age, printable, short_id, talk, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_format, add_listing
from bulkhead.quantities import format_size, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


HEADER = ("NAME", "ID", "KIND", "ARCH", "CREATED", "SIZE")
NAMELESS = "<none>"
CHUNK = 1 << 18
KERNEL_TYPES = ("linux", "unikraft", "mirage", "other")


def _ls_arguments(parser: Parser) -> None:
    add_listing(parser, "ids")
    parser.add_argument("--no-trunc", action="store_true", help="show ids whole")


def _ls(args: Namespace, app: App) -> int:
    images = app.client.call("GET", "/v1/images")
    if args.quiet:
        for image in images:
            write(short_id(image["digest"], whole=args.no_trunc))
    elif args.format == "json":
        write_json(images)
    else:
        write_table(HEADER, [row for image in images for row in _rows(image, whole=args.no_trunc)])
    return 0


def _rows(image: dict[str, Any], *, whole: bool) -> Iterator[tuple[str, ...]]:
    created = age(image["created"]) + " ago" if image["created"] else "-"
    for name in image["references"] or [NAMELESS]:
        identifier = short_id(image["digest"], whole=whole)
        yield name, identifier, image["kind"], image["architecture"], created, format_size(image["size"])


# --- bootstrap and import


def _bootstrap_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--packages", action="append", default=[], metavar="A,B", help="packages to install")
    add("--name", metavar="NAME", help="what to call it (release and packages)")
    add("--arch", metavar="ARCH", help="such as amd64 or i386 (the host's)")
    add("--mirror", action="append", default=[], metavar="URL", help="a mirror, or a line of sources.list (the host's)")
    add("--entrypoint", metavar="E", help="program that it runs: a word or a JSON array")
    add("--cmd", metavar="C", help="command that it runs: a JSON array, or a line for /bin/sh")
    add("-e", "--env", action="append", default=[], metavar="K=V", help="an environment variable")
    add("-w", "--workdir", metavar="DIR", help="working directory")
    add("-u", "--user", metavar="USER", help="user that it runs as")
    add("--label", action="append", default=[], metavar="K=V", help="a label")
    add("--expose", action="append", default=[], metavar="PORT[/udp]", help="a port that it listens on")
    add("--stop-signal", metavar="SIGNAL", help="what stop sends first")
    add("--disk", action="store_true", help="make a machine's disk, which boots by itself")
    add("--size", metavar="SIZE", help="with --disk: its size (2G); an instance's copy is grown to its plan")
    add("--firmware", metavar="F", help="with --disk: bios or uefi (bios)")
    add("release", metavar="RELEASE", help="such as debian:bookworm")


def _bootstrap(args: Namespace, app: App) -> int:
    problems = Problems("see bulkhead image bootstrap --help")
    config = {
        "entrypoint": None
        if args.entrypoint is None
        else problems.of(lambda: values.parse_entrypoint(args.entrypoint)),
        "command": None if args.cmd is None else problems.of(lambda: _command(args.cmd)),
        "env": environment(args.env, [], problems) or None,
        "workdir": args.workdir,
        "user": args.user,
        "labels": dict(problems.each(values.parse_label, args.label)) or None,
        "ports": args.expose or None,
        "stop_signal": args.stop_signal,
    }
    given = {key: value for key, value in config.items() if value is not None}
    size = None if args.size is None else problems.of(lambda: parse_size(args.size))
    if args.disk and (given or args.arch or args.mirror):
        problems.add("--disk makes a whole system: it takes --packages, --name, --size and --firmware alone")
    elif not args.disk and (args.size or args.firmware):
        problems.add("--size and --firmware are of a machine's disk: give --disk too")
    problems.check()
    body: dict[str, object] = {
        "release": args.release,
        "packages": [name for names in args.packages for name in names.replace(",", " ").split()],
        "name": args.name,
    }
    if args.disk:
        body |= {"size": size, "firmware": args.firmware}
    else:
        body |= {"architecture": args.arch, "mirrors": args.mirror, "config": given}
    with app.client.stream("POST", f"/v1/images/{'disk' if args.disk else 'bootstrap'}", body=body) as response:
        return made(response)


def _command(text: str) -> list[str]:
    return values.parse_entrypoint(text) if text.startswith("[") else ["/bin/sh", "-c", text]


def _kernel_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--trim", action="store_true", help="build one of what guests need from its source package; takes minutes")
    add("--version", metavar="V", help="version of its kernel or source package, such as 6.1.192-2 (the newest)")
    add("distribution", metavar="DISTRIBUTION", nargs="?", default="debian", help="debian, the default")
    add("name", metavar="NAME", nargs="?", help="what to call it (kernel/debian:6.1 or kernel/trim:6.1, and :latest)")


def _kernel(args: Namespace, app: App) -> int:
    body = {"distribution": args.distribution, "trim": args.trim, "version": args.version, "name": args.name}
    with app.client.stream("POST", "/v1/images/kernel", body=body) as response:
        return made(response)


def _import_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("-c", "--change", action="append", default=[], metavar="LINE", help='an instruction such as "CMD nginx"')
    add("--unikernel", action="store_true", help="a kernel with its application in it: ELF (PVH, multiboot) or bzImage")
    add("--cmdline", metavar="LINE", help="with --unikernel: its command line")
    add(
        "--type", metavar="TYPE", help="with --unikernel: how that is written: linux, unikraft, mirage or other (other)"
    )
    add("file", metavar="FILE", help="OCI or docker archive, tar of a root file system, or disk; - for stdin")
    add("name", metavar="NAME", nargs="?", help="what to call it")


def _import(args: Namespace, app: App) -> int:
    problems = Problems("see bulkhead image import --help")
    if not args.unikernel and (args.cmdline is not None or args.type is not None):
        problems.add("--cmdline and --type are of a unikernel: give --unikernel too")
    if args.type is not None and args.type not in KERNEL_TYPES:
        problems.add(f"--type {args.type!r} is not one of {', '.join(KERNEL_TYPES)}")
    problems.check()
    query: dict[str, str | list[str] | None] = {"name": args.name, "change": args.change}
    if args.unikernel:
        query |= {"unikernel": args.type or "other", "cmdline": args.cmdline}
    with ExitStack() as stack:
        file = sys.stdin.buffer if args.file == "-" else stream_of(args.file, stack, remote=app.is_remote)
        if file is None:
            # The daemon is on this host and reads the file itself.
            query["path"] = os.path.abspath(args.file)  # noqa: PTH100
            response = app.client.stream("POST", "/v1/images/import", query=query)
        else:
            response = app.client.upload("POST", "/v1/images/import", chunks(file), query=query)
        return made(stack.enter_context(response))


def _from_server_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--name", metavar="NAME", help="what to call the image (server/ and the server's name)")
    add("--minimize", action="store_true", help="leave out documentation, caches, logs and packages no service needs")
    add("--keep", action="append", default=[], metavar="PACKAGE", help="with --minimize: a package to keep as well")
    add("--exclude", action="append", default=[], metavar="PATH", help="a path to leave out, with * and **")
    add("--stop", action="append", default=[], metavar="UNIT", help="a service to stop while the second pass runs")
    add("--quiesce", action="store_true", help="stop every service found, but ssh, while the second pass runs")
    add("--volumes", action="store_true", help="suggest a volume for each directory with data")
    add("--dry-run", action="store_true", help="look and suggest, and copy nothing")
    add("-o", dest="option", action="append", default=[], metavar="OPTION", help="an option of ssh, such as Port=2222")
    add("--format", choices=("text", "json"), default="text", help="json: all that was found, with the API's request")
    add("target", metavar="TARGET", help="user@host, ssh://user@host:port, a directory that is a root, a disk")


def _from_server(args: Namespace, app: App) -> int:
    from bulkhead.cli import from_server

    problems = Problems("see bulkhead image from-server --help")
    if args.keep and not args.minimize:
        problems.add("--keep says what --minimize keeps: give --minimize too")
    problems.check()
    return from_server.main(args, app)


# --- the rest


def _inspect_arguments(parser: Parser) -> None:
    parser.add_argument("names", metavar="IMAGE", nargs="+", help="name or id")


def _inspect(args: Namespace, app: App) -> int:
    found: list[object] = []

    def inspect(name: str) -> None:
        found.append(app.client.call("GET", "/v1/images/inspect", query={"reference": name}))

    try:
        return for_each(args.names, inspect, say=False)
    finally:
        write_json(found)


def _rm_arguments(parser: Parser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="by id: with all of its names")
    parser.add_argument("names", metavar="IMAGE", nargs="+", help="name or id")


def _rm(args: Namespace, app: App) -> int:
    def remove(name: str) -> None:
        body = {"reference": name, "force": args.force}
        for line in app.client.call("POST", "/v1/images/remove", body=body):
            write(printable(line))

    return for_each(args.names, remove, say=False)


def _prune_arguments(parser: Parser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="also named images that no instance uses")


def _prune(args: Namespace, app: App) -> int:
    removed = app.client.call("POST", "/v1/images/prune", body={"everything": args.all})
    for digest in removed["digests"]:
        write(digest)
    talk(f"freed {format_size(removed['freed'])}")
    return 0


def _tag_arguments(parser: Parser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name or id")
    parser.add_argument("targets", metavar="NAME", nargs="+", help="what else to call it")


def _tag(args: Namespace, app: App) -> int:
    for name in app.client.call("POST", "/v1/images/tag", body={"reference": args.image, "targets": args.targets}):
        write(printable(name))
    return 0


def _share_arguments(parser: Parser) -> None:
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="names of images of the operator's")


def _share(args: Namespace, app: App) -> int:
    return _publish(args, app, public=True)


def _unshare(args: Namespace, app: App) -> int:
    return _publish(args, app, public=False)


def _publish(args: Namespace, app: App, *, public: bool) -> int:
    def one(image: str) -> None:
        app.client.call("POST", "/v1/images/public", body={"reference": image, "public": public})

    return for_each(args.images, one)


def _public_arguments(parser: Parser) -> None:
    add_format(parser)


def _public(args: Namespace, app: App) -> int:
    names = app.client.call("GET", "/v1/images/public")
    if args.format == "json":
        write_json(names)
    else:
        write_table(("IMAGE",), [(name,) for name in names])
    return 0


SUBCOMMANDS = {
    "share": Subcommand("Let every tenant see images of the operator's", _share_arguments, _share),
    "unshare": Subcommand("Let tenants see them no longer; what runs goes on", _share_arguments, _unshare),
    "public": Subcommand("List images that every tenant sees", _public_arguments, _public),
    "ls": Subcommand("List images", _ls_arguments, _ls),
    **registry.SUBCOMMANDS,
    **archives.SUBCOMMANDS,
    "tag": Subcommand("Give an image more names", _tag_arguments, _tag),
    "bootstrap": Subcommand("Make an image from a distribution's packages", _bootstrap_arguments, _bootstrap),
    "kernel": Subcommand(
        "Make a kernel for virtual machines from a distribution's package", _kernel_arguments, _kernel
    ),
    "import": Subcommand("Read an archive or a root file system", _import_arguments, _import),
    "from-server": Subcommand(
        "Make an image of a server that runs, a root or a disk", _from_server_arguments, _from_server
    ),
    "inspect": Subcommand("Show everything about images, as a JSON array", _inspect_arguments, _inspect),
    "rm": Subcommand("Remove names, and images with their last one", _rm_arguments, _rm),
    "prune": Subcommand("Remove what nothing needs", _prune_arguments, _prune),
}
