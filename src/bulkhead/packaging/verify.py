"""Whether a source package declares what it uses: built and tested in rooms that have what it declares and no more."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from debian.deb822 import Deb822

from bulkhead.client import Client
from bulkhead.errors import AgentError, Problem, Refused
from bulkhead.events import Progress, Step
from bulkhead.packaging import running
from bulkhead.packaging.archive import Archive
from bulkhead.packaging.graph import BUILD_ESSENTIAL, Group, groups
from bulkhead.packaging.installing import BUILDER, install, make_builder, snapshot
from bulkhead.packaging.judge import Judge, Verdict
from bulkhead.packaging.missing import Missing, look_up, missing
from bulkhead.packaging.room import Output, Room, opened

BUILD, TREE = "/build", "/build/source"
TOOLS = ("fakeroot",)
"""What a builder brings along, beside build-essential: sbuild does too."""
BUILD_ENV = {"HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "DEB_BUILD_OPTIONS": "parallel=2"}
FIELDS = ("Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be verified, and in what rooms."""

    source: str
    """A directory, a .dsc file, or the name of a source package."""
    room: dict[str, object]
    """The request that a room is opened with."""
    cache: Path
    run: bool = True
    """Whether what was built is tested too."""


@dataclass(frozen=True, slots=True)
class Built:
    """How the build went."""

    ok: bool
    verdict: Verdict
    missing: tuple[Missing, ...]
    log: str
    """Its end."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found."""

    source: str
    version: str
    build: Built
    run: running.Runs

    @property
    def clean(self) -> bool:
        """Whether there is nothing to be said."""
        verdicts = [self.build.verdict, *(ran.verdict for ran in self.run.packages)]
        worked = self.build.ok and not (self.run.missing or self.run.failed)
        return worked and not any(verdict.undeclared or verdict.unused for verdict in verdicts)


def verify(client: Client, order: Order, *, progress: Progress, output: Output) -> Report:
    """Build, watch, install, run, watch. Raises Refused, HostError, AgentError; what is found is no error."""
    with ExitStack() as always:
        work = Path(always.enter_context(tempfile.TemporaryDirectory(prefix="bulkhead-verify-")))
        progress(Step("opening a room to build in"))
        room = always.enter_context(opened(client, order.room))
        archive = _archive(room, order.cache)
        progress(Step("bringing the archive's lists up to date"))
        archive.update()
        source = _fetch(archive, order.source, work)
        control = control_of(source)
        job = _Job(room, archive, source, control, progress, output)
        built = job.build()
        debs = list(job.products(work / "debs")) if built.ok and order.run else []
    ran = running.Runs()
    if debs:
        progress(Step("opening a room to run it in"))
        with tempfile.TemporaryDirectory(prefix="bulkhead-verify-") as directory, opened(client, order.room) as room:
            place = Path(directory)
            paths = [_written(place / name, data) for name, data in debs]
            tree = source if source.is_dir() else None
            ran = running.run(room, _archive(room, order.cache), paths, tree, progress=progress)
    return Report(str(control["Source"]), str(control.get("Version", "")), built, ran)


def control_of(source: Path) -> Deb822:
    """The source's paragraph of debian/control, or a .dsc. Raises Refused."""
    path = source / "debian" / "control" if source.is_dir() else source
    if not path.is_file():
        raise Refused(f"{source} is no source package: it has no debian/control")
    paragraphs = Deb822.iter_paragraphs(path.read_text(errors="replace").splitlines(keepends=True))
    for paragraph in paragraphs:
        if "Source" in paragraph:
            return paragraph
    raise Refused(f"{path} names no source package", hint="its first paragraph begins with Source:")


def declared_groups(control: Deb822, architecture: str) -> list[Group]:
    """What a source declares to need for a build of everything."""
    problems, found = [], list[Group]()
    for field in FIELDS:
        try:
            found += groups(str(control.get(field, "")), architecture)
        except (ValueError, KeyError) as error:
            problems.append(Problem(f"{field} cannot be read: {error}"))
    if problems:
        raise Refused(problems)
    return found


