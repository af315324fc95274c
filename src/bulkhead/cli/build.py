"""bulkhead build"""

from __future__ import annotations

import os

from bulkhead.cli.app import App
from bulkhead.cli.archives import made
from bulkhead.cli.options import Problems, environment
from bulkhead.cli.parsing import Namespace, Parser, add_rest


def arguments(parser: Parser) -> None:
    """What is to be made, and of what."""
    add = parser.add_argument
    add("--unikernel", action="store_true", help="one program as the whole guest: a kernel, a small init, its files")
    add("-t", "--tag", metavar="NAME", help="what to call it")
    add(
        "--keep", action="append", default=[], metavar="PATH", help="a file or directory of the image to put in as well"
    )
    add("-e", "--env", action="append", default=[], metavar="K=V", help="an environment variable")
    add("-u", "--user", metavar="USER", help="user[:group] that it runs as (the image's)")
    add("-w", "--workdir", metavar="DIR", help="working directory (the image's)")
    add("--kernel", metavar="IMAGE", help="its kernel (kernel/trim:latest, else kernel/debian:latest)")
    add("source", metavar="IMAGE|PROGRAM", help="an image, or the path of a static program, with a slash in it")
    add_rest(parser, "command", "CMD", "command and arguments, instead of the image's")


def main(args: Namespace, app: App) -> int:
    """Show the steps on stderr; print what the image is called."""
    problems = Problems("see bulkhead build --help")
    if not args.unikernel:
        problems.add("only unikernels are built: give --unikernel")
    if args.tag is None:
        problems.add("-t NAME is missing: what is it to be called?")
    for path in args.keep:
        if not path.startswith("/"):
            problems.add(f"--keep {path!r} is not an absolute path in the image")
    if args.workdir is not None and not args.workdir.startswith("/"):
        problems.add(f"--workdir {args.workdir!r} is not an absolute path")
    env = environment(args.env, [], problems)
    problems.check()
    program = "/" in args.source and os.path.isfile(args.source)  # noqa: PTH113
    body = {
        "source": os.path.abspath(args.source) if program else args.source,  # noqa: PTH100
        "program": program,
        "name": args.tag,
        "command": args.command or [],
        "keep": args.keep,
        "env": env,
        "user": args.user,
        "workdir": args.workdir,
        "kernel": args.kernel,
    }
    with app.client.stream("POST", "/v1/images/unikernel", body=body) as response:
        return made(response)
