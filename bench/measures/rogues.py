"""A neighbour who takes all that it can get: what it costs a victim that serves HTTP, and what it gets of its plan."""

from __future__ import annotations

import json
import shutil
import tarfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from bench import timing
from bench.asking import Answers, Client
from bench.contest import Cast, Sizes, say
from bench.figures import Figure, Missing
from bench.peers.base import CommandLine
from bench.peers.bulkhead import Bulkhead
from bench.peers.podman import Podman
from bench.suspects import MIB, Inner, Ours, Sold, Suspect, Theirs, shares
from bench.timing import Unusable
from tests.harness import rogues
from tests.harness.images import rootfs_tar
from tests.harness.rogues import ROGUES, Rogue

IMAGE = "bench-rogue"
SERVE = ("nginx", "-g", "daemon off;")
PORT = 8080
SLOWER, MORE = 1.5, 1.02
"""How much slower the victim's p99 may become, and how much of its plan a rogue may get."""
SOLD = Sold(96 * MIB, 1.0, 256 * MIB, 500, 32 * MIB, 20_000_000, 256)
VICTIM = Sold(256 * MIB, 0.5, 512 * MIB, 500, 32 * MIB, 100_000_000, 256)
QUIET_SECONDS, SETTLE_SECONDS, DURING_SECONDS = 5.0, 2.0, 10.0
SHARED = frozenset({"ptys", "watchers", "sockets", "packets", "storm", "spoof", "claims"})
"""What a chroot shares with the host's root, the network first of all: no promise, so nothing to be measured."""
_NOISE = 0.3
"""ms: differences below are the clock's and the scheduler's, not the neighbour's."""


@dataclass(frozen=True, slots=True)
class Case:
    """One rogue behind one wall."""

    wall: str
    rogue: str
    quiet: Answers
    during: Answers
    used: dict[str, float]
    """Shares of the plan."""

    @property
    def slower(self) -> float:
        """The victim's p99 as a multiple of its quiet one."""
        return max(self.during.p99, _NOISE) / max(self.quiet.p99, _NOISE)

    @property
    def most(self) -> tuple[str, float]:
        """What the rogue has got most of, and how much of what it was sold."""
        return max(self.used.items(), key=lambda item: item[1])


@dataclass(frozen=True, slots=True)
class Wall:
    """How a victim and a rogue are run behind one wall."""

    name: str
    rate: float
    """Requests in a second: what the victim can do with ease."""
    run: Callable[[str, Sold, Sequence[str], Sequence[str]], None]
    """By name, plan, options and command, in the background."""
    suspect: Callable[[str], Suspect]
    addresses: Callable[[str], tuple[str, str]]
    """An instance's own and its gateway's."""
    remove: Callable[[str], None]
    left_out: frozenset[str] = frozenset()
    ends_whole: bool = False
    """Out of memory ends all of an instance (cgroup v2): the rogue starts again and again then."""


def options_of(sold: Sold, *, linked: bool = True) -> list[str]:
    """A plan as Bulkhead's options. Without a link of its own (a chroot, one inside a VM) bandwidth is refused."""
    found = ["--memory", f"{sold.memory}B", "--cpus", f"{sold.cpus:g}", "--disk", f"{sold.disk}B"]
    found += ["--iops", str(sold.iops), "--disk-bps", f"{sold.disk_bps}B", "--pids", str(sold.pids)]
    return [*found, "--bandwidth", str(sold.bandwidth)] if linked else found


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """Behind a container's wall, and podman's with the same limits."""
    figure = _figure("rogues", "A rogue beside a victim: containers")
    _goals(figure, _behind(cast, sizes, figure, Bulkhead, _container))
    _behind(cast, sizes, figure, Podman, _podman)
    return figure


def measure_machines(cast: Cast, sizes: Sizes) -> Figure:
    """Both in a virtual machine each."""
    figure = _figure("rogues-vm", "A rogue beside a victim: virtual machines")
    _goals(figure, _behind(cast, sizes, figure, Bulkhead, _machine))
    return figure


def measure_inside(cast: Cast, sizes: Sizes) -> Figure:
    """Both as containers in the same virtual machine."""
    figure = _figure("rogues-inside", "A rogue beside a victim: containers in one virtual machine")
    _behind(cast, sizes, figure, Bulkhead, _inside)
    return figure


def measure_chroots(cast: Cast, sizes: Sizes) -> Figure:
    """A chroot beside a container: it has limits, and shares the network, the users and the processes of the host."""
    figure = _figure("rogues-chroot", "A rogue in a chroot beside a victim in a container")
    _behind(cast, sizes, figure, Bulkhead, _chroot)
    return figure


