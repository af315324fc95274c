"""`up` and `down`: images first, then what the steps say; in the foreground the logs, until Ctrl-C stops all."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from bulkhead.cli import fetching, given, project_secrets, projects
from bulkhead.cli.app import App
from bulkhead.cli.carrying import Carrier
from bulkhead.cli.drawing import Drawing
from bulkhead.cli.interleaving import Follower
from bulkhead.cli.options import Problems, seconds
from bulkhead.cli.output import printable, talk, write
from bulkhead.cli.parsing import Namespace
from bulkhead.client import quote
from bulkhead.compose import steps
from bulkhead.compose.project import Project
from bulkhead.compose.steps import Existing, How, Step, World
from bulkhead.errors import BulkheadError, NotFound, Refused

INTERRUPTED = 130


def up(args: Namespace, app: App) -> int:
    """Carry it out. Raises Refused before anything is changed where the files are wrong or the daemon cannot."""
    project = projects.load_project(args)
    problems = Problems("see bulkhead up --help")
    how = _how(args, project, problems)
    stop_timeout = seconds("--timeout", args.timeout, problems)
    wait_timeout = seconds("--wait-timeout", args.wait_timeout, problems)
    problems.check()
    wanted = projects.services(args, project, args.services, dependencies=not args.no_deps)
    if not wanted:
        raise Refused("no service is to be started", hint="all of them have profiles: --profile, or name one")
    begun = time.time()
    world = projects.world(app, project, wanted)
    first = steps.images(project, wanted, world, how)
    if args.dry_run:
        for step in (*first, *steps.up(project, wanted, world, how)):
            write(steps.words(step))
        return 0
    for step in first:
        fetching.fetch(args, app, project, step)
    _judge(app, project, wanted, world)
    world = projects.world(app, project, wanted)
    _tell_orphans(project, world, how)
    with Drawing(quiet=args.quiet) as drawing:
        carrier = _carrier(app, project, drawing, stop_timeout=stop_timeout, wait_timeout=wait_timeout)
        carrier.run(steps.up(project, wanted, world, how))
    if args.detach or args.wait or args.no_start:
        return 0
    return _stay(args, app, project, wanted, begun=begun, timeout=stop_timeout)


def _judge(app: App, project: Project, wanted: Sequence[str], world: World) -> None:
    """Let the daemon say what it cannot do, before anything is changed. Configs and secrets are there by then."""
    contents = projects.contents(project)
    given.place(app, project, wanted, contents)
    try:
        project_secrets.put(app, project, wanted)
        projects.judge(app, project, wanted, lambda service: given.mounts(app, project, service, contents))
    except BaseException:
        if not world.instances:
            given.take_away(app, project.name)
            project_secrets.take_away(app, project.name)
        raise


def down(args: Namespace, app: App) -> int:
    """Stop and remove everything of the project; volumes where that is asked for."""
    problems = Problems("see bulkhead down --help")
    timeout = seconds("--timeout", args.timeout, problems)
    problems.check()
    name, project = projects.name_of(args)
    world = World(
        instances=projects.existing(app, name),
        networks=frozenset(each["name"] for each in app.client.call("GET", "/v1/networks")),
        volumes=frozenset(each["name"] for each in app.client.call("GET", "/v1/volumes")),
        secrets=project_secrets.made(app, name),
    )
    networks = [each.network for each in world.instances if each.network]
    volumes = [volume for each in world.instances for volume in each.volumes]
    if project:
        networks += [use.name for use in project.networks.values() if not use.external]
        volumes += [use.name for use in project.volumes.values() if not use.external]
    todo = steps.down(world, networks, volumes if args.volumes else [])
    if args.dry_run:
        for step in todo:
            write(steps.words(step))
        return 0
    if not todo:
        talk(f"note: there is nothing of the project {printable(name)}")
    with Drawing(quiet=args.quiet) as drawing:
        _carrier(app, project, drawing, name=name, stop_timeout=timeout).run(todo)
    given.take_away(app, name)
    return 0


def stop(app: App, project: Project, instances: Sequence[Existing], timeout: float | None, *, quiet: bool) -> None:
    """Stop instances of a project in order."""
    with Drawing(quiet=quiet) as drawing:
        _carrier(app, project, drawing, stop_timeout=timeout).run(steps.stops(instances))


def carry_out(app: App, project: Project, todo: Sequence[Step], *, quiet: bool = False) -> None:
    """Carry steps out as they are."""
    with Drawing(quiet=quiet) as drawing:
        _carrier(app, project, drawing).run(todo)


def _how(args: Namespace, project: Project, problems: Problems) -> How:
    if args.force_recreate and args.no_recreate:
        problems.add("--force-recreate and --no-recreate cannot both be")
    if args.wait_timeout is not None and not args.wait:
        problems.add("--wait-timeout says nothing without --wait")
    scale = {}
    for text in args.scale:
        name, _, count = text.partition("=")
        if name not in project.services or not (count.isascii() and count.isdigit()):
            problems.add(f"--scale {text!r} is not SERVICE=N, of a service in the file")
            continue
        scale[name] = int(count)
        if int(count) > 1 and (project.services[name].container_name or "ports" in project.services[name].request):
            problems.add(f"--scale {text!r}: its name or its port of the host is one instance's")
    return How(
        build=args.build,
        force=args.force_recreate,
        recreate=not args.no_recreate,
        remove_orphans=args.remove_orphans,
        start=not args.no_start,
        wait=args.wait,
        scale=scale,
    )


def _tell_orphans(project: Project, world: World, how: How) -> None:
    if not how.remove_orphans and (found := steps.orphans(project, world)):
        names = ", ".join(each.name for each in found)
        talk(f"note: {names}: services that the files do not have; up --remove-orphans removes them")


def _carrier(
    app: App,
    project: Project | None,
    drawing: Drawing,
    *,
    name: str = "",
    stop_timeout: float | None = None,
    wait_timeout: float | None = None,
) -> Carrier:
    contents = projects.contents(project) if project else {}
    own = project.name if project else name

    def instances(service: str) -> Sequence[Existing]:
        with app.another_client() as client:
            found = [steps.existing(record, own) for record in client.call("GET", "/v1/instances")]
        return [each for each in found if each and each.service == service]

    def prepare(step: Step) -> Mapping[str, object]:
        return _with_files(app, project, step, contents) if project else step.request

    return Carrier(
        app, drawing, instances=instances, prepare=prepare, stop_timeout=stop_timeout, wait_timeout=wait_timeout
    )


def _with_files(app: App, project: Project, step: Step, contents: given.Contents) -> Mapping[str, object]:
    """The request with its configs."""
    found = given.mounts(app, project, project.services[step.service], contents)
    mounts = step.request.get("mounts", [])
    assert isinstance(mounts, list)
    return {**step.request, "mounts": [*mounts, *found]} if found else step.request


# --- in the foreground


def _stay(
    args: Namespace, app: App, project: Project, wanted: Sequence[str], *, begun: float, timeout: float | None
) -> int:
    """Show the logs of what was started until all has ended; Ctrl-C stops it in order, a second one at once."""
    instances = [each for each in projects.existing(app, project.name) if each.service in wanted]
    shown = [each for each in instances if project.services[each.service].attach]
    follower = Follower(app, shown, args, {"since": begun})
    with _interruptible():
        try:
            follower.start()
            follower.join()
        except KeyboardInterrupt:
            talk("\nstopping in order (Ctrl-C again: at once)")
            follower.end()
            _stop_in_order(app, project, [each.service for each in instances], timeout, quiet=args.quiet)
            follower.join()
            return INTERRUPTED
    return 0


def _stop_in_order(app: App, project: Project, names: Sequence[str], timeout: float | None, *, quiet: bool) -> None:
    instances = [each for each in projects.existing(app, project.name) if each.service in names]
    try:
        stop(app, project, instances, timeout, quiet=quiet)
    except KeyboardInterrupt:
        for each in instances:
            _quietly(lambda each=each: app.client.call("POST", f"/v1/instances/{quote(each.id)}/kill"))  # type: ignore[misc]


def _quietly(act: Callable[[], object]) -> None:
    try:
        act()
    except NotFound:
        return
    except BulkheadError as error:
        talk(f"note: {printable(error.what)}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """TERM is what Ctrl-C is."""

    def interrupt(_: int, __: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
