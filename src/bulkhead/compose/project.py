"""From files to a project: read, interpolated, merged, extended and judged; everything that is wrong at once."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bulkhead.compose import dotenv, merging, nodes
from bulkhead.compose.interpolation import interpolate
from bulkhead.compose.nodes import Place, Troubles
from bulkhead.compose.reading import Reader
from bulkhead.compose.services import Service, Surroundings, read_service
from bulkhead.errors import Refused
from bulkhead.quantities import parse_size

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
"""Files that are looked for where none is named."""
OVERRIDES = ("compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SECRET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_SERVICE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*")
MOST_NAME = 63
MOST_FILES = 64


@dataclass(frozen=True, slots=True)
class Source:
    """Where a config or a secret comes from: "file" (an absolute path), "environment", "content" or "external"."""

    kind: str
    value: str
    name: str = ""
    """A secret's, in the daemon."""
    text: str = field(default="", repr=False)
    """What the variable holds."""


@dataclass(frozen=True, slots=True)
class NetworkUse:
    """A network of the project: its whole name, whether somebody else's, its subnets ("" from the pool)."""

    name: str
    external: bool = False
    subnet4: str = ""
    subnet6: str = ""


@dataclass(frozen=True, slots=True)
class VolumeUse:
    """A volume of the project; size in bytes, None: the usual."""

    name: str
    external: bool = False
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """What a compose file asks for."""

    name: str
    services: dict[str, Service]
    networks: dict[str, NetworkUse]
    volumes: dict[str, VolumeUse]
    configs: dict[str, Source]
    secrets: dict[str, Source]
    unset: tuple[str, ...] = ()
    """Variables that are named and not set: they count as empty."""
    tree: nodes.Mapping = field(default_factory=lambda: nodes.Mapping(Place("", 1, 1)))
    """What the files come to."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a command line says. `files` and `directory` are absolute; `variables` includes those of env files."""

    files: tuple[str, ...]
    directory: str
    variables: Mapping[str, str]
    read: Callable[[str], str]
    name: str | None = None
    show: Callable[[str], str] = field(default=lambda path: path)
    """How a file is called in messages."""


class _Loader:
    """Reads files into trees, each once."""

    def __init__(self, given: Given, troubles: Troubles) -> None:
        self.given, self._troubles = given, troubles
        self.name = ""
        """The project's, once it is known."""
        self._trees: dict[str, nodes.Mapping] = {}
        self.paths: dict[str, str] = {}
        """Absolute path by the name in messages."""
        self.unset: dict[str, None] = {}

    def load(self, path: str) -> nodes.Mapping:
        """A file's tree with its variables put in. Raises Refused."""
        if path not in self._trees:
            if len(self._trees) >= MOST_FILES:
                raise Refused(f"there are more than {MOST_FILES} files")
            shown = self.given.show(path)
            self.paths[shown] = path
            try:
                text = self.given.read(path)
            except OSError as error:
                raise Refused(f"{shown} cannot be read: {error.strerror}", hint="name the file with -f") from None
            except UnicodeDecodeError as error:
                raise Refused(f"{shown} is not text (UTF-8): {error.reason} at byte {error.start}") from None
            tree = nodes.parse(text, shown, self._troubles)
            expanded = interpolate(
                tree, self.given.variables, self._troubles, lambda name: self.unset.update({name: None})
            )
            assert isinstance(expanded, nodes.Mapping)
            self._trees[path] = expanded
        return self._trees[path]

    def base_of(self, place: Place) -> str:
        """The directory from which paths in a file count: the project's, and of an extended file its own."""
        path = self.paths.get(place.file, place.file)
        return self.given.directory if path in self.given.files else os.path.dirname(path)  # noqa: PTH120

    def absolute(self, path: str, reader: Reader) -> str:
        """A path of the host as it was written, made absolute."""
        return self._join(path, reader.place)

    def extended(self, path: str, place: Place) -> nodes.Mapping:
        """A file that a service extends one of."""
        return self.load(self._join(path, place))

    def _join(self, path: str, place: Place) -> str:
        if path == "~" or path.startswith("~/"):
            path = self.given.variables.get("HOME", "~") + path[1:]
        return os.path.normpath(os.path.join(self.base_of(place), path))  # noqa: PTH118


def load(given: Given) -> Project:
    """The project. Raises Refused with every problem, each with file, line and column."""
    troubles = Troubles()
    loader = _Loader(given, troubles)
    tree: nodes.Mapping | None = None
    for path in given.files:
        own = merging.extend(loader.load(path), loader.extended, troubles)
        merged = merging.merge(tree, own) if tree else own
        assert isinstance(merged, nodes.Mapping)
        tree = merged
    if tree is None:
        raise Refused("no compose file was given", hint="name one with -f")
    whole = merging.without_reset(tree)
    project = _read(Reader(whole, "", troubles), loader)
    troubles.check()
    return project


