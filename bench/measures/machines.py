"""Virtual machines: from a template and booted, beside QEMU alone and docker; their memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import processes
from bench.contest import Cast, Contender, Sizes, compete, say
from bench.figures import Figure, Missing
from bench.measures import throughput
from bench.peers.base import IMAGE, SLEEP
from bench.peers.bulkhead import Bulkhead
from bench.peers.docker import Docker
from bench.peers.qemu import Bare, Stock
from bench.timing import Unusable

SIZE = ("--isolation", "vm", "--memory", "128M", "--cpus", "1")
TEMPLATE, COLD = "bulkhead, first answer", "bulkhead, first answer, --no-template"
MEMORY_BYTES = 128 << 20
STOCK = "QEMU with the distribution's own initramfs"
BARE, BARE_COLD = "QEMU alone, restored", "QEMU alone, booted"
RUN, RUN_COLD, RUN_DOCKER = "bulkhead run", "bulkhead run --no-template", "docker run"
RUN_INSIDE, RUN_ALONE = "bulkhead run --inside VM", "bulkhead run --inside new"
MEMORY = "bulkhead, private memory"
HOME = "home"
"""The machine that containers run in."""
MANY = 20
BARE_LIMIT, BOOT_LIMIT, RUN_LIMIT, STOCK_LIMIT, MEMORY_LIMIT = 2.5, 0.06, 0.1, 0.7, 60.0
EVERY = 5
"""Boots take seconds: one in so many turns."""
PATIENCE = 60.0
SETTLE_SECONDS = 0.3
"""What is warm is at rest then."""


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """Whole commands, then the way to the first answer, then many at once."""
    figure = Figure(
        "vm",
        "Virtual machines of 128M and one processor",
        "`run`: the whole command of `run --rm IMAGE true` with a network, when a guest has become warm for it; "
        "`--inside VM`: of a container in a machine that runs; `--inside new`: in one that is made for it. "
        "`First answer`: from the supervisor's start to the guest's agent answering, as the handle tells; QEMU alone: "
        "from before it is spawned to the same answer by the same guest, without a jail; with the distribution's own "
        "initramfs: to the shell that this gives where it would mount a root file system. Throughput: of a program in "
        "a guest, which is told over the network what to do; QEMU alone has the same devices, and a tap that is on no "
        "bridge. Private memory: of each of "
        f"{MANY} idle machines that run at once and have all answered an exec.",
    )
    try:
        machines = Machines(cast.get(Bulkhead))
        figure.notes.append(f"guests run with {machines.accelerator()}")
        machines.warm_up()
        _measure(cast, sizes, figure, machines)
        networked = partial(machines.bare_of, directory=cast.scene.directory("qemu-load"), network=True)
        throughput.measure(figure, machines.engine, networked, max(2, sizes.runs // 6))
        _memory(figure, machines, min(MANY, sizes.running))
    except Unusable as error:
        figure.missing.append(Missing("bulkhead", str(error)))
    figure.want_ratio("first answer from a template / QEMU alone restoring the same", TEMPLATE, BARE, BARE_LIMIT)
    figure.want_ratio("first answer from a template / booted", TEMPLATE, COLD, BOOT_LIMIT)
    figure.want_ratio("whole run / --no-template", RUN, RUN_COLD, RUN_LIMIT)
    figure.want_ratio("booted / QEMU with the distribution's own initramfs", COLD, STOCK, STOCK_LIMIT)
    series = figure.find(MEMORY)
    figure.want("private memory of an idle machine", MEMORY_LIMIT, "MB", series.summary.median if series else None)
    return figure


class Machines:
    """What the command line does with machines of SIZE."""

    def __init__(self, engine: Bulkhead) -> None:
        self.engine = engine

    def accelerator(self) -> str:
        """As `doctor` found it."""
        rows = json.loads(self.engine.output("doctor", "--format", "json"))
        return "KVM" if any(row["name"] == "KVM" and row["works"] for row in rows) else "TCG"

    def warm_up(self) -> None:
        """Import the kernel, and wait for the templates with a network and without."""
        self.engine.import_kernel()
        self.run()
        self.start_anew("first")
        self.engine.remove(["first"])
        deadline = time.monotonic() + PATIENCE
        while len(self.templates()) < 2:
            if time.monotonic() > deadline:
                raise Unusable("no template was made")
            time.sleep(0.2)

    def templates(self) -> list[Path]:
        """Their directories."""
        return [path.parent for path in (self.engine.home / "cache/templates").glob("*/key.json")]

    def run(self, *options: str) -> float:
        """Milliseconds of `run --rm IMAGE true`."""
        return self.engine.command("run", "--rm", *SIZE, *options, IMAGE, "true")

    def start(self, name: str, *options: str) -> None:
        """One that stays."""
        self.engine.output("run", "-d", "--name", name, *SIZE, "--network", "none", *options, IMAGE, *SLEEP)

    def start_anew(self, name: str, *options: str) -> None:
        """The same, never in a guest that is warm."""
        self.engine.output("create", "--name", name, *SIZE, "--network", "none", *options, IMAGE, *SLEEP)
        self.engine.output("start", name)

    def answered(self, *options: str) -> float:
        """Milliseconds to the first answer of one that is started and removed."""
        try:
            self.start_anew("answers", *options)
            row = json.loads(self.engine.output("inspect", "answers"))[0]
            handle = json.loads((self.engine.home / "state/instances" / row["id"] / "handle.json").read_text())
        finally:
            self.engine.remove(["answers"])
        return float(handle["data"]["answer_seconds"]) * 1000

    def bare(self, directory: Path) -> Bare:
        """QEMU alone, with what a running machine's without a network was given."""
        self.start_anew("model")
        try:
            return self.bare_of(int(json.loads(self.engine.output("inspect", "model"))[0]["pid"]), directory, False)
        finally:
            self.engine.remove(["model"])

    def bare_of(self, pid: int, directory: Path, network: bool) -> Bare:
        """QEMU alone, as the hypervisor `pid`, which went on from a template."""
        keys = {path: json.loads((path / "key.json").read_text()) for path in self.templates()}
        # One that was made for a container alone is of another size.
        (template,) = (
            path for path, key in keys.items() if key["network"] == network and key["memory"] == MEMORY_BYTES
        )
        return Bare(pid, template, directory)

    def run_inside(self, home: str) -> float:
        """Milliseconds of `run --rm` of a container in a machine."""
        plan = ("--memory", "32M", "--cpus", "0.5", "--pids", "64")
        return self.engine.command("run", "--rm", "--inside", home, *plan, IMAGE, "true")

    def run_warm(self) -> float:
        """Milliseconds of `run` when a guest has become warm for it."""
        self.wait_warm()
        return self.run()

    def wait_warm(self) -> None:
        """Wait until as many guests wait as have been made."""
        deadline = time.monotonic() + PATIENCE
        while not self._waiting():
            if time.monotonic() > deadline:
                raise Unusable("no guest became warm")
            time.sleep(0.05)
        time.sleep(SETTLE_SECONDS)

    def _waiting(self) -> bool:
        """Whether there is a bundle without a record whose guest has nothing to rehearse with any more."""
        known = {row["spec"]["id"] for row in json.loads(self.engine.output("ps", "-a", "--format", "json"))}
        return any(
            path.name not in known and (path / "vm/agent.sock").exists() and not (path / "rehearsal.img").exists()
            for path in (self.engine.home / "state/instances").iterdir()
        )


