"""What was sold and what was got: every field of a plan behind every wall, measured within it and outside of it."""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import timing
from bench.asking import CLIENT, NAME
from bench.contest import Cast, Sizes, say
from bench.figures import Figure, Missing
from bench.measures.rogues import client_of, options_of
from bench.peers.bulkhead import Bulkhead
from bench.peers.podman import Podman
from bench.suspects import MIB, Inner, Measured, Ours, Sold
from bench.timing import Unusable
from bulkhead.config import Config
from bulkhead.host import facts
from tests.harness.images import busybox_tar

IMAGE = "bench-gauge"
GAUGE = "/bin/gauge"
SOURCE = Path(__file__).parents[1] / "load/gauge.c"
PORT = 5301
SOLD = Sold(192 * MIB, 0.5, 256 * MIB, 200, 8 * MIB, 20_000_000, 100)
GHZ_SHARE = 0.6
"""Of the host's cores' speed, where GHz are measured."""
SETTLE_SECONDS, SECONDS = 1.5, 5.0
"""What is in buckets at first is let run off, then is counted."""
SMALL, LARGE = 4096, 256 << 10
LIMITS = {"cpu": 0.03, "memory": 0.0, "disk": 0.0, "iops": 0.05, "disk_bps": 0.05, "bandwidth": 0.05, "pids": 0.0}
"""By how much what is got may differ from what was sold."""


@dataclass(frozen=True, slots=True)
class Row:
    """One field behind one wall. Numbers are in the field's own unit; None: not measured there."""

    wall: str
    field: str
    unit: str
    sold: float
    sees: float | None
    """What it says of itself inside."""
    inside: float | None
    """What a program inside got."""
    outside: float | None
    """What counters outside say that it got."""
    note: str = ""

    @property
    def error(self) -> float:
        """Of what was counted outside, or else inside."""
        got = self.outside if self.outside is not None else self.inside
        return (got or 0.0) / self.sold - 1


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


def measure(cast: Cast, _: Sizes) -> Figure:
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
            say(f"plans: {wall}")
            rows += _wall(cast, engine, figure, wall, options)
    except Unusable as error:
        figure.missing.append(Missing("bulkhead", str(error)))
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
    figure.missing.append(
        Missing("unikernel", "its QEMU is told the plan, and jailed, as a VM's; nothing inside of it could count")
    )


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
        for measured in (_cpu, _ghz, _disk, _iops, _disk_bps, _bandwidth, _pids, _memory):
            try:
                found = list(measured(bench))
            except (Unusable, OSError, KeyError, ValueError, subprocess.TimeoutExpired) as error:
                found = []
                figure.missing.append(Missing(f"{wall}, {measured.__name__.strip('_')}", str(error)))
                say(f"  {wall}, {measured.__name__.strip('_')}: {type(error).__name__}: {error}")
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
        with _peer():
            rates, said = bench.rates(way, CLIENT, PORT)
        got = rates[counter] * 8 / 1e6
        yield Row(bench.wall, "bandwidth", f"Mbit/s, {way}", SOLD.bandwidth / 1e6, None, said * 8 / 1e6, got)


def _pids(bench: Bench) -> Iterator[Row]:
    (made,) = bench.gauge("processes")
    # The workload is one, and whoever counts is one of those that it has counted.
    yield Row(bench.wall, "pids", "processes", SOLD.pids, None, made + 1, None, "inside: with the workload")


def _memory(bench: Bench) -> Iterator[Row]:
    """The last: it does not outlive it."""
    seen = bench.gauge("sees")[1]
    argv = [*bench.engine.prefix, "exec", "sold", GAUGE, "memory"]
    said = subprocess.run(argv, env=bench.engine.env, stdout=subprocess.PIPE, text=True, timeout=120, check=False)
    touched = float(said.stdout.split()[-1])
    limit = bench.suspect.memory_size()
    yield Row(bench.wall, "memory", "MiB", SOLD.memory / MIB, seen / MIB, touched / MIB, limit / MIB, _MEMORY_NOTE)


_MEMORY_NOTE = "inside: one process until it is ended; outside: the limit, or the guest's memory"


@contextmanager
def _peer() -> Iterator[None]:
    """Somebody at the other end, in the client's namespace: takes what comes, and sends all the time."""
    script = (
        "import socket, threading\n"
        f"s = socket.create_server(('', {PORT}))\n"
        "print('ready', flush=True)\n"
        "c, _ = s.accept()\n"
        "def take():\n"
        "    try:\n"
        "        while c.recv(1 << 16): pass\n"
        "    except OSError: pass\n"
        "threading.Thread(target=take, daemon=True).start()\n"
        "try:\n"
        "    while True: c.sendall(bytes(1 << 16))\n"
        "except OSError: pass\n"
    )
    argv = ["ip", "netns", "exec", NAME, "python3", "-c", script]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        if not process.stdout or not process.stdout.readline():
            raise Unusable("the other end of the link does not come up")
        yield
    finally:
        process.kill()
        process.communicate()


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
