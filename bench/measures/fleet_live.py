"""Live migration as a client of a redis sees it, beside QEMU alone in the same run."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bench.contest import Cast, Sizes, progress, say
from bench.figures import Figure, Missing
from bench.measures.fleet import own_names
from bench.measures.fleet_bare import Pair
from bench.measures.fleet_moves import wait
from bench.timing import Unusable, environment, find, output
from tests.harness.fleet import Fleet, Host
from tests.harness.namespaces import in_network

SOURCE = Path(__file__).parents[1] / "load/beat.c"
SIZE = ("--memory", "256M", "--cpus", "1", "--disk", "128M")
_OPEN = ("--protected-mode", "no", "--bind", "0.0.0.0", "--enable-debug-command", "yes")
REDIS = ("redis-server", "--save", "", "--appendonly", "no", "--dir", "/tmp", *_OPEN)
PORT, KEYS, CONNECTIONS = 6379, 60_000, 400
RATE = 120 << 20
"""Bytes per second of the link: as good as 1 Gbit/s."""
DOWNTIME = 0.05
"""Seconds that QEMU is asked to keep to, both times."""
AROUND = 1.0
"""Seconds that a client writes before a move and after it."""
BLACKOUT_MS, WORST_MS, TOTAL = 50.0, 300.0, 1.3
OURS, ALONE = "bulkhead", "QEMU alone"
PHASES = ("machine", "disk", "memory", "switch", "hand-over", "start", "erase")


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client has: milliseconds without any answer, and for one answer, at most."""

    away: float
    waited: float


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """Three hosts: a machine that goes between two of them, and a client on the third."""
    figure = Figure(
        "fleet-live",
        "Live migration of a redis",
        f"A virtual machine of 256M with a redis of {KEYS} values of 1 KiB goes between two hosts (namespaces of this "
        f"machine) while a client on a third writes a value every millisecond, by {CONNECTIONS} connections in turn. "
        "`blackout`: its longest time without any answer; `longest wait`: for one answer, which for what was lost on "
        "the way is sent again by TCP after 0.2 s at the earliest. The link is limited to "
        f"{RATE >> 20} MiB/s (`--rate`, `max-bandwidth`). `move`: the whole command, its disk, preflight and clearing "
        "up included; phases as it reports them. QEMU alone: the same guest, kernel, memory and load between the same "
        "hosts, by TCP without encryption, without a jail, with one disk that both see, so that none is sent, and with "
        "8 KiB of memory less, since QEMU before 9.0 else loses changes under TCG (design 0031); "
        "`move` from `migrate` to `completed`, the target being started already.",
    )
    moves = 4 if sizes.runs <= 5 else 30
    with own_names(cast), ExitStack() as undo:
        beat = cast.scene.directory("fleet") / "beat"
        output([find("gcc", "gcc"), "-O2", "-static", "-o", str(beat), str(SOURCE)])
        fleet = undo.enter_context(Fleet(3, tls=False))
        fleet.begin()
        machine = _Machine(fleet, cast)
        try:
            _ours(figure, machine, beat, moves)
        except Unusable as error:
            figure.missing.append(Missing(OURS, str(error)))
        try:
            directory = cast.scene.directory("fleet-bare")
            with ExitStack() as stack:
                pair = Pair(fleet, machine.hypervisor(), machine.spec(), directory, stack)
                machine.remove()
                _alone(figure, fleet, pair, beat, moves)
        except Unusable as error:
            figure.missing.append(Missing(ALONE, str(error)))
            machine.remove()
        machine.close()
        if left := fleet.leaked():
            raise Unusable(f"the fleet left behind: {left}")
    _goals(figure)
    return figure


class _Machine:
    """The one that moves, and the container that its client is in."""

    def __init__(self, fleet: Fleet, cast: Cast) -> None:
        self._hosts = fleet.hosts
        first, _, third = fleet.hosts
        if cast.scene.servers is None or cast.scene.kernel is None:
            raise Unusable("no image with a redis, or no kernel")
        first.cli("image", "import", str(cast.scene.servers), "servers")
        first.cli("image", "import", str(cast.scene.kernel), "kernel/debian:latest")
        first.cli("network", "create", "--fleet", "--unencrypted", "mesh")
        where = ("--host", third.name, "--name", "client", "--network", "mesh")
        first.cli("run", "-d", *where, "--stop-signal", "KILL", "servers", "sleep", "100000")
        where = ("--host", first.name, "--name", "redis", "--network", "mesh")
        first.cli("run", "-d", "--isolation", "vm", *where, *SIZE, "servers", *REDIS)
        self.at = first

    def record(self, name: str) -> dict[str, Any]:
        """An instance's."""
        found = self._hosts[0].daemon.json("ps", "-a", "--format", "json")
        return next(each for each in found if each["spec"]["name"] == name)

    def address(self) -> str:
        """Its redis's."""
        found = self.record("redis")["address"]
        assert isinstance(found, dict)
        return str(found["ipv4"])

    def space(self) -> str:
        """The client's network."""
        return f"/proc/{self.record('client')['pid']}/ns/net"

    def hypervisor(self) -> int:
        """Pid of its QEMU."""
        spec = self.record("redis")["spec"]
        assert isinstance(spec, dict)
        return int(json.loads((self.at.daemon.config.instances_dir / spec["id"] / "handle.json").read_text())["pid"])

    def spec(self) -> str:
        """As JSON."""
        return json.dumps(self.record("redis")["spec"])

    def move(self) -> tuple[float, dict[str, Any]]:
        """To the other host: milliseconds of the command, and what it reports."""
        target = self._other()
        words = ("--host", target.name, "--rate", str(RATE), "--format", "json")
        began = time.perf_counter()
        moved = json.loads(self.at.cli("move", "redis", *words))
        took = (time.perf_counter() - began) * 1e3
        if moved["hosts"]["way"] != "live":
            raise Unusable("the machine did not move while it runs")
        self.at = target
        if moved["dropped"]:
            raise Unusable(f"the machine has moved, but {'; '.join(moved['dropped'])}")
        return took, moved

    def _other(self) -> Host:
        return self._hosts[self._hosts[0] is self.at]

    def remove(self) -> None:
        """End it. Idempotent."""
        self._hosts[0].daemon.cli("rm", "-f", "redis", check=False)

    def close(self) -> None:
        """End the client and the network."""
        self._hosts[0].cli("rm", "-f", "client")
        self._hosts[0].cli("network", "rm", "mesh")
        wait(lambda: not any("mesh" in host.cli("network", "ls", "-q") for host in self._hosts))


