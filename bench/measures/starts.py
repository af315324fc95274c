"""Start + `true` + remove: ours through the API beside programs that start a root file system and nothing else."""

from __future__ import annotations

from bench.contest import Cast, Contender, Sizes, compete, sustain
from bench.figures import Figure, Missing, Series
from bench.peers.base import Starter
from bench.peers.bulkhead import Bulkhead
from bench.peers.floor import Floor
from bench.peers.plain import Bwrap, Chroot, Lxc, Nspawn
from bench.peers.runc import Crun, Runc
from bench.timing import Unusable

ALONE, NETWORKED = "bulkhead API", "bulkhead API, network"
SUSTAINED, SUSTAINED_NETWORKED = "bulkhead API, in a row", "bulkhead API, network, in a row"
LIMIT = 0.2
"""Of bare runc's time."""
NETWORK_LIMIT = 4.0
"""ms that the default network may add."""


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """Ours in turns with the others, then ours alone in a row, in which pools have no time to be filled again."""
    figure = Figure(
        "starts",
        "Start + true + remove",
        "Ours: one POST /v1/run over a kept connection, until the instance is removed; `network` is the default "
        "network. The others: the whole command on the same root file system, unpacked, without a network. "
        f"`In a row`: {sizes.sustained} starts without a pause, after the turns.",
    )
    ours = _ours(cast, figure)
    contenders = ours[:]
    for kind in (Runc, Crun, Nspawn, Lxc, Bwrap, Chroot):
        contenders += cast.contend(figure, kind, kind.name, _alone)
    compete(figure, contenders, sizes.runs)
    for contender in filter(lambda contender: figure.find(contender.label), ours):
        sustain(figure, Contender(contender.peer, f"{contender.label}, in a row", contender.once), sizes.sustained)
    _floor(cast, figure)
    _goals(figure, sizes)
    return figure


def _alone(peer: Starter) -> float:
    return peer.run_true(network=False)


def _ours(cast: Cast, figure: Figure) -> list[Contender]:
    return [
        *cast.contend(figure, Bulkhead, ALONE, lambda peer: peer.api.run_true(network=False)),
        *cast.contend(figure, Bulkhead, NETWORKED, lambda peer: peer.api.run_true(network=True)),
    ]


def _floor(cast: Cast, figure: Figure) -> None:
    try:
        floor = cast.get(Floor)
        for network, summary in floor.measure().items():
            label = "floor, network namespace" if network else "floor"
            figure.series.append(Series(floor.name, label, "ms", summary))
    except Unusable as error:
        figure.missing.append(Missing("floor", str(error)))


def _goals(figure: Figure, sizes: Sizes) -> None:
    figure.want_ratio("through the API / bare runc", ALONE, Runc.name, LIMIT)
    figure.want_ratio(f"through the API, {sizes.sustained} in a row / bare runc", SUSTAINED, Runc.name, LIMIT)
    for text, with_network, without in (
        ("what the default network adds", NETWORKED, ALONE),
        (f"what the default network adds, {sizes.sustained} in a row", SUSTAINED_NETWORKED, SUSTAINED),
    ):
        slow, fast = figure.find(with_network), figure.find(without)
        added = slow.summary.median - fast.summary.median if slow and fast else None
        figure.want(text, NETWORK_LIMIT, "ms", added)