def _figure(key: str, title: str) -> Figure:
    link = SOLD.bandwidth // 1_000_000
    how = (
        "nginx answers a client in a network namespace beside the host, which asks at a fixed rate by new connections, "
        "through a published port; a time runs from when the request was due. Quiet for "
        f"{QUIET_SECONDS:g} s, then {DURING_SECONDS:g} s beside the rogue, {SETTLE_SECONDS:g} s after its start. "
        f"Victim: {VICTIM.cpus:g} of one core, on which the client runs too; rogue: {SOLD.cpus:g} core, "
        f"{SOLD.memory // MIB} MiB, {SOLD.disk // MIB} MiB of disk, {SOLD.iops} operations/s, "
        f"{SOLD.disk_bps // MIB} MiB/s, {link} Mbit/s, {SOLD.pids} processes. "
        "Use is counted outside, as a share of the plan."
    )
    return Figure(key, title, how)


Engine = TypeVar("Engine", bound=CommandLine)


def _behind(
    cast: Cast, sizes: Sizes, figure: Figure, kind: type[Engine], make: Callable[[Engine, ExitStack], Wall]
) -> list[Case]:
    """Every rogue behind one wall; a case that fails is told, and the next one comes."""
    cases: list[Case] = []
    try:
        engine = cast.get(kind)
        with ExitStack() as stack:
            client = client_of(cast)
            engine.import_tar(_archive(cast.scene.directory("rogues")), IMAGE)
            stack.callback(engine.remove_image, IMAGE)
            wall = make(engine, stack)
            wall.run("victim", VICTIM, ["-p", f"{PORT}:80"], SERVE)
            stack.callback(wall.remove, "victim")
            _await(client)
            for rogue in _chosen(sizes):
                if rogue.name in wall.left_out:
                    continue
                try:
                    cases.append(_case(cast, client, wall, rogue, sizes))
                except (Unusable, OSError, KeyError, StopIteration) as error:
                    figure.missing.append(Missing(f"{wall.name}, {rogue.title}", f"{type(error).__name__}: {error}"))
                    say(f"{wall.name}, {rogue.title}: {error}")
    except Unusable as error:
        figure.missing.append(Missing(kind.name, str(error)))
    _add(figure, kind.name, cases)
    return cases


def _chosen(sizes: Sizes) -> Sequence[Rogue]:
    known = {rogue.name: rogue for rogue in ROGUES}
    return [known[name] for name in sizes.rogues] or ROGUES


def client_of(cast: Cast) -> Client:
    """One for the whole run, on the core where the victim will be: the first."""
    if cast.client is None:
        cast.client = Client(cast.scene.directory("client"), cast.stack, core=0)
    return cast.client


def _archive(directory: Path) -> Path:
    """Debian with nginx and the rogue as a tar file."""
    made = directory / "rogue.tar"
    if not made.exists():
        shutil.copyfile(rootfs_tar("servers"), made)
        with tarfile.open(made, "a") as archive:
            archive.add(rogues.binary(), rogues.PROGRAM.lstrip("/"))
    return made


def _await(client: Client) -> None:
    for _ in range(60):
        if client.ask(PORT, rate=1, seconds=1).times:
            return
        time.sleep(0.5)
    raise Unusable("the victim does not answer")


def _case(cast: Cast, client: Client, wall: Wall, rogue: Rogue, sizes: Sizes) -> Case:
    scale = sizes.rogue_seconds / DURING_SECONDS
    quiet = client.ask(PORT, rate=wall.rate, seconds=QUIET_SECONDS * scale)
    whole = SETTLE_SECONDS + DURING_SECONDS * scale + 60
    again = ["--restart", "always"] if wall.ends_whole else []
    wall.run("rogue", SOLD, again, rogue.command(whole, *wall.addresses("victim")))
    try:
        time.sleep(SETTLE_SECONDS)
        suspect = wall.suspect("rogue")
        # Behind a wall where the whole instance is out of memory it may be starting again just when it is looked at.
        before = None
        with suppress(OSError):
            before = suspect.count()
        during = client.ask(PORT, rate=wall.rate, seconds=DURING_SECONDS * scale)
        used = {"ended": 0.0}
        with suppress(OSError):
            used = shares(suspect, before, SOLD) if before else used
    finally:
        with suppress(Unusable):
            wall.remove("rogue")
    case = Case(wall.name, rogue.title, quiet, during, used)
    say(
        f"{wall.name}, {rogue.title}: p99 {quiet.p99:.1f} -> {during.p99:.1f} ms, {len(during.errors)} errors, "
        f"most of its plan: {case.most[0]} {case.most[1]:.2f}"
    )
    _keep(cast, case)
    time.sleep(1.0)
    return case


def _keep(cast: Cast, case: Case) -> None:
    """What is found is not lost with the run."""
    if cast.scene.output:
        cast.scene.output.mkdir(parents=True, exist_ok=True)
        with (cast.scene.output / "rogues.jsonl").open("a") as file:
            file.write(json.dumps(asdict(case)) + "\n")


