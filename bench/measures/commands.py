"""`run --rm IMAGE true` with a network, as a whole process of the command line."""

from __future__ import annotations

from bench.contest import Cast, Sizes, compete
from bench.figures import Figure
from bench.peers.base import CommandLine
from bench.peers.bulkhead import Bulkhead
from bench.peers.docker import Docker
from bench.peers.podman import Podman

LIMIT = 0.25
"""Of podman's time with a network."""


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """The three engines in turns, with and without a network."""
    figure = Figure(
        "cli",
        "run --rm IMAGE true, whole command",
        "From before the process is spawned until it has ended; the default network of each engine, and none.",
    )
    contenders = []
    for kind in (Bulkhead, Podman, Docker):
        every = 1 if kind is not Docker else 2
        contenders += cast.contend(figure, kind, f"{kind.name}, network", _networked, every=every)
        contenders += cast.contend(figure, kind, kind.name, _alone, every=2 * every)
    compete(figure, contenders, sizes.runs)
    figure.want_ratio("whole command / podman's, with a network", "bulkhead, network", "podman, network", LIMIT)
    return figure


def _networked(engine: CommandLine) -> float:
    return engine.run_true(network=True)


def _alone(engine: CommandLine) -> float:
    return engine.run_true(network=False)
