"""`true` in an instance that runs: ours through the API and as a whole command, the others' commands."""

from __future__ import annotations

from contextlib import ExitStack

from bench.contest import Cast, Contender, Sizes, compete, sustain
from bench.figures import Figure, Missing
from bench.peers.base import CommandLine
from bench.peers.bulkhead import Bulkhead
from bench.peers.docker import Docker
from bench.peers.podman import Podman
from bench.timing import Unusable

API = "bulkhead API"
ROW = "bulkhead API, in a row"
INSTANCE = "bench-exec"
API_LIMIT = 3.0
"""ms."""
LIMIT = 0.2
"""Of podman's time."""


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """Each engine has one instance that sleeps; all of them in turns."""
    figure = Figure(
        "exec",
        "exec true in a running instance",
        "API: one POST /v1/instances/REF/exec over a kept connection until its exit code has arrived. The others: "
        f"the whole command. `In a row`: {sizes.sustained} without a pause.",
    )
    with ExitStack() as stack:
        contenders: list[Contender] = []
        for kind in (Bulkhead, Podman, Docker):
            try:
                engine: CommandLine = cast.get(kind)
                engine.start_detached(INSTANCE)
            except Unusable as error:
                figure.missing.append(Missing(kind.name, str(error)))
                continue
            stack.callback(engine.remove, [INSTANCE])
            if isinstance(engine, Bulkhead):
                contenders += cast.contend(figure, Bulkhead, API, lambda peer: peer.api.exec_true(INSTANCE))
            contenders += cast.contend(figure, kind, kind.name, _exec)
        compete(figure, contenders, sizes.runs)
        for contender in contenders:
            if contender.label == API and figure.find(API):
                sustain(figure, Contender(contender.peer, ROW, contender.once), sizes.sustained)
    _goals(figure)
    return figure


def _exec(engine: CommandLine) -> float:
    return engine.exec_true(INSTANCE)


def _goals(figure: Figure) -> None:
    for label in (API, ROW):
        series = figure.find(label)
        value = series.summary.median if series else None
        text = "through the API" + (", in a row" if label == ROW else "")
        figure.want(text, API_LIMIT, "ms", value)
    figure.want_ratio("whole command / podman's", "bulkhead", "podman", LIMIT)
