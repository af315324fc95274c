"""Compose projects on the command line: which files, which variables, what there is of the project."""

# pathlib takes 4 ms to load, and these commands are no exception to what the others do.
# ruff: noqa: PTH100, PTH113, PTH118, PTH120, PTH123, PTH109

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable

from bulkhead.cli import project_secrets
from bulkhead.cli.app import App
from bulkhead.cli.output import printable, talk
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.compose import steps
from bulkhead.compose.project import NAMES, OVERRIDES, Given, Project, chosen, load, project_name, variables
from bulkhead.compose.services import Service
from bulkhead.compose.steps import Existing, World
from bulkhead.errors import BulkheadError, Forbidden, NotFound, Refused

MOST_TEXT = 4 << 20
_SHORT = {"-f": "--file", "-p": "--project-name"}
_VALUED = ("--file", "--project-name", "--project-directory", "--env-file", "--profile")
STDIN = "-"


def add_project(parser: Parser, *, short: bool = True) -> None:
    """Which project. Without `short`, -f means something else to the command."""
    add = parser.add_argument
    flags = ("-f", "--file") if short else ("--file",)
    add(*flags, action="append", default=[], metavar="FILE", help="a compose file; several are merged (compose.yaml)")
    add("-p", "--project-name", metavar="PROJECT", help="the project's name (name: of the file, the directory's)")
    add("--project-directory", metavar="DIR", help="what paths in the files are relative to (the first file's)")
    add("--env-file", action="append", default=[], metavar="FILE", help="variables for the files (.env)")
    add("--profile", action="append", default=[], metavar="P", help="start the services of this profile too; * for all")


def rearranged(words: list[str]) -> list[str]:
    """Options of the project that stand before the subcommand, as docker has them, put behind it."""
    position = 0
    while position < len(words) and words[position].startswith("-") and words[position] not in ("-h", "--help"):
        flag, equals, _ = words[position].partition("=")
        if _SHORT.get(flag, flag) not in _VALUED:
            break
        position += 1 if equals else 2
    before = [_SHORT.get(word, word) for word in words[:position]]
    return [*words[position : position + 1], *before, *words[position + 1 :]]


# --- files


def load_project(args: Namespace) -> Project:
    """The project of a command line. Raises Refused with every problem."""
    project = load(_given(args))
    for name in project.unset:
        talk(f"note: the variable {printable(name)} is not set: it counts as empty")
    return project


def _given(args: Namespace) -> Given:
    files = _files(args)
    directory = os.path.abspath(args.project_directory or (os.path.dirname(files[0]) if files[0] != STDIN else "."))
    here = os.getcwd()

    def show(path: str) -> str:
        return os.path.relpath(path, here) if path.startswith(here + os.sep) else path

    environment = _variables(args, directory)
    name = args.project_name or environment.get("COMPOSE_PROJECT_NAME") or None
    return Given(files=tuple(files), directory=directory, variables=environment, read=_read, name=name, show=show)


def _files(args: Namespace) -> list[str]:
    named = args.file or [part for part in os.environ.get("COMPOSE_FILE", "").split(os.pathsep) if part]
    if named:
        return [path if path == STDIN else os.path.abspath(path) for path in named]
    directory = os.path.abspath(args.project_directory or ".")
    while True:
        if found := next((path for name in NAMES if os.path.isfile(path := os.path.join(directory, name))), None):
            over = next((path for name in OVERRIDES if os.path.isfile(path := os.path.join(directory, name))), None)
            return [found, over] if over else [found]
        above = os.path.dirname(directory)
        if above == directory:
            raise Refused(f"there is no {' or '.join(NAMES[:2])} here or above", hint="name the file with -f")
        directory = above


