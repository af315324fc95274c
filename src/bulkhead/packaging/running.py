"""What built packages use when they run: installed in a room with what they declare, tested, and watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from debian.deb822 import Deb822

from bulkhead.events import Progress, Step
from bulkhead.packaging.archive import Archive
from bulkhead.packaging.graph import Graph, groups
from bulkhead.packaging.installing import BUILDER, install, make_builder, snapshot
from bulkhead.packaging.judge import Judge, Steps, Verdict
from bulkhead.packaging.missing import Missing, look_up, missing
from bulkhead.packaging.room import Room

PROGRAMS = ("/usr/bin/", "/bin/", "/usr/sbin/", "/sbin/", "/usr/games/")
UNFIT = {
    *("breaks-testbed", "isolation-container", "isolation-machine", "needs-internet", "needs-reboot", "needs-sudo"),
    *("flaky", "build-needed"),
}
"""Restrictions of tests that are left to autopkgtest."""
SECONDS = "20"
SKIPPED = 77
"""What a test ends with that cannot be run here."""
_TREE, _TMP = "/tests/source", "/tests/tmp"
_RUN = 'cd "$1" && export AUTOPKGTEST_TMP="$2" && shift 2 && exec timeout "$@"'


@dataclass(frozen=True, slots=True)
class Ran:
    """What one binary package was seen to use."""

    package: str
    exercised: bool
    """Whether any of its programs ran: else nothing can be said."""
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Test:
    """One of debian/tests/control that can be run here."""

    name: str
    command: str
    root: bool
    depends: tuple[str, ...]
    """Beside the packages that were built."""


@dataclass(frozen=True, slots=True)
class Runs:
    """How it went; `failed`: tests that did, with their exit codes."""

    packages: tuple[Ran, ...] = ()
    missing: tuple[Missing, ...] = ()
    failed: tuple[tuple[str, int], ...] = ()
    tests: int = 0
    programs: int = 0


def run(room: Room, archive: Archive, debs: Sequence[Path], tree: Path | None, *, progress: Progress) -> Runs:
    """Install the packages, run their tests and each of their programs once; what each has used."""
    before = Graph.parse(room.read("/var/lib/dpkg/status"))
    chosen = tests(tree) if tree else []
    status = room.read("/var/lib/dpkg/status")
    progress(Step("fetching what the packages declare to need"))
    extra = [name for test in chosen for name in test.depends]
    needed = archive.packages(status, [*debs, *extra])
    install(room, list(dict.fromkeys([*needed, *debs])))
    graph, owned = snapshot(room)
    names = {path.name.partition("_")[0] for path in debs}
    programs = sorted(path for path, package in owned.items() if package in names and _is_program(path))
    _prepare(room, tree)
    progress(Step("running tests and programs", 0, len(chosen) + len(programs)))
    failed, log = list[tuple[str, int]](), bytearray()
    with room.watched() as steps:
        for test in chosen:
            user = "root" if test.root else BUILDER
            code, said = room.run("sh", "-c", _RUN, "sh", _TREE, _TMP, "600", "sh", "-c", test.command, user=user)
            log += said
            if code not in (0, SKIPPED):
                failed.append((test.name, code))
        for program in programs:
            argv = ("sh", "-c", _RUN, "sh", "/", _TMP, SECONDS, program, "--version")
            log += room.run(*argv, user=BUILDER)[1]
    lacking = look_up(archive, missing(log.decode(errors="replace")))
    judged = _judged(names, before, graph, owned, steps)
    return Runs(tuple(judged), lacking, tuple(failed), len(chosen), len(programs))


def _judged(names: set[str], before: Graph, graph: Graph, owned: Mapping[str, str], steps: Steps) -> list[Ran]:
    found = []
    for name in sorted(names & {*graph.packages}):
        package = graph.packages[name]
        judge = Judge(
            graph=graph,
            owners=owned,
            declared=frozenset(each for group in package.depends for each in graph.satisfying(group)),
            free=before.free() & frozenset(graph.packages),
            steps=steps.steps,
            subjects=frozenset({name}),
        )
        exercised = any(judge.speakers(number) == [] for number in steps.steps)
        found.append(Ran(name, exercised, judge.verdict() if exercised else Verdict((), (), ())))
    return found


def tests(tree: Path) -> list[Test]:
    """The tests that a source brings and that need nothing which a room does not have."""
    control = tree / "debian" / "tests" / "control"
    if not control.is_file():
        return []
    found: list[Test] = []
    for paragraph in Deb822.iter_paragraphs(control.read_text(errors="replace").splitlines(keepends=True)):
        restrictions = {*str(paragraph.get("Restrictions", "")).replace(",", " ").split()}
        depends = str(paragraph.get("Depends", "@"))
        if restrictions & UNFIT or "@builddeps@" in depends:
            continue
        relation = ", ".join(part for part in map(str.strip, depends.split(",")) if part and not part.startswith("@"))
        needs = tuple(group[0] for group in groups(relation))
        place = str(paragraph.get("Tests-Directory", "debian/tests"))
        names = str(paragraph.get("Tests", "")).replace(",", " ").split()
        commands = [(name, f"./{place}/{name}") for name in names]
        if "Test-Command" in paragraph:
            commands.append((f"command{len(found)}", str(paragraph["Test-Command"])))
        root = "needs-root" in restrictions
        found += [Test(name, command, root, needs) for name, command in commands]
    return found


def _is_program(path: str) -> bool:
    return path.startswith(PROGRAMS)


def _prepare(room: Room, tree: Path | None) -> None:
    make_builder(room)
    room.must("mkdir", "-p", _TREE, _TMP, what="making directories")
    if tree:
        room.put([tree], "/tests/from")
        room.must("sh", "-c", f"rmdir {_TREE} && mv /tests/from/* {_TREE}", what="placing the tests")
    room.must("chown", "-R", f"{BUILDER}:", "/tests", what="handing the tests over")