def _ours(figure: Figure, machine: _Machine, beat: Path, moves: int) -> None:
    space, address = machine.space(), machine.address()
    _fill(space, address)
    _add(figure, f"{OURS}, no move", [_watched(space, address, beat, partial(time.sleep, 2.0))[0]])
    seen, took, ratios, phases = list[Seen](), list[float](), list[float](), dict[str, list[float]]()
    for number in range(moves):
        progress("moves", number + 1, moves)
        found, (milliseconds, moved) = _watched(space, address, beat, machine.move)
        seen.append(found)
        took.append(milliseconds)
        passage = moved["hosts"]
        flow = passage["flow"]
        ratios.append(milliseconds / 1e3 / ((flow["memory"] - min(flow["zeros"], flow["memory"])) / RATE))
        for name in PHASES:
            phases.setdefault(name, []).append(passage["phases"][name] * 1e3)
    _add(figure, OURS, seen)
    figure.add("bulkhead", f"{OURS}: move", took)
    for name, values in phases.items():
        figure.add("bulkhead", f"{OURS}: phase {name}", values)
    figure.add("bulkhead", f"{OURS}: move / (RAM in use / link rate)", ratios, unit="x")


def _alone(figure: Figure, fleet: Fleet, pair: Pair, beat: Path, moves: int) -> None:
    space, seen, took, ratios = f"/proc/{fleet.switch.pid}/ns/net", list[Seen](), list[float](), list[float]()
    say("QEMU alone")
    _fill(space, pair.address)
    _add(figure, f"{ALONE}, no move", [_watched(space, pair.address, beat, partial(time.sleep, 2.0))[0]])
    for number in range(moves):
        progress("moves of QEMU alone", number + 1, moves)
        found, (milliseconds, size) = _watched(
            space, pair.address, beat, partial(pair.move, rate=RATE, downtime=DOWNTIME)
        )
        seen.append(found)
        took.append(milliseconds)
        ratios.append(milliseconds / 1e3 / (size / RATE))
    _add(figure, ALONE, seen)
    figure.add("qemu", f"{ALONE}: move", took)
    figure.add("qemu", f"{ALONE}: move / (RAM sent / link rate)", ratios, unit="x")


def _add(figure: Figure, label: str, seen: list[Seen]) -> None:
    peer = "qemu" if label.startswith(ALONE) else "bulkhead"
    figure.add(peer, f"{label}: blackout", [each.away for each in seen])
    figure.add(peer, f"{label}: longest wait", [each.waited for each in seen])


def _goals(figure: Figure) -> None:
    ours, total = figure.find(f"{OURS}: blackout"), figure.find(f"{OURS}: move / (RAM in use / link rate)")
    values = sorted(ours.values) if ours else []
    figure.want("blackout, median", BLACKOUT_MS, "ms", statistics.median(values) if values else None)
    worst = values[min(len(values) - 1, int(len(values) * 0.99))] if values else None
    figure.want("blackout, p99", WORST_MS, "ms", worst)
    figure.want("move / (RAM in use / link rate), median", TOTAL, "x", total.summary.median if total else None)
    alone = figure.find(f"{ALONE}: blackout")
    if ours and alone:
        ratio = ours.summary.median / alone.summary.median
        figure.notes.append(f"The median blackout is {ratio:.2f} x that of QEMU alone.")


# --- the client


def _fill(space: str, address: str) -> None:
    """Wait for the redis, and give it its values."""

    def ask(*words: str) -> bytes:
        with socket.create_connection((address, PORT), timeout=60.0) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.recv(256)

    def answers() -> bool:
        with suppress(OSError):
            return b"PONG" in in_network(space, lambda: ask("PING"))
        return False

    wait(answers)
    told = in_network(space, lambda: ask("DEBUG", "POPULATE", str(KEYS), "key", "1024"))
    if not told.startswith(b"+OK"):
        raise Unusable(f"redis is not to be filled: {told!r}")


def _watched(space: str, address: str, beat: Path, work: Callable[[], Result]) -> tuple[Seen, Result]:
    """What a client sees meanwhile, and what has been done."""
    with _beating(space, address, beat) as process:
        time.sleep(AROUND)
        done = work()
        time.sleep(AROUND)
        told, _ = process.communicate(timeout=60.0)
    writes, answers, away, waited, broken = told.split()
    if int(broken) or int(answers) < int(writes) // 2:
        raise Unusable(f"of {writes} writes {answers} were answered; {broken} connections broke")
    return Seen(float(away), float(waited)), done


@contextmanager
def _beating(space: str, address: str, beat: Path) -> Iterator[subprocess.Popen[str]]:
    words = [str(beat), address, str(PORT), str(CONNECTIONS), str(KEYS)]

    def spawn() -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), bufsize=1
        )

    process = in_network(space, spawn)
    try:
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            raise Unusable("the client is not connected")
        yield process
    finally:
        process.kill()
        process.wait()