@dataclass(slots=True)
class _Job:
    """One build."""

    room: Room
    archive: Archive
    source: Path
    control: Deb822
    progress: Progress
    output: Output

    def build(self) -> Built:
        """In a room with what is declared: what was used of it, and what not."""
        room = self.room
        self.progress(Step("fetching what it declares to need"))
        status = room.read("/var/lib/dpkg/status")
        debs = self.archive.build_dependencies(status, self.source, TOOLS)
        self.progress(Step("installing that", 0, len(debs), "packages"))
        install(room, list(dict.fromkeys(debs)))
        self._put_source()
        graph, owned = snapshot(room)
        self.progress(Step("building"))
        with room.watched() as steps:
            argv = ("dpkg-buildpackage", "-us", "-uc", "-b")
            code, said = room.run(*argv, user=BUILDER, workdir=TREE, env=BUILD_ENV, output=self.output)
        log = said.decode(errors="replace")
        architecture = room.must("dpkg", "--print-architecture", what="dpkg").decode().strip()
        wanted = declared_groups(self.control, architecture)
        judge = Judge(
            graph=graph,
            owners=owned,
            declared=frozenset(name for group in wanted for name in graph.satisfying(group)),
            free=graph.free((BUILD_ESSENTIAL, *TOOLS)),
            steps=steps.steps,
        )
        verdict = judge.verdict()
        if code:  # what came after the failure was not used yet
            verdict = replace(verdict, unused=())
        if code:
            self.progress(Step("looking up who has what was missing"))
        lacking = look_up(self.archive, missing(log)) if code else ()
        return Built(code == 0, verdict, lacking, "\n".join(log.splitlines()[-30:]))

    def products(self, into: Path) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the binary packages that were built, without debugging symbols."""
        del into
        for name, data in self.room.files(BUILD):
            if name.endswith(".deb") and "-dbgsym_" not in name:
                yield name, data

    def _put_source(self) -> None:
        room = self.room
        make_builder(room)
        if self.source.is_dir():
            room.put([self.source], BUILD)
            room.must("mv", f"{BUILD}/{self.source.name}", TREE, what="placing the source")
        else:
            room.put(sorted(self.source.parent.iterdir()), f"{BUILD}/dsc")
            argv = ("dpkg-source", "--no-check", "-x", f"{BUILD}/dsc/{self.source.name}", TREE)
            room.must(*argv, what="unpacking the source")
        room.must("chown", "-R", f"{BUILDER}:", BUILD, what="handing the source over")


def _archive(room: Room, cache: Path) -> Archive:
    release = dict(line.split("=", 1) for line in room.read("/etc/os-release").splitlines() if "=" in line)
    suite = release.get("VERSION_CODENAME", "").strip('"')
    code, said = room.run("dpkg", "--print-architecture")
    if code or not suite:
        raise Refused("the room is no Debian: it has no dpkg, or its /etc/os-release no VERSION_CODENAME")
    architecture = said.decode().strip()
    if not architecture.isalnum():
        raise AgentError(f"the room's dpkg calls its architecture {architecture[:40]!r}")
    return Archive(suite, architecture, cache / f"{suite}-{architecture}")


def _fetch(archive: Archive, source: str, work: Path) -> Path:
    path = Path(source)
    if path.is_dir():
        return path.resolve()
    place = work / "source"
    place.mkdir()
    if source.endswith(".dsc"):
        if not path.is_file():
            raise Refused(f"{source} does not exist", hint="check the path")
        files = [
            line.split()[2] for line in str(Deb822(path.read_text(errors="replace")).get("Files", "")).splitlines()[1:]
        ]
        for name in (path.name, *files):
            if "/" in name or not (path.parent / name).is_file():
                raise Refused(f"{source} names {name!r}, which is not beside it")
            (place / name).write_bytes((path.parent / name).read_bytes())
        return place / path.name
    return archive.source(source, place)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
