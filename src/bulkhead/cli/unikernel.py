"""bulkhead build --unikernel"""

from __future__ import annotations

import os

from bulkhead.cli.app import App
from bulkhead.cli.archives import made
from bulkhead.cli.options import Problems, environment
from bulkhead.cli.parsing import Namespace


def build(args: Namespace, app: App) -> int:
    """Show the steps on stderr; print what the image is called."""
    problems = Problems("see bulkhead build --help")
    if not args.tag:
        problems.add("-t NAME is missing: what is it to be called?")
    elif len(args.tag) > 1:
        problems.add("a unikernel gets one name: give -t once")
    for path in args.keep:
        if not path.startswith("/"):
            problems.add(f"--keep {path!r} is not an absolute path in the image")
    if args.workdir is not None and not args.workdir.startswith("/"):
        problems.add(f"--workdir {args.workdir!r} is not an absolute path")
    env = environment(args.env, [], problems)
    problems.check()
    program = "/" in args.source and os.path.isfile(args.source)  # noqa: PTH113
    if program:
        app.require_local(args.source)
    body = {
        "source": os.path.abspath(args.source) if program else args.source,  # noqa: PTH100
        "program": program,
        "name": args.tag[0],
        "command": args.command or [],
        "keep": args.keep,
        "env": env,
        "user": args.user,
        "workdir": args.workdir,
        "kernel": args.kernel,
    }
    with app.client.stream("POST", "/v1/images/unikernel", body=body) as response:
        return made(response)
