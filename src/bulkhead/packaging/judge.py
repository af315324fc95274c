"""From what was opened to what is undeclared and what is declared for nothing. Pure.

Every step (an execution of a program) has one for whom it acts: the *source* that is judged, or a package whose tool it
is. A file of a package that nobody needs to declare says nothing. Any other must be declared, or come with what is:
of the tool that opens it, or of a declared package whose files the same step opens (a header that includes another).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from bulkhead.packaging.graph import Graph, canonical

CARRIERS = frozenset({"bash", "coreutils", "dash", "debianutils", "findutils", "util-linux"})
"""Their programs act for whoever executes them: sh, env, xargs, setsid."""
INSPECTORS = frozenset({"dpkg", "dpkg-dev", "fakeroot", "libc-bin", "libdpkg-perl", "libfakeroot"})
"""Their programs look at whatever there is: dpkg-shlibdeps, ldconfig."""
SCANNED = (
    *("/etc/", "/var/", "/lib/locale/", "/share/locale/", "/usr/share/locale/", "/usr/share/i18n/"),
    *("/usr/share/aclocal/", "/usr/share/zoneinfo/", "/usr/share/mime/", "/usr/share/misc/", "/usr/share/perl/"),
)
"""Where tools open all that they find."""
MOST_FILES = 5
"""Files that are told of a package."""


@dataclass(slots=True)
class Step:
    """One execution of one program."""

    by: int
    """The step that has executed it; 0: from outside."""
    program: str
    files: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Undeclared:
    """A package that was used and is declared nowhere."""

    package: str
    files: tuple[str, ...]
    by: tuple[str, ...]
    """Programs that opened or executed them."""
    through: tuple[str, ...]
    """The declared packages that have brought it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found; `used`: the declared packages of which something was opened."""

    undeclared: tuple[Undeclared, ...]
    unused: tuple[str, ...]
    used: tuple[str, ...]


@dataclass(slots=True)
class Steps:
    """What a watch has told."""

    steps: dict[int, Step] = field(default_factory=dict)

    def take(self, line: Mapping[str, object]) -> None:
        """One line of it."""
        number = int(str(line["step"]))
        if "program" in line:
            self.steps[number] = Step(int(str(line["by"])), str(line["program"]))
        elif number in self.steps:
            self.steps[number].files.add(str(line["path"]))


@dataclass
class Judge:
    """Judges what a source, or the packages `subjects` made of it, have used."""

    graph: Graph
    owners: Mapping[str, str]
    """Package by canonical path."""
    declared: frozenset[str]
    """Installed packages that satisfy what is declared."""
    free: frozenset[str]
    steps: Mapping[int, Step]
    subjects: frozenset[str] = frozenset()
    """Packages that are judged; none: the source, whose files belong to no package."""

    def verdict(self) -> Verdict:
        """Everything."""
        found: dict[str, dict[str, set[str]]] = {}
        for number, step in self.steps.items():
            for path in (*step.files, step.program):
                package = self._owner(path)
                if package and self._is_luck(number, step, path, package):
                    caller = self.steps.get(step.by) if path == step.program else step
                    entry = found.setdefault(package, {"files": set(), "by": set()})
                    entry["files"].add(path)
                    entry["by"].add(caller.program if caller else "outside")
        undeclared = [
            Undeclared(
                package=package,
                files=tuple(sorted(entry["files"])[:MOST_FILES]),
                by=tuple(sorted(entry["by"])[:MOST_FILES]),
                through=tuple(sorted(name for name in self.declared if package in self.graph.closure(name))),
            )
            for package, entry in sorted(found.items())
        ]
        used = sorted(name for name in self.declared if self._is_used(name))
        unused = sorted(self.declared - {*used} - self.free)
        return Verdict(tuple(undeclared), tuple(unused), tuple(used))

    def _owner(self, path: str) -> str | None:
        return self.owners.get(canonical(path))

    def _is_luck(self, number: int, step: Step, path: str, package: str) -> bool:
        """Whether the source has used a file of a package that is there by luck alone."""
        known = package in self.free or package in self.declared or package in self.subjects
        if known or path.startswith(SCANNED) or path.endswith(".pth"):
            return False
        executed = path == step.program
        asking = step.by if executed else number
        speakers = self.speakers(asking)
        if speakers is None or self._owner(self.steps[asking].program) in INSPECTORS:
            return False
        if any(package in self.graph.closure(speaker) for speaker in speakers):
            return False
        beside = set() if executed else {name for name in map(self._owner, step.files) if name}
        if any(package in self.graph.optional(name) for name in beside):
            return False
        # Names of libraries lead to the files of other packages: libz.so of zlib1g-dev is a link into zlib1g.
        brought = self.declared if ".so" in path.rpartition("/")[2] else self.declared & beside
        return not any(package in self.graph.closure(name) for name in brought)

    def speakers(self, number: int) -> list[str] | None:
        """The packages for which a step acts, itself first, then whoever has asked for it, up to the source; none: it
        acts for the source itself. None: it comes from outside, and nobody that is judged has asked for it."""
        found: list[str] = []
        step = self.steps.get(number)
        while step:
            package = self._owner(step.program)
            if self._is_judged(package):
                return found
            if package and package not in CARRIERS:
                found.append(package)
            step = self.steps.get(step.by)
        return None if self.subjects or not found else found

    def _is_judged(self, package: str | None) -> bool:
        """Whether a program of this package does what the source wants: the source's own, its make, its compiler."""
        if self.subjects:
            return package in self.subjects
        return package is None or (package in self.free and package not in CARRIERS | INSPECTORS)

    @cached_property
    def _opened(self) -> frozenset[str]:
        """Packages of which something was opened."""
        paths = (path for step in self.steps.values() for path in (*step.files, step.program))
        found = (self._owner(path) for path in paths if not path.startswith(SCANNED))
        return frozenset(package for package in found if package)

    def _is_used(self, name: str) -> bool:
        """Whether something of a declared package was opened, or of what it is a mere name for."""
        if name in self._opened:
            return True
        return bool((self.graph.direct(name) - self.free - self.declared) & self._opened)