def _variables(args: Namespace, directory: str) -> dict[str, str]:
    """This process's, and beneath them those of .env files."""
    environment = dict(os.environ)
    usual = os.path.join(directory, ".env")
    paths = args.env_file or ([usual] if os.path.isfile(usual) else [])
    texts = []
    for path in paths:
        try:
            texts.append((path, _read(os.path.abspath(path))))
        except OSError as error:
            raise Refused(f"--env-file {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise Refused(f"--env-file {path} is not text (UTF-8): {error.reason}") from None
    return variables(environment, texts)


def _read(path: str) -> str:
    if path == STDIN:
        return sys.stdin.read(MOST_TEXT)
    with open(path, encoding="utf-8") as file:
        return file.read(MOST_TEXT)


def profiles(args: Namespace) -> tuple[str, ...]:
    """The profiles that are asked for."""
    return (*args.profile, *filter(None, os.environ.get("COMPOSE_PROFILES", "").split(",")))


def services(args: Namespace, project: Project, names: Iterable[str], *, dependencies: bool = True) -> list[str]:
    """The services that a command is about, each after those that it depends on. Raises Refused."""
    return chosen(project, tuple(names), profiles(args), dependencies=dependencies)


def name_of(args: Namespace) -> tuple[str, Project | None]:
    """The project's name, and the project where there is a file; -p alone will do. Raises Refused."""
    if args.project_name and not args.file and "COMPOSE_FILE" not in os.environ:
        given = Given(files=(), directory=os.getcwd(), variables={}, read=_read, name=args.project_name)
        name = project_name(given, None)
        try:
            files = _files(args)
        except Refused:
            return name, None
        args.file = files
    project = load_project(args)
    return project.name, project


# --- what there is


def existing(app: App, name: str) -> tuple[Existing, ...]:
    """The project's instances, whatever their state, by service and number."""
    found = [steps.existing(record, name) for record in app.client.call("GET", "/v1/instances")]
    return tuple(sorted((each for each in found if each), key=lambda each: (each.service, each.number)))


def world(app: App, project: Project, wanted: Iterable[str] = ()) -> World:
    """What there is of the project, and the images of the services that are wanted."""
    call = app.client.call
    return World(
        instances=existing(app, project.name),
        networks=frozenset(each["name"] for each in call("GET", "/v1/networks")),
        volumes=frozenset(each["name"] for each in call("GET", "/v1/volumes")),
        images={name: digest for name in wanted if (digest := _digest(app, project, name))},
        files={
            **{key: digest for key, (_, digest) in contents(project).items()},
            **project_secrets.ids(app, project),
        },
    )


def _digest(app: App, project: Project, service: str) -> str:
    reference = steps.image_of(project, project.services[service])
    try:
        return str(app.client.call("GET", "/v1/images/inspect", query={"reference": reference})["Id"])
    except NotFound:
        return ""


def contents(project: Project) -> dict[str, tuple[bytes, str]]:
    """What is in configs, with a digest, by "config/NAME". Raises Refused with all that cannot be read."""
    from hashlib import sha256

    from bulkhead.errors import Problem

    found, problems = {}, list[Problem]()
    for name, source in project.configs.items():
        try:
            data = (
                source.text.encode(errors="surrogateescape")
                if source.kind == "environment"
                else _data(source.kind, source.value)
            )
        except OSError as error:
            problems.append(Problem(f"config {name}: {source.value} cannot be read: {error.strerror}"))
            continue
        found[f"config/{name}"] = (data, sha256(data).hexdigest())
    if problems:
        raise Refused(problems)
    return found


def _data(kind: str, value: str) -> bytes:
    if kind == "file":
        with open(value, "rb") as file:
            return file.read(MOST_TEXT)
    return value.encode()


def judge(
    app: App, project: Project, wanted: Iterable[str], files: Callable[[Service], list[dict[str, object]]]
) -> None:
    """Let the daemon judge every service before anything is changed. Raises Refused with all that it says."""
    from bulkhead.errors import Problem

    problems: list[Problem] = []
    for name in wanted:
        body = dict(project.services[name].request)
        network = project.services[name].network
        if network and not project.networks[network].external:
            body.pop("network", None)  # it is made with the first `up`
        elif network:
            body["network"] = project.networks[network].name
        body["image"] = steps.image_of(project, project.services[name])
        body["secrets"] = steps.secrets_of(project, project.services[name])
        body["mounts"] = [*steps.mounts_of(project, project.services[name]), *files(project.services[name])]
        for key in ("ports", "aliases"):
            body.pop(key, None)  # an older instance of it has them
        try:
            app.client.call("POST", "/v1/dry-run", body=body)
        except Forbidden:
            return  # who may not ask is told by each create
        except BulkheadError as error:
            problems += [Problem(f"services.{name}: {problem.what}", problem.hint) for problem in error.problems]
    if problems:
        raise Refused(problems)
