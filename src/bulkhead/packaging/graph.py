"""The packages of a room, as its dpkg database knows them: who depends on whom, and whose each file is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from debian.deb822 import Packages, PkgRelation

Group = tuple[str, ...]
"""Alternatives, any of which satisfies a dependency: names of packages, real or virtual."""
BUILD_ESSENTIAL = "build-essential"
_MERGED = re.compile(r"^/usr(/(?:bin|sbin|lib|lib32|lib64|libx32|libo32)/)")
_COMPILED = re.compile(r"^(.*)/__pycache__/([^/]+?)\.cpython-[0-9]+(?:\.opt-[12])?\.pyc$")


@dataclass(frozen=True, slots=True)
class Package:
    """One that is installed."""

    name: str
    depends: tuple[Group, ...]
    """Depends and Pre-Depends."""
    provides: frozenset[str]
    essential: bool
    optional: frozenset[str] = frozenset()
    """Recommends and Suggests."""


class Graph:
    """All of them."""

    def __init__(self, packages: Iterable[Package]) -> None:
        self.packages: Mapping[str, Package] = {package.name: package for package in packages}
        self._closures: dict[str, frozenset[str]] = {}

    @classmethod
    def parse(cls, status: str) -> Graph:
        """From the text of /var/lib/dpkg/status."""
        found = []
        for paragraph in Packages.iter_paragraphs(status.splitlines(keepends=True), use_apt_pkg=False):
            if not str(paragraph.get("Status", "")).endswith(" installed"):
                continue
            depends = [groups(str(paragraph.get(field, ""))) for field in ("Depends", "Pre-Depends")]
            provided = {name for group in groups(str(paragraph.get("Provides", ""))) for name in group}
            found.append(
                Package(
                    name=str(paragraph["Package"]),
                    depends=tuple(group for each in depends for group in each),
                    provides=frozenset(provided),
                    essential=str(paragraph.get("Essential", "no")) == "yes",
                    optional=frozenset(
                        name
                        for field in ("Recommends", "Suggests", "Enhances")
                        for group in groups(str(paragraph.get(field, "")))
                        for name in group
                    ),
                )
            )
        return cls(found)

    @cached_property
    def _providers(self) -> Mapping[str, frozenset[str]]:
        made: dict[str, set[str]] = {}
        for package in self.packages.values():
            for name in (package.name, *package.provides):
                made.setdefault(name, set()).add(package.name)
        return {name: frozenset(names) for name, names in made.items()}

    def satisfying(self, group: Group) -> frozenset[str]:
        """The installed packages that satisfy a dependency."""
        return frozenset(name for wanted in group for name in self._providers.get(wanted, ()))

    def direct(self, name: str) -> frozenset[str]:
        """What is installed of what a package depends on."""
        package = self.packages.get(name)
        groups = package.depends if package else ()
        return frozenset(found for group in groups for found in self.satisfying(group))

    def optional(self, name: str) -> frozenset[str]:
        """What a package can use where it is there."""
        package = self.packages.get(name)
        return package.optional if package else frozenset()

    def closure(self, name: str) -> frozenset[str]:
        """A package with everything that it needs."""
        if name not in self._closures:
            found, pending = {name}, [name]
            while pending:
                for needed in self.direct(pending.pop()) - found:
                    found.add(needed)
                    pending.append(needed)
            self._closures[name] = frozenset(found)
        return self._closures[name]

    def free(self, extra: Iterable[str] = ()) -> frozenset[str]:
        """What nobody needs to declare: essential packages, `extra`, and whatever these need."""
        tops = [package.name for package in self.packages.values() if package.essential]
        wanted = [name for name in (*tops, *extra) if name in self.packages]
        return frozenset(found for name in wanted for found in self.closure(name))


def groups(relation: str, architecture: str = "") -> list[Group]:
    """The groups of a relation field that count for an architecture and no build profile. Raises ValueError."""
    if not relation.strip():
        return []
    found: list[Group] = []
    for alternatives in PkgRelation.parse_relations(" ".join(relation.split())):
        names = tuple(
            str(each["name"])
            for each in alternatives
            if _for_architecture(each.get("arch"), architecture) and _without_profiles(each.get("restrictions"))
        )
        if names:
            found.append(names)
    return found


def _for_architecture(restrictions: object, architecture: str) -> bool:
    if not restrictions or not architecture:
        return True
    assert isinstance(restrictions, list)
    named = {(bool(each.enabled), str(each.arch)) for each in restrictions}
    here = {architecture, "any", "linux-any", f"any-{architecture}"}
    if any(enabled for enabled, _ in named):
        return any(enabled and name in here for enabled, name in named)
    return not any(name in here for _, name in named)


def _without_profiles(formula: object) -> bool:
    """Whether a restriction formula (any of several lists of terms) holds where no profile is active."""
    if not formula:
        return True
    assert isinstance(formula, list)
    return any(all(not term.enabled for term in terms) for terms in formula)


def canonical(path: str) -> str:
    """One name for what a merged /usr shows twice; for compiled Python that of its source."""
    path = _MERGED.sub(r"\1", path)
    return _COMPILED.sub(r"\1/\2.py", path)


def owners(lists: Mapping[str, str]) -> dict[str, str]:
    """Package by canonical path, from the texts of the `*.list` files by the names of their packages."""
    return {
        canonical(line): package
        for package, text in sorted(lists.items())
        for line in text.splitlines()
        if line.startswith("/") and line != "/."
    }