def project_name(given: Given, reader: Reader | None) -> str:
    """-p, then the file's name, then the directory's; small letters, digits, - and _."""
    name = given.name or (reader.text() if reader else None)
    if not name:
        base = os.path.basename(given.directory).lower()  # noqa: PTH119
        name = re.sub(r"[^a-z0-9_-]", "", base).lstrip("_-") or "default"
    if not _NAME.fullmatch(name):
        raise Refused(
            f"the project's name {name!r} is not small letters, digits, - and _, the first a letter or a digit",
            hint="give another one with -p",
        )
    return name


def _read(root: Reader, loader: _Loader) -> Project:
    fields = root.fields("top")
    name = loader.name = project_name(loader.given, fields.get("name"))
    networks = _networks(name, fields.get("networks"))
    volumes = _volumes(name, fields.get("volumes"))
    configs = _sources(fields.get("configs"), "config", loader)
    secrets = _sources(fields.get("secrets"), "secret", loader)
    around = Surroundings(
        variables=loader.given.variables,
        absolute=loader.absolute,
        read=loader.given.read,
        networks=frozenset(networks),
        configs=frozenset(configs),
        secrets=frozenset(secrets),
    )
    services: dict[str, Service] = {}
    for key, reader, place in fields["services"].entries() if "services" in fields else ():
        if not _SERVICE.fullmatch(key):
            root.troubles.add(place, reader.path, f"{key!r} is not letters, digits, . _ and -")
            continue
        service = services[key] = read_service(key, reader, around)
        longest = service.container_name or f"{name}-{key}-{service.replicas}"
        if len(longest) > MOST_NAME:
            root.troubles.add(place, reader.path, f"an instance would be called {longest}, of more than {MOST_NAME}")
        _judge_mounts(service, volumes)
    if "services" in fields:
        _judge_order(services, fields["services"])
    assert isinstance(root.node, nodes.Mapping)
    return Project(name, services, networks, volumes, configs, secrets, tuple(loader.unset), root.node)


def _judge_mounts(service: Service, volumes: dict[str, VolumeUse]) -> None:
    targets: set[str] = set()
    for mount in service.mounts:
        if mount.kind == "volume" and mount.source not in volumes:
            mount.said.wrong(f"the volume {mount.source} is not there", f"add it below volumes: {mount.source}:")
        if mount.target in targets:
            mount.said.wrong(f"{mount.target} is mounted twice")
        targets.add(mount.target)


def _judge_order(services: dict[str, Service], reader: Reader) -> None:
    """Dependencies that are not there, that cannot come true, or that go in a circle."""
    readers = {key: each for key, each, _ in reader.entries()}
    for name, service in services.items():
        for other, how in service.depends.items():
            found = services.get(other)
            if found is None:
                if how.required:
                    readers[name].wrong(f"depends on the service {other}, which is not there")
            elif how.condition == "service_healthy" and "health" not in found.request:
                readers[name].wrong(f"waits for {other} to be healthy, and that has no healthcheck")
    try:
        order(services)
    except ValueError as error:
        reader.wrong(str(error))


def order(services: Mapping[str, Service]) -> list[str]:
    """The services, each after those that it depends on. Raises ValueError where they go in a circle."""
    done: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(
                f"services depend on one another in a circle: {' -> '.join((*path[path.index(name) :], name))}"
            )
        if name not in done:
            for other in services[name].depends:
                if other in services:
                    visit(other, (*path, name))
            done.append(name)

    for name in services:
        visit(name, ())
    return done


def chosen(
    project: Project, names: tuple[str, ...], profiles: tuple[str, ...], *, dependencies: bool = True
) -> list[str]:
    """The services that a command is about, in order: those of no profile, of these profiles, or named, with what they
    depend on. Raises Refused.
    """
    services = project.services
    if unknown := [name for name in names if name not in services]:
        raise Refused(f"no such service: {', '.join(unknown)}", hint=f"there are {', '.join(services)}")
    if names:
        wanted = list(names)
    else:
        wanted = [
            name
            for name, service in services.items()
            if not service.profiles or "*" in profiles or set(service.profiles) & set(profiles)
        ]
    pending = list(wanted) if dependencies else []
    while pending:
        name = pending.pop()
        for other, how in services[name].depends.items():
            if other in services and other not in wanted and how.required:
                if (of := services[other].profiles) and not names and not set(of) & set(profiles):
                    raise Refused(
                        f"{name} depends on {other}, whose profile is not asked for", hint=f"--profile {of[0]}"
                    )
                wanted.append(other)
                pending.append(other)
    return [name for name in order(services) if name in wanted]


