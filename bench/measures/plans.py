"""What was sold and what was got: every field of a plan behind every wall, measured within it and outside of it."""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import timing
from bench.asking import CLIENT
from bench.contest import Cast, Sizes, say
from bench.figures import Figure, Missing
from bench.measures import gauged_unikernels
from bench.measures.gauged import (
    GAUGE,
    GHZ_SHARE,
    IMAGE,
    LARGE,
    MEMORY_NOTE,
    PORT,
    SECONDS,
    SETTLE_SECONDS,
    SMALL,
    SOLD,
    SOURCE,
    Row,
    peer,
)
from bench.measures.rogues import client_of, options_of
from bench.peers.bulkhead import Bulkhead
from bench.peers.podman import Podman
from bench.suspects import MIB, Inner, Measured, Ours
from bench.timing import Unusable
from bulkhead.config import Config
from bulkhead.host import facts
from tests.harness.images import busybox_tar

LIMITS = {"cpu": 0.03, "memory": 0.0, "disk": 0.0, "iops": 0.05, "disk_bps": 0.05, "bandwidth": 0.05, "pids": 0.0}
"""By how much what is got may differ from what was sold."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One instance of the plan, and how to count it."""

    engine: Bulkhead
    wall: str
    suspect: Measured
    ghz: float
    full: float
    """Cores that it can have at most: those of the host, or of the VM that it is in."""
    linked: bool

    def gauge(self, *words: object) -> list[float]:
        """What the counting program says. Raises Unusable."""
        said = self.engine.output("exec", "sold", GAUGE, *map(str, words)).split()
        return [float(word) for word in said]

    def update(self, *options: str) -> None:
        """Another plan."""
        self.engine.output("update", *options, "sold")

    @contextmanager
    def busy(self, *words: object) -> Iterator[subprocess.Popen[str]]:
        """The counting program beside us, with the time that it is to take as its last word."""
        argv = [*self.engine.prefix, "exec", "sold", GAUGE, *map(str, words), f"{SETTLE_SECONDS + SECONDS + 1:g}"]
        process = subprocess.Popen(argv, env=self.engine.env, stdout=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.wait(120)
            if process.stdout:
                process.stdout.close()

    def rates(self, *words: object) -> tuple[dict[str, float], float]:
        """Counters in a second outside, while the program runs, and what it says itself."""
        with self.busy(*words) as process:
            time.sleep(SETTLE_SECONDS)
            before = self.suspect.count()
            time.sleep(SECONDS)
            rates = self.suspect.count().rates_since(before)
            said = process.communicate(timeout=120)[0].split()
        if process.returncode or not said:
            raise Unusable(f"gauge {' '.join(map(str, words))} ended with {process.returncode}")
        return rates, float(said[-1])


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """One instance for each wall; one that fails is told, and the next one comes."""
    figure = Figure(
        "plans",
        "Sold and got",
        f"`Inside`: what a program gets in {SETTLE_SECONDS + SECONDS + 1:g} s, buckets that are full at first "
        f"included. `Outside`: cgroup, block device (QEMU's of a VM) and link, over {SECONDS:g} s of them. Processor "
        "time inside is work done, beside what the same instance does with whole cores. The error is that of what "
        "was counted outside, where there is such a counter.",
    )
    rows: list[Row] = []
    try:
        engine = cast.get(Bulkhead)
        client_of(cast)
        engine.import_tar(_archive(cast.scene.directory("plans")), IMAGE)
        for wall, options in _walls(engine, figure):
            if sizes.wants(wall.split()[0]):
                say(f"plans: {wall}")
                rows += _wall(cast, engine, figure, wall, options)
        if sizes.wants("unikernel") and cast.scene.kernel:
            say("plans: unikernel")
            rows += _kept(cast, figure, "unikernel", gauged_unikernels.measured(engine))
    except Unusable as error:
        figure.missing.append(Missing("bulkhead", str(error)))
    if sizes.wants("podman"):
        _podman(cast, figure)
    if rows:
        figure.notes.append("\n".join(_table(rows)))
        _goals(figure, rows)
    return figure


def _walls(engine: Bulkhead, figure: Figure) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "chroot", ("--isolation", "chroot")
    yield "container", ("--isolation", "container")
    try:
        engine.import_kernel()
    except Unusable as error:
        figure.missing.append(Missing("vm, inside a vm", str(error)))
        return
    yield "vm", ("--isolation", "vm")
    yield "inside a vm", ("--inside", "home")


def _wall(cast: Cast, engine: Bulkhead, figure: Figure, wall: str, options: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    linked = wall not in ("chroot", "inside a vm")
    with ExitStack() as stack:
        if wall == "inside a vm":
            home = ("--memory", "448M", "--cpus", "1", "--disk", "64M")
            engine.output("run", "-d", "--name", "home", "--isolation", "vm", *home, IMAGE, "sleep", "1000000")
            stack.callback(engine.remove, ["home"])
        engine.output(
            "run", "-d", "--name", "sold", *options, *options_of(SOLD, linked=linked), IMAGE, "sleep", "1000000"
        )
        stack.callback(engine.remove, ["sold"])
        inner = wall == "inside a vm"
        suspect: Measured = Inner(engine, "sold", SOLD) if inner else Ours(engine, "sold", SOLD, linked=linked)
        ghz = facts.facts(Config()).ghz or 1.0
        bench = Bench(engine, wall, suspect, ghz, 1.0, linked)
        each = (_cpu, _ghz, _disk, _iops, _disk_bps, _bandwidth, _pids, _memory)
        rows += _kept(cast, figure, wall, [(one.__name__.strip("_"), one(bench)) for one in each])
    return rows


def _kept(cast: Cast, figure: Figure, wall: str, measured: Iterable[tuple[str, Iterator[Row]]]) -> list[Row]:
    """What is found, told as soon as it is; of what fails the reason."""
    rows: list[Row] = []
    for name, each in measured:
        try:
            found = list(each)
        except (Unusable, OSError, KeyError, ValueError, subprocess.TimeoutExpired) as error:
            figure.missing.append(Missing(f"{wall}, {name}", str(error)))
            say(f"  {wall}, {name}: {type(error).__name__}: {error}")
            continue
        for row in found:
            say(f"  {_line(row)}")
            _keep(cast, row)
        rows += found
    return rows


def _cpu(bench: Bench) -> Iterator[Row]:
    """Half a core. What whole ones do is measured first."""
    bench.update("--cpus", "1")
    (whole,) = bench.gauge("cpu", SETTLE_SECONDS + SECONDS)
    bench.update("--cpus", f"{SOLD.cpus:g}")
    rates, work = bench.rates("cpu")
    sees = bench.gauge("sees")[0]
    yield Row(bench.wall, "cpu", "cores", SOLD.cpus, sees, work / whole, rates["cpu"], "sees: processors")


def _ghz(bench: Bench) -> Iterator[Row]:
    """A core of a slower host."""
    if bench.wall == "inside a vm":
        return  # a share of its VM's cores, as cpus are
    bench.update("--cpus", "1", "--ghz", f"{bench.ghz * GHZ_SHARE:.4f}")
    rates, _ = bench.rates("cpu")
    bench.update("--cpus", f"{SOLD.cpus:g}", "--ghz", f"{bench.ghz:.4f}")
    sold = bench.ghz * GHZ_SHARE
    yield Row(bench.wall, "cpu", "GHz", sold, None, None, rates["cpu"] * bench.ghz, "1 core; outside: of its time")


def _disk(bench: Bench) -> Iterator[Row]:
    seen = bench.gauge("sees")
    bench.update("--iops", "20000", "--disk-bps", "1G")
    (written,) = bench.gauge("file")
    bench.update("--iops", str(SOLD.iops), "--disk-bps", f"{SOLD.disk_bps}B")
    device = bench.suspect.disk_size()
    yield Row(
        bench.wall, "disk", "MiB", SOLD.disk / MIB, seen[2] / MIB, written / MIB, device / MIB, "inside: one file"
    )


def _iops(bench: Bench) -> Iterator[Row]:
    bench.update("--iops", "20000", "--disk-bps", "1G")
    bench.gauge("prepare")
    bench.update("--iops", str(SOLD.iops), "--disk-bps", f"{SOLD.disk_bps}B")
    for way, counter in (("read", "reads"), ("write", "writes")):
        rates, said = bench.rates(way, SMALL)
        got = rates[counter] if counter in rates else rates[f"bytes {'read' if way == 'read' else 'written'}"] / SMALL
        yield Row(bench.wall, "iops", f"{way}s/s", SOLD.iops, None, said, got)


def _disk_bps(bench: Bench) -> Iterator[Row]:
    for way, counter in (("read", "bytes read"), ("write", "bytes written")):
        rates, said = bench.rates(way, LARGE)
        got = rates[counter] / MIB
        yield Row(bench.wall, "disk_bps", f"MiB/s, {way}", SOLD.disk_bps / MIB, None, said * LARGE / MIB, got)


def _bandwidth(bench: Bench) -> Iterator[Row]:
    if not bench.linked:
        return
    for way, counter in (("send", "sent"), ("receive", "received")):
        with peer():
            rates, said = bench.rates(way, CLIENT, PORT)
        got = rates[counter] * 8 / 1e6
        yield Row(bench.wall, "bandwidth", f"Mbit/s, {way}", SOLD.bandwidth / 1e6, None, said * 8 / 1e6, got)


def _pids(bench: Bench) -> Iterator[Row]:
    (made,) = bench.gauge("processes")
    # The workload is one, and whoever counts is one of those that it has counted.
    yield Row(bench.wall, "pids", "processes", SOLD.pids, None, made + 1, None, "inside: with the workload")


def _memory(bench: Bench) -> Iterator[Row]:
    """The last: it does not outlive it."""
    if bench.wall == "inside a vm":
        bench.engine.output("restart", "-t", "0", "sold")  # what it has read and written before waits for its disk
    seen = bench.gauge("sees")[1]
    argv = [*bench.engine.prefix, "exec", "sold", GAUGE, "memory"]
    said = subprocess.run(argv, env=bench.engine.env, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    touched = float(said.stdout.split()[-1])
    limit = bench.suspect.memory_size()
    yield Row(bench.wall, "memory", "MiB", SOLD.memory / MIB, seen / MIB, touched / MIB, limit / MIB, MEMORY_NOTE)


def _podman(cast: Cast, figure: Figure) -> None:
    """What podman has no field for is said; processor time and processes are measured."""
    try:
        engine = cast.get(Podman)
    except Unusable as error:
        figure.missing.append(Missing("podman", str(error)))
        return
    figure.notes.append(
        f"podman {cast.versions[engine.name]} has no limit for a container's disk on this file system, none for "
        "bandwidth; those for disk operations are of a whole device of the host's, with cgroup v1 for direct I/O alone."
    )


def _archive(directory: Path) -> Path:
    """Busybox and the counting program as a tar file."""
    program, made = directory / "gauge", directory / "gauge.tar"
    timing.output([timing.find("gcc", "gcc"), "-O2", "-static", "-o", str(program), str(SOURCE)])
    busybox_tar(made)
    with tarfile.open(made, "a") as archive:
        archive.add(program, GAUGE.lstrip("/"))
    return made


def _keep(cast: Cast, row: Row) -> None:
    """What is found is not lost with the run."""
    if cast.scene.output:
        cast.scene.output.mkdir(parents=True, exist_ok=True)
        with (cast.scene.output / "plans.jsonl").open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def _line(row: Row) -> str:
    return (
        f"{row.wall}, {row.field} ({row.unit}): sold {_number(row.sold)}, sees {_number(row.sees)}, "
        f"inside {_number(row.inside)}, outside {_number(row.outside)}, error {row.error:+.1%}"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| wall | field | unit | sold | sees | inside | outside | error | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row.wall, row.field, row.unit, _number(row.sold), _number(row.sees), _number(row.inside)]
        lines.append(f"| {' | '.join([*cells, _number(row.outside), f'{row.error:+.1%}', row.note])} |")
    return lines


def _goals(figure: Figure, rows: Sequence[Row]) -> None:
    """Of each field and wall the greatest error."""
    for name, limit in LIMITS.items():
        for wall in dict.fromkeys(row.wall for row in rows):
            errors = [abs(row.error) for row in rows if (row.wall, row.field) == (wall, name)]
            if errors:
                figure.want(f"{name}, {wall}: error", limit * 100, "%", round(max(errors) * 100, 2))