def _add(figure: Figure, peer: str, cases: Sequence[Case]) -> None:
    """A value for each rogue, and the table."""
    if not cases:
        return
    wall = cases[0].wall
    figure.add(peer, f"{wall}: p99 quiet", [case.quiet.p99 for case in cases])
    figure.add(peer, f"{wall}: p99 beside a rogue", [case.during.p99 for case in cases])
    figure.notes.append("\n".join(_table(cases)))


def _table(cases: Sequence[Case]) -> list[str]:
    lines = [
        f"**{cases[0].wall}**",
        "",
        "| rogue | p50 quiet | p50 during | p99 quiet | p99 during | x | answers | errors | most of its plan |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        times = (case.quiet.p50, case.during.p50, case.quiet.p99, case.during.p99)
        found = [case.rogue, *(f"{value:.2f} ms" for value in times), f"{case.slower:.2f}"]
        found += [str(len(case.during.times)), str(len(case.during.errors)), f"{case.most[0]} {case.most[1]:.1%}"]
        lines.append(f"| {' | '.join(found)} |")
    return lines


def _goals(figure: Figure, cases: Sequence[Case]) -> None:
    """The worst case of each."""
    if not cases:
        return
    wall, slowest = cases[0].wall, max(cases, key=lambda case: case.slower)
    greedy = max(cases, key=lambda case: case.most[1])
    figure.want(f"{wall}: victim's p99 / its quiet one, worst: {slowest.rogue}", SLOWER, "x", slowest.slower)
    figure.want(
        f"{wall}: requests without an answer", 0, "answers", float(sum(len(case.during.errors) for case in cases))
    )
    what, share = greedy.most
    figure.want(f"{wall}: a rogue's use of its plan, worst: {greedy.rogue}, {what}", MORE, "x", share)


# --- walls


def _bulkhead(engine: Bulkhead, wall: str, rate: float, *more: str, linked: bool = True) -> Wall:
    def run(name: str, sold: Sold, options: Sequence[str], command: Sequence[str]) -> None:
        plan = options_of(sold, linked=linked)
        engine.output("run", "-d", "--name", name, *more, *plan, *options, IMAGE, *command)

    def addresses(name: str) -> tuple[str, str]:
        address = json.loads(engine.output("inspect", name))[0]["address"]
        return str(address["ipv4"]), str(address["gateway4"])

    def suspect(name: str) -> Suspect:
        return Ours(engine, name, SOLD, linked=linked)

    return Wall(wall, rate, run, suspect, addresses, lambda name: engine.remove([name]))


def _container(engine: Bulkhead, _: ExitStack) -> Wall:
    return _bulkhead(engine, "container", 200)


def _machine(engine: Bulkhead, _: ExitStack) -> Wall:
    engine.import_kernel()
    return replace(_bulkhead(engine, "vm", 40, "--isolation", "vm"), ends_whole=True)


def _chroot(engine: Bulkhead, _: ExitStack) -> Wall:
    victim, rogue = (
        _bulkhead(engine, "chroot", 200),
        _bulkhead(engine, "chroot", 200, "--isolation", "chroot", linked=False),
    )

    def run(name: str, sold: Sold, options: Sequence[str], command: Sequence[str]) -> None:
        (victim if name == "victim" else rogue).run(name, sold, options, command)

    return replace(rogue, run=run, addresses=victim.addresses, left_out=SHARED)


def _inside(engine: Bulkhead, stack: ExitStack) -> Wall:
    engine.import_kernel()
    home = ("--memory", "704M", "--cpus", "2", "--disk", "64M")
    engine.output("run", "-d", "--name", "home", "--isolation", "vm", *home, IMAGE, "sleep", "1000000")
    stack.callback(engine.remove, ["home"])
    wall = _bulkhead(engine, "inside a vm", 40, "--inside", "home", linked=False)
    return replace(wall, suspect=lambda name: Inner(engine, name, SOLD), ends_whole=True)


def _podman(engine: Podman, _: ExitStack) -> Wall:
    cores = {"victim": "0", "rogue": "1"}

    def run(name: str, sold: Sold, options: Sequence[str], command: Sequence[str]) -> None:
        limits = ["--memory", f"{sold.memory}b", "--memory-swap", f"{sold.memory}b", "--cpus", f"{sold.cpus:g}"]
        limits += ["--cpuset-cpus", cores[name], "--pids-limit", str(sold.pids), "--log-driver", "k8s-file"]
        engine.command("run", "-d", "--name", name, *engine.run_options, *limits, *options, IMAGE, *command)

    def addresses(name: str) -> tuple[str, str]:
        said = timing.output([*engine.prefix, "inspect", name], env=engine.env)
        (network,) = json.loads(said)[0]["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"]), str(network["Gateway"])

    def remove(name: str) -> None:
        engine.remove([name])

    return Wall("podman", 200, run, lambda name: Theirs(engine, name, SOLD), addresses, remove)