# --- what services share


def _networks(project: str, reader: Reader | None) -> dict[str, NetworkUse]:
    found = {"default": NetworkUse(f"{project}_default")}
    for key, each, _ in reader.entries() if reader else ():
        fields = each.fields("network")
        name, external = _named(f"{project}_{key}", fields, key)
        if "driver" in fields:
            fields["driver"].only_word(("bridge", "default"), "every network is a bridge")
        if "internal" in fields:
            fields["internal"].only(False, "the host's firewall says who may go out")
        for flag in ("attachable", "enable_ipv4", "enable_ipv6"):
            if flag in fields:
                fields[flag].only(True, "every network is so")
        subnets = _subnets(fields["ipam"]) if "ipam" in fields else {}
        found[key] = NetworkUse(name, external, **subnets)
    return found


def _subnets(reader: Reader) -> dict[str, str]:
    fields = reader.fields("ipam")
    found: dict[str, str] = {}
    if "driver" in fields:
        fields["driver"].only_word(("default",), "addresses are given by Bulkhead")
    for each in fields["config"].items() if "config" in fields else ():
        inner = each.fields("ipam_config")
        text = inner["subnet"].text() if "subnet" in inner else None
        if text:
            kind = "subnet6" if ":" in text else "subnet4"
            if kind in found:
                each.wrong("there is one subnet for each IP version")
            found[kind] = text
    return found


def _volumes(project: str, reader: Reader | None) -> dict[str, VolumeUse]:
    found = {}
    for key, each, _ in reader.entries() if reader else ():
        fields = each.fields("volume")
        name, external = _named(f"{project}_{key}", fields, key)
        if "driver" in fields:
            fields["driver"].only_word(("local",), "every volume is a disk of this host")
        size = None
        for option, value, _ in fields["driver_opts"].entries() if "driver_opts" in fields else ():
            if option == "size":
                size = value.parsed(parse_size)
            else:
                value.wrong("is not honoured: a volume is an ext4 disk with a size")
        found[key] = VolumeUse(name, external, size)
    return found


def _named(usual: str, fields: dict[str, Reader], key: str) -> tuple[str, bool]:
    """A network's or volume's whole name, and whether it is somebody else's."""
    name = fields["name"].text() if "name" in fields else None
    external = False
    if "external" in fields:
        reader = fields["external"]
        if reader.is_mapping:
            external = True
            for option, value, _ in reader.entries():
                if option == "name":
                    name = name or value.text()
                else:
                    value.wrong("this key is not known")
        else:
            external = bool(reader.truth())
        if others := [other for other in fields if other not in ("name", "external")] if external else []:
            fields[others[0]].wrong("is said of what is external, and not made here")
    return name or (key if external else usual), external


def _sources(reader: Reader | None, kind: str, loader: _Loader) -> dict[str, Source]:
    found = {}
    for key, each, _ in reader.entries() if reader else ():
        fields = each.fields(kind)
        whole, external = _named(f"{loader.name}_{key}", fields, key) if kind == "secret" else ("", False)
        if kind == "secret" and not _SECRET.fullmatch(whole):
            each.wrong(
                f"{whole!r} is no secret's name", "letters, digits, _ . and -, at most 63: give it one with name"
            )
        if external:
            found[key] = Source("external", "", whole)
            continue
        ways = [way for way in ("file", "environment", "content") if way in fields]
        if len(ways) != 1:
            each.wrong(f"one of file, environment{' and content' if kind == 'config' else ''} says what is in it")
            continue
        value = fields[ways[0]].text() or ""
        if ways[0] == "file":
            value = loader.absolute(value, fields["file"])
        elif ways[0] == "environment" and value not in loader.given.variables:
            fields["environment"].wrong(f"the variable {value} is not set")
        text = loader.given.variables.get(value, "") if ways[0] == "environment" else ""
        found[key] = Source(ways[0], value, whole, text)
    return found


def variables(environment: Mapping[str, str], files: list[tuple[str, str]]) -> dict[str, str]:
    """The environment, with what env files (name and text) set beneath it. Raises Refused."""
    found: dict[str, str] = {}
    for name, text in files:
        try:
            parsed = dotenv.parse(text, environment)
        except ValueError as error:
            raise Refused(f"{name}: {error}") from None
        found |= {key: value for key, value in parsed.items() if value is not None}
    return {**found, **environment}
