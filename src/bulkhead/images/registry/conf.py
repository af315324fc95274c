"""registries.conf of containers/image (version 2): short names, mirrors, what is insecure or blocked.

containers-registries.conf(5) is the reference; the files are the host administrator's and are trusted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bulkhead.errors import NotFound, Problem, Refused
from bulkhead.images import reference
from bulkhead.images.registry.proxies import Proxies
from bulkhead.images.registry.wire import Place

HUB = "docker.io"
_HUBS = (HUB, "index.docker.io", "registry-1.docker.io")
HUB_HOST = "registry-1.docker.io"
DOCKER_CERTIFICATES = Path("/etc/docker/certs.d")
_SEE = "see containers-registries.conf(5)"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Mirror(_Table):
    """Another place for the same images."""

    location: str = ""
    insecure: bool = False
    use: Literal["all", "digest-only", "tag-only"] = Field(default="all", alias="pull-from-mirror")


class Registry(_Table):
    """What is to be known of images whose names begin with `prefix`."""

    prefix: str = ""
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    digest_only: bool = Field(default=False, alias="mirror-by-digest-only")
    mirrors: tuple[Mirror, ...] = Field(default=(), alias="mirror")

    @property
    def beginning(self) -> str:
        """What names begin with."""
        return self.prefix or self.location


class _File(_Table):
    search: tuple[str, ...] | None = Field(default=None, alias="unqualified-search-registries")
    mode: Literal["enforcing", "permissive", "disabled", ""] = Field(default="", alias="short-name-mode")
    registries: tuple[Registry, ...] = Field(default=(), alias="registry")
    aliases: dict[str, str] = {}
    helpers: tuple[str, ...] = Field(default=(), alias="credential-helpers")


@dataclass(frozen=True, slots=True)
class Source:
    """One place that an image may come from, or go to."""

    place: Place
    path: str
    reference: str
    """A tag or a digest."""
    name: str
    """What the image is called, in full: host/path:tag."""
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class Registries:
    """All of registries.conf and its drop-ins."""

    directory: Path
    search: tuple[str, ...] = ()
    mode: str = ""
    registries: dict[str, Registry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    proxies: Proxies = field(default=Proxies())
    outward: bool = False
    """Whether whoever asks may reach what is at public addresses, or named here, and nothing else."""

    def full_names(self, text: str) -> list[str]:
        """What a name that a user wrote may mean, in full, the likeliest first; empty where nothing says.

        Raises Refused for what is no name.
        """
        reference.parse(text)
        name, tail = _cut(text)
        if is_full(name):
            return [f"{_hub(name)}{tail or ':latest'}"]
        if alias := self.aliases.get(name):
            return [f"{_hub(alias)}{tail or ':latest'}"]
        if self.mode == "enforcing" and len(self.search) > 1:
            names = ", ".join(f"{host}/{name}" for host in self.search)
            raise Refused(f"{text!r} is a short name of several registries' images", hint=f"say which: {names}")
        return [f"{_hub(f'{host}/{name}')}{tail or ':latest'}" for host in self.search]

    def sources(self, full: str, *, insecure: bool | None = None, push: bool = False) -> list[Source]:
        """Where an image of this full name is: mirrors first (for pulls), the registry itself last.

        `insecure` replaces what the configuration says. Raises Refused where the registry is blocked.
        """
        name, tail = _cut(full)
        found = self._registry(name + tail)
        known = tail.lstrip(":@") if tail else "latest"
        if found and found.blocked:
            raise Refused(f"registry {found.beginning} is blocked by {self.directory}/registries.conf")
        places: list[tuple[str, bool, bool]] = []
        digest = tail.startswith("@")
        for mirror in found.mirrors if found and not push else ():
            use = "digest-only" if found and found.digest_only else mirror.use
            if use == "all" or (use == "digest-only") == digest:
                places.append((mirror.location, mirror.insecure, True))
        places.append((found.location if found else "", found.insecure if found else False, False))
        result = []
        for location, weak, is_mirror in places:
            moved = location + name[len(found.beginning) :] if found and location and _begins(found, name) else name
            host, _, path = moved.partition("/")
            if not path:
                raise Refused(f"image {full!r} has no repository in its registry {host}", hint=_SEE)
            place = self.place(host, insecure=weak if insecure is None else insecure)
            result.append(Source(place, path, known, full, is_mirror))
        return result

    def place(self, host: str, *, insecure: bool | None = None) -> Place:
        """A registry by its host."""
        if insecure is None:
            found = self._registry(host)
            insecure = bool(found and found.insecure)
        host = HUB_HOST if host in _HUBS else host
        directories = (self.directory / "certs.d" / host, DOCKER_CERTIFICATES / host)
        return Place(
            host, insecure, tuple(filter(Path.is_dir, directories)), self._trusted(), self.proxies, self.outward
        )

    def _registry(self, name: str) -> Registry | None:
        """The entry with the longest prefix of a name."""
        fitting = [entry for entry in self.registries.values() if _matches(entry.beginning, name)]
        return max(fitting, key=lambda entry: len(entry.beginning), default=None)

    def _trusted(self) -> frozenset[tuple[str, int]]:
        """Every host and port that is named."""
        return frozenset(place for entry in self.registries.values() for place in _hosts(entry))


def load(directory: Path, proxies: Proxies | None = None, *, outward: bool = False) -> Registries:
    """Read registries.conf and registries.conf.d/*.conf. Raises Refused with all that is wrong with a file.

    `outward`: for a tenant, who may reach registries at public addresses and those that are named there.
    """
    found = Registries(directory, proxies=proxies or Proxies(), outward=outward)
    files = [directory / "registries.conf", *sorted((directory / "registries.conf.d").glob("*.conf"))]
    for file in files:
        if not file.exists():
            continue
        said = _read(file)
        entries = {entry.beginning: entry for entry in said.registries}
        found = replace(
            found,
            search=found.search if said.search is None else said.search,
            mode=said.mode or found.mode,
            registries={**found.registries, **entries},
            aliases={**found.aliases, **{name: target for name, target in said.aliases.items() if target}},
        )
    return found


def _read(file: Path) -> _File:
    try:
        said = tomllib.loads(file.read_text())
        if isinstance(said.get("registries"), dict):
            raise Refused(f"{file} is of version 1, which is no longer read", hint=_SEE)
        result = _File.model_validate(said)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{file} cannot be read: {error}", hint=_SEE) from error
    except ValidationError as error:
        raise Refused(
            Problem(f"{file}: {_where(item['loc'])}: {item['msg']}", _SEE) for item in error.errors()
        ) from error
    nameless = [entry for entry in result.registries if not entry.beginning]
    if nameless:
        raise Refused(f"{file}: a [[registry]] has neither prefix nor location", hint=_SEE)
    return result


def _where(location: Sequence[Any]) -> str:
    return ".".join(map(str, location))


def is_full(name: str) -> bool:
    """Whether a name begins with a registry's host."""
    host, slash, _ = name.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost")


def nowhere(text: str, directory: Path) -> NotFound:
    """What is told of a short name that nothing resolves."""
    return NotFound(
        f"no image {text!r}, and no registry is known to look for that name in",
        hint=f"name its registry, as in {HUB}/library/{_cut(text)[0]}, or set unqualified-search-registries in "
        f"{directory}/registries.conf",
    )


def _cut(text: str) -> tuple[str, str]:
    """The name, and its ":tag" or "@digest"; a tag beside a digest is dropped."""
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    bare, colon, tag = last.partition(":")
    return head + slash + bare, at + digest if at else colon + tag


def _hub(name: str) -> str:
    """The one full form of Docker Hub's names."""
    host, _, path = name.partition("/")
    if host not in _HUBS:
        return name
    return f"{HUB}/{path}" if "/" in path else f"{HUB}/library/{path}"


def _matches(prefix: str, name: str) -> bool:
    if prefix.startswith("*."):
        return name.partition("/")[0].partition(":")[0].endswith(prefix[1:])
    return name == prefix or (name.startswith(prefix) and name[len(prefix)] in "/:@")


def _begins(entry: Registry, name: str) -> bool:
    return not entry.beginning.startswith("*.") and name.startswith(entry.beginning)


def _hosts(entry: Registry) -> Iterator[tuple[str, int]]:
    for location in (entry.beginning, entry.location, *(mirror.location for mirror in entry.mirrors)):
        host, _, port = location.partition("/")[0].partition(":")
        if not host or host.startswith("*"):
            continue
        yield from ((host, int(port)),) if port.isdigit() else ((host, 443), (host, 80))
