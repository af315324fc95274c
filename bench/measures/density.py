"""How many idle nginx fit into so much memory behind each wall, all of them answering, beside podman."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from bench import bounded
from bench.contest import Cast, Sizes, say
from bench.crowd import Order
from bench.figures import Figure, Missing
from bench.peers.bulkhead import Bulkhead
from bench.peers.podman import Podman
from bench.timing import Unusable

WALLS = {"chroot": Bulkhead, "container": Bulkhead, "vm": Bulkhead, "unikernel": Bulkhead, "podman": Podman}
MACHINES = ("vm", "unikernel")
OURS, THEIRS = "bulkhead, container", "podman"
LEAST_RATIO = 1.0
"""Containers of ours for one of podman's."""


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """One wall after the other, each with an engine, a store and a bound of its own."""
    figure = Figure(
        "density",
        f"Idle nginx in {sizes.density / 1e9:g} GB, all answering",
        f"Everything of an engine (daemon, supervisors, page cache, kernel memory) runs in one memory cgroup of "
        f"{sizes.density / 1e9:g} GB. nginx with one worker is started in batches, and after each batch every one of "
        "them is asked for its page. It ends when the kernel ends a process for want of memory, one does not start, or "
        "one does not answer: the figure is how many did before. Where nothing of that comes within "
        f"{sizes.density_seconds:g} s it is the number until then, and a note says so: `each` is what tells of "
        "the wall then, since it does not hang on how fast a host starts them. A unikernel is nginx and its libraries, "
        "with a configuration that writes no files; machines are started once a template is there. `Each`: by how much "
        "what is needed grew from the first to the last of them (what the bound is charged, without page cache that "
        "can be dropped), divided by their number.",
    )
    for wall, peer in WALLS.items():
        if not sizes.wants(wall):
            continue
        label = wall if peer is Podman else f"bulkhead, {wall}"
        if peer.name not in cast.names:
            figure.missing.append(Missing(label, "left out by --peers"))
            continue
        try:
            found = _fill(cast, sizes, wall)
        except Unusable as error:
            figure.missing.append(Missing(label, str(error)))
            continue
        if not found["count"]:
            figure.missing.append(Missing(label, found["why"]))
            continue
        figure.add(peer.name, label, [float(found["count"])], unit="instances")
        if found["each"] > 0:
            figure.add(peer.name, f"{label}, each", [found["each"] / 1e6], unit="MB")
        least = "" if found["full"] else "at least "
        figure.notes.append(f"{label}: {least}{found['count']} in {found['seconds']:g} s; {found['why']}")
    ours, theirs = figure.find(OURS), figure.find(THEIRS)
    if ours and theirs:
        figure.want_ratio("memory of a container", f"{OURS}, each", f"{THEIRS}, each", LEAST_RATIO)
    return figure


def _fill(cast: Cast, sizes: Sizes, wall: str) -> dict[str, Any]:
    scene = cast.scene
    if scene.servers is None or (wall in MACHINES and scene.kernel is None):
        raise Unusable("there is no root file system with nginx, or no kernel")
    name = f"{scene.name}{wall[:2]}"
    order = Order(
        wall=wall,
        size=sizes.density,
        seconds=sizes.density_seconds,
        most=sizes.density_most,
        name=name,
        scratch=str(scene.directory(f"density-{name}")),
        checkout=str(scene.checkout),
        archive=str(scene.servers),
        bulkhead=str(scene.bulkhead),
        kernel=str(scene.kernel or ""),
    )
    say(f"density: {wall}")
    with bounded.bound(f"{name}-bound", sizes.density) as group:
        said = bounded.run(group, "bench.crowd", [json.dumps(asdict(order))], seconds=sizes.density_seconds)
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return found
