"""Memory that the engines themselves use while many instances run."""

from __future__ import annotations

import time

from bench import processes
from bench.contest import Cast, Sizes, say
from bench.figures import Figure, Missing
from bench.measures.burst import start_many
from bench.peers.base import CommandLine
from bench.peers.bulkhead import Bulkhead
from bench.peers.docker import Docker
from bench.peers.podman import Podman
from bench.timing import Unusable

KEEPER_LIMIT, DAEMON_LIMIT = 0.3, 120.0
"""MB."""
SETTLE_SECONDS = 2.0


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """One engine after the other: start them all, look, remove them."""
    figure = Figure(
        "memory",
        f"Memory of the engine with {sizes.running} running",
        "Per container: PSS of the processes that exist once per container (agent, conmon, containerd-shim) divided "
        "by their number. Daemon: RSS of the processes that exist once, added up; podman has none. Host: by how much "
        "the host's MemAvailable fell, divided by their number, so with the kernel's part and that of `sleep`.",
    )
    for kind in (Bulkhead, Podman, Docker):
        try:
            _look(cast.get(kind), figure, sizes)
        except Unusable as error:
            figure.missing.append(Missing(kind.name, str(error)))
    for text, label, limit in (
        ("per container", "bulkhead, per container", KEEPER_LIMIT),
        (f"daemon with {sizes.running} running", "bulkhead, daemon", DAEMON_LIMIT),
    ):
        series = figure.find(label)
        value = series.summary.median if series else None
        figure.want(text, limit, "MB", value)
    return figure


def _look(engine: CommandLine, figure: Figure, sizes: Sizes) -> None:
    say(f"memory: {sizes.running} x {engine.name}")
    before = processes.available_memory()
    start_many(engine, sizes.running, sizes.width, remove=False)
    try:
        time.sleep(SETTLE_SECONDS)
        fallen = before - processes.available_memory()
        keepers, daemons = engine.keepers(), engine.daemons()
        if len(keepers) != sizes.running:
            raise Unusable(f"{len(keepers)} keepers found for {sizes.running} containers")
        shares = [processes.proportional_memory([pid]) for pid in keepers]
        figure.add(engine.name, f"{engine.name}, per container", shares, unit="MB")
        if fallen > 0:
            figure.add(engine.name, f"{engine.name}, host, per container", [fallen / sizes.running], unit="MB")
        else:  # somebody else gave back more than they took
            figure.missing.append(Missing(f"{engine.name}, host, per container", "the host is too busy to tell"))
        if daemons:
            total = processes.resident_memory(daemons)
            figure.add(engine.name, f"{engine.name}, daemon", [total], unit="MB")
            parts = [f"{processes.name_of(pid)} {processes.resident_memory([pid]):.1f} MB" for pid in daemons]
            figure.notes.append(f"{engine.name}'s daemon: {', '.join(parts)}")
    finally:
        engine.remove([f"bench-{number}" for number in range(sizes.running)])
