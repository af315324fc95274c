"""What `bulkhead compose` does besides up and down."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from bulkhead.cli import fetching, interleaving, projects, upping
from bulkhead.cli import ps as listing
from bulkhead.cli.app import App
from bulkhead.cli.exec import main as run_exec
from bulkhead.cli.logs import times
from bulkhead.cli.options import Problems, seconds
from bulkhead.cli.output import age, printable, short_id, write, write_json, write_table
from bulkhead.cli.parsing import Namespace
from bulkhead.cli.session import DETACH_KEYS
from bulkhead.cli.values import parse_number
from bulkhead.compose import steps
from bulkhead.compose.printing import as_value, as_yaml
from bulkhead.compose.project import Project
from bulkhead.compose.steps import Existing, Step
from bulkhead.errors import NotFound, Refused

HEADER = ("NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS", "LEVEL")


def ps(args: Namespace, app: App) -> int:
    """List instances."""
    name, project = projects.name_of(args)
    wanted = _named(project, args.services)
    known = {each.id: each for each in projects.existing(app, name) if not wanted or each.service in wanted}
    records = [record for record in app.client.call("GET", "/v1/instances") if record["spec"]["id"] in known]
    records = [record for record in records if args.all or record["state"] in listing.ALIVE]
    records.sort(key=lambda record: str(record["spec"]["name"]))
    if args.quiet:
        for record in records:
            write(short_id(record["spec"]["id"]))
    elif args.format == "json":
        write_json(records)
    else:
        now, rows = time.time(), []
        for record in records:
            spec = record["spec"]
            command = " ".join(spec["argv"])
            rows.append(
                (
                    spec["name"],
                    spec["image"],
                    command if len(command) <= listing.COMMAND_WIDTH else command[: listing.COMMAND_WIDTH - 3] + "...",
                    known[spec["id"]].service,
                    age(spec["created"], now) + " ago",
                    listing.status(record, now),
                    ", ".join(listing.port_text(port) for port in spec["ports"]),
                    spec["isolation"],
                )
            )
        write_table(HEADER, rows)
    return 0


def ls(args: Namespace, app: App) -> int:
    """List projects."""
    found: dict[str, list[str]] = {}
    for record in app.client.call("GET", "/v1/instances"):
        spec = record["spec"]
        name = spec["labels"].get(steps.PROJECT, "")
        if name and steps.existing(record, name):
            found.setdefault(name, []).append(record["state"])
    if args.quiet:
        for name in sorted(found):
            write(name)
    elif args.format == "json":
        write_json(
            [{"name": name, "instances": len(states), "states": states} for name, states in sorted(found.items())]
        )
    else:
        rows = []
        for name, states in sorted(found.items()):
            rows.append((name, ", ".join(f"{state}({states.count(state)})" for state in sorted(set(states)))))
        write_table(("PROJECT", "STATUS"), rows)
    return 0


def logs(args: Namespace, app: App) -> int:
    """Show logs as one."""
    query: interleaving.Query = dict(times(args, "see bulkhead compose logs --help"))
    if args.tail is not None and args.tail != "all":
        problems = Problems("see bulkhead compose logs --help")
        query["tail"] = problems.of(lambda: int(parse_number(args.tail, "--tail", low=0)))
        problems.check()
    name, project = projects.name_of(args)
    wanted = _named(project, args.services)
    found = [each for each in projects.existing(app, name) if not wanted or each.service in wanted]
    if not args.follow:
        interleaving.print_logs(app, found, args, query)
        return 0
    follower = interleaving.Follower(app, found, args, query)
    follower.start()
    follower.join()
    return 0


def config(args: Namespace, app: App) -> int:  # noqa: ARG001 - no daemon is needed
    """Print what the files come to."""
    project = projects.load_project(args)
    if args.quiet:
        return 0
    if args.services:
        for name in project.services:
            write(name)
    elif args.format == "json":
        write_json({**as_value(project.tree), "name": project.name})
    else:
        sys.stdout.write(as_yaml(project.name, project.tree))
    return 0


def start(args: Namespace, app: App) -> int:
    """Start what is there, each after what it depends on."""
    project, found = _existing(args, app)
    upping.carry_out(app, project, _starts(project, [each for each in found if each.state not in steps.GOING]))
    return 0


def stop(args: Namespace, app: App) -> int:
    """Stop in order."""
    timeout = _timeout(args)
    project, found = _existing(args, app)
    upping.stop(app, project, found, timeout, quiet=False)
    return 0


def restart(args: Namespace, app: App) -> int:
    """Stop in order, then start."""
    timeout = _timeout(args)
    project, found = _existing(args, app)
    upping.stop(app, project, found, timeout, quiet=False)
    upping.carry_out(app, project, _starts(project, found))
    return 0


def execute(args: Namespace, app: App) -> int:
    """Run a command beside a service; its exit code."""
    name, _ = projects.name_of(args)
    number = int(_index(args.index))
    found = [each for each in projects.existing(app, name) if each.service == args.service and each.number == number]
    if not found:
        raise NotFound(f"{args.service} of {name} has no instance {number}", hint="see bulkhead compose ps -a")
    tty = not args.no_tty and sys.stdin is not None and sys.stdin.isatty()
    asked = Namespace(
        instance=found[0].id,
        program=args.program,
        words=args.words or [],
        tty=tty,
        interactive=True,
        detach=False,
        env=args.env,
        env_file=[],
        user=args.user,
        workdir=args.workdir,
        detach_keys=DETACH_KEYS,
    )
    return run_exec(asked, app)


def pull(args: Namespace, app: App) -> int:
    """Pull every image that is not built here."""
    project = projects.load_project(args)
    for name in projects.services(args, project, args.services, dependencies=False):
        service = project.services[name]
        if service.build is None and service.pull != "never":
            request = {"policy": "always", "platform": service.platform}
            fetching.fetch(args, app, project, Step("pull", service.image, name, request=request))
    return 0


def build(args: Namespace, app: App) -> int:
    """Build every image that has a build."""
    project = projects.load_project(args)
    names = projects.services(args, project, args.services, dependencies=False)
    for step in (Step("build", name, name) for name in names if project.services[name].build):
        fetching.fetch(args, app, project, step)
    return 0


# --- inside


def _index(text: str) -> float:
    problems = Problems("see bulkhead compose exec --help")
    number = problems.of(lambda: parse_number(text, "--index", low=1))
    problems.check()
    return number or 1


def _timeout(args: Namespace) -> float | None:
    problems = Problems("see bulkhead compose stop --help")
    timeout = seconds("--timeout", args.timeout, problems)
    problems.check()
    return timeout


def _named(project: Project | None, names: Sequence[str]) -> Sequence[str]:
    if project and (unknown := [name for name in names if name not in project.services]):
        known = ", ".join(project.services)
        raise Refused(f"no such service: {printable(', '.join(unknown))}", hint=f"there are {known}")
    return names


def _existing(args: Namespace, app: App) -> tuple[Project, list[Existing]]:
    project = projects.load_project(args)
    wanted = _named(project, args.services)
    found = [each for each in projects.existing(app, project.name) if not wanted or each.service in wanted]
    if not found:
        raise NotFound(f"the project {project.name} has no such instances", hint="bulkhead up makes them")
    return project, found


def _starts(project: Project, found: Sequence[Existing]) -> list[Step]:
    """Starts, each after those of what it depends on."""
    todo = []
    for each in found:
        links = project.services[each.service].depends if each.service in project.services else {}
        after = tuple(f"start {other.name}" for other in found if other.service in links)
        todo.append(Step("start", each.name, each.service, after))
    return todo