def _measure(cast: Cast, sizes: Sizes, figure: Figure, machines: Machines) -> None:
    bare = machines.bare(cast.scene.directory("qemu"))
    machines.engine.output("run", "-d", "--name", HOME, *SIZE, IMAGE, *SLEEP)
    try:
        _compete(cast, sizes, figure, machines, bare)
    finally:
        machines.engine.remove([HOME])


def _compete(cast: Cast, sizes: Sizes, figure: Figure, machines: Machines, bare: Bare) -> None:
    name = Bulkhead.name
    ways: list[tuple[str, str, Callable[[], float], int]] = [
        (name, RUN, machines.run_warm, 1),
        (name, RUN_INSIDE, lambda: machines.run_inside(HOME), 1),
        (name, RUN_ALONE, lambda: machines.run_inside("new"), EVERY),
        (name, RUN_COLD, lambda: machines.run("--no-template"), EVERY),
        (name, TEMPLATE, machines.answered, 1),
        (name, COLD, lambda: machines.answered("--no-template"), EVERY),
        ("qemu", BARE, bare.restore, 1),
        ("qemu", BARE_COLD, bare.boot, EVERY),
    ]
    if cast.scene.stock:
        stock = Stock(cast.scene.stock, cast.scene.directory("stock"))
        accelerator = machines.accelerator().lower()
        ways.append(("qemu", STOCK, lambda: stock.boot(accelerator), EVERY))
    else:
        figure.missing.append(Missing(STOCK, "there is no root file system with a distribution's kernel"))
    contenders = [Contender(peer, label, once, every) for peer, label, once, every in ways]
    contenders += cast.contend(figure, Docker, RUN_DOCKER, lambda docker: docker.run_true(network=True), every=2)
    compete(figure, contenders, max(2, sizes.runs // 2))


def _memory(figure: Figure, machines: Machines, count: int) -> None:
    say(f"vm: {count} machines at once")
    names = [f"idle{number}" for number in range(count)]
    with ExitStack() as always:
        for name in names:
            machines.start(name)
            always.callback(machines.engine.remove, [name])
        for name in names:
            machines.engine.output("exec", name, "true")
        pids = [int(row["pid"]) for row in json.loads(machines.engine.output("inspect", *names))]
        figure.add(Bulkhead.name, MEMORY, [processes.private_memory(pid) for pid in pids], unit="MB")
