"""Many detached starts at a time through the command line, with a network."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from bench.contest import Cast, Sizes, progress
from bench.figures import Figure, Missing
from bench.peers.base import CommandLine
from bench.peers.bulkhead import Bulkhead
from bench.peers.docker import Docker
from bench.peers.podman import Podman
from bench.timing import Unusable

LIMIT = 0.25
"""Of podman's time."""
TAIL_LIMIT = 5.0
"""Most that the slow ones may take, in medians of starts on an idle host."""
IDLE_STARTS = 10


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """Rounds in turns. A round: so many starts, so many at a time; then all are removed, untimed."""
    figure = Figure(
        "burst",
        f"{sizes.burst} detached starts, {sizes.width} at a time",
        f"`run -d IMAGE sleep infinity` with each engine's default network, {sizes.width} commands at a time: time "
        "until the last has returned, and of single commands. `Idle`: one command at a time.",
    )
    engines = _engines(cast, figure)
    rounds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    singles: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for turn in range(sizes.rounds):
        for engine in engines if turn % 2 == 0 else engines[::-1]:
            if figure.reason(engine.name):
                continue
            progress(f"{figure.key}: {engine.name}", turn + 1, sizes.rounds)
            try:
                if turn == 0:
                    figure.add(engine.name, f"{engine.name}, idle", _idle(engine, min(IDLE_STARTS, sizes.burst)))
                whole, each = start_many(engine, sizes.burst, sizes.width)
                rounds[engine.name].append(whole)
                singles[engine.name] += each
            except Unusable as error:
                figure.missing.append(Missing(engine.name, str(error)))
    for engine in engines:
        if not figure.reason(engine.name):
            figure.add(engine.name, engine.name, rounds[engine.name])
            figure.add(engine.name, f"{engine.name}, single", singles[engine.name])
    _goals(figure)
    return figure


def start_many(engine: CommandLine, count: int, width: int, *, remove: bool = True) -> tuple[float, list[float]]:
    """Milliseconds of all starts together and of each; instances are named bench-0, bench-1, ..."""
    names = [f"bench-{number}" for number in range(count)]
    start = time.perf_counter()
    with ThreadPoolExecutor(width) as pool:
        futures = [pool.submit(engine.start_detached, name) for name in names]
    whole = (time.perf_counter() - start) * 1000
    failed = [future.exception() for future in futures if future.exception()]
    if failed:
        with suppress(Unusable):  # what went wrong first is what counts
            engine.remove([name for name, future in zip(names, futures, strict=True) if not future.exception()])
        raise Unusable(f"{len(failed)} of {count} starts failed: {failed[0]}")
    if remove:
        engine.remove(names)
    return whole, [future.result() for future in futures]


def _engines(cast: Cast, figure: Figure) -> list[CommandLine]:
    engines: list[CommandLine] = []
    for kind in (Bulkhead, Podman, Docker):
        try:
            engines.append(cast.get(kind))
        except Unusable as error:
            figure.missing.append(Missing(kind.name, str(error)))
    return engines


def _idle(engine: CommandLine, count: int) -> list[float]:
    names = [f"bench-idle-{number}" for number in range(count)]
    took = [engine.start_detached(name) for name in names]
    engine.remove(names)
    return took


def _goals(figure: Figure) -> None:
    figure.want_ratio("time of all starts / podman's", "bulkhead", "podman", LIMIT)
    idle, single = figure.find("bulkhead, idle"), figure.find("bulkhead, single")
    tail = single.summary.p99 / idle.summary.median if idle and single and single.summary.p99 else None
    figure.want("p99 of single starts / idle median", TAIL_LIMIT, "x", tail)
