"""Who takes part, and running them in turns so that the host's noise meets everybody alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.asking import Client
from bench.figures import Figure, Missing
from bench.peers.base import Peer, Scene
from bench.peers.buildah import Buildah
from bench.peers.bulkhead import Bulkhead
from bench.peers.docker import Docker
from bench.peers.floor import Floor
from bench.peers.plain import Bwrap, Chroot, Lxc, Nspawn
from bench.peers.podman import Podman
from bench.peers.runc import Crun, Runc
from bench.timing import Unusable

PEERS: tuple[type[Peer], ...] = (Bulkhead, Runc, Crun, Podman, Buildah, Docker, Nspawn, Lxc, Bwrap, Chroot, Floor)
P = TypeVar("P", bound=Peer)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    runs: int = 30
    """Runs of each contender of a figure, in turns."""
    sustained: int = 100
    """Starts in a row without a pause."""
    burst: int = 40
    width: int = 8
    """`burst` detached starts, `width` at a time, `rounds` times."""
    rounds: int = 3
    running: int = 100
    """Instances that run while memory is looked at."""
    imports: int = 5
    builds: int = 10
    import_bytes: int = 150_000_000
    rogues: tuple[str, ...] = ()
    """Which of the rogues, as often as they are named; () all of them, once each."""
    rogue_seconds: float = 10.0
    """For which a victim is looked at beside each of them."""
    density: int = 8_000_000_000
    """Bytes into which idle servers are to fit ..."""
    density_seconds: float = 130.0
    """... for each wall, the seconds in which they are started ..."""
    density_most: int = 4000
    """... and the number that is enough."""
    walls: tuple[str, ...] = ()
    """Of plans and density these alone; none: all of them."""

    vbp: Path | None = None
    """Where instances of packing are; None: those that come with the project."""
    packing_seconds: float = 10.0
    """For each of them ..."""
    packing_every: int = 1
    """... of which every so-manieth is taken ..."""
    packing_classes: tuple[str, ...] = ()
    """... of these collections or classes; (): of all ..."""
    packing_known: bool = False
    """... with a known optimum alone."""
    packing_made: bool = False
    """Instead of those of a directory some that are made by chance."""
    packing_cpu: bool = False
    """The seconds are those of the processor, not those of the clock on the wall."""

    def wants(self, wall: str) -> bool:
        """Whether a wall is to be looked at."""
        return not self.walls or wall in self.walls


QUICK = Sizes(
    runs=3,
    sustained=5,
    burst=4,
    width=2,
    rounds=1,
    running=3,
    imports=1,
    builds=2,
    import_bytes=20_000_000,
    rogues=("forks", "memory"),
    rogue_seconds=2,
    density=700_000_000,
    density_seconds=30.0,
    density_most=17,
)


@dataclass(frozen=True, slots=True)
class Contender:
    """One thing to be measured again and again; `every`: only in each so-manieth turn, where it is slow."""

    peer: str
    label: str
    once: Callable[[], float]
    every: int = 1


@dataclass(slots=True)
class Cast:
    """The peers of a run, each set up when it is first needed."""

    scene: Scene
    stack: ExitStack
    names: frozenset[str]
    """Those asked for."""
    client: Client | None = None
    """That asks servers from outside, once there is one."""
    versions: dict[str, str] = field(default_factory=dict)
    _ready: dict[type[Peer], Peer] = field(default_factory=dict)
    _failed: dict[type[Peer], str] = field(default_factory=dict)

    def get(self, kind: type[P]) -> P:
        """A peer that works. Raises Unusable with the reason, the same each time, for one that does not."""
        if kind.name not in self.names:
            raise Unusable("left out by --peers")
        if kind in self._failed:
            raise Unusable(self._failed[kind])
        peer = self._ready.get(kind)
        if peer is None:
            say(f"setting up {kind.name}")
            peer = kind()
            try:
                self.versions[kind.name] = peer.setup(self.scene, self.stack)
            except (Unusable, OSError) as error:
                self._failed[kind] = str(error)
                say(f"{kind.name} cannot be measured: {error}")
                raise Unusable(str(error)) from error
            self._ready[kind] = peer
        if not isinstance(peer, kind):
            raise TypeError(kind)
        return peer

    def contend(
        self, figure: Figure, kind: type[P], label: str, action: Callable[[P], float], *, every: int = 1
    ) -> list[Contender]:
        """A contender, or none and an entry in the figure's list of the missing."""
        try:
            peer = self.get(kind)
        except Unusable as error:
            figure.missing.append(Missing(label, str(error)))
            return []
        return [Contender(kind.name, label, lambda: action(peer), every)]


def compete(figure: Figure, contenders: Sequence[Contender], runs: int) -> None:
    """Run everybody once to warm up, then in turns, every other turn backwards; add the series to the figure."""
    values: dict[str, list[float]] = {contender.label: [] for contender in contenders}
    out: set[str] = set()
    for turn in range(-1, runs):
        progress(figure.key, turn + 1, runs)
        for contender in contenders if turn % 2 else reversed(contenders):
            if contender.label in out or (turn > 0 and turn % contender.every):
                continue
            try:
                took = contender.once()
            except Unusable as error:
                out.add(contender.label)
                figure.missing.append(Missing(contender.label, str(error)))
                continue
            if turn >= 0:
                values[contender.label].append(took)
    for contender in contenders:
        if contender.label not in out:
            figure.add(contender.peer, contender.label, values[contender.label])


def sustain(figure: Figure, contender: Contender, runs: int) -> None:
    """Run one contender many times without a pause."""
    values = []
    try:
        for turn in range(runs):
            progress(contender.label, turn + 1, runs)
            values.append(contender.once())
    except Unusable as error:
        figure.missing.append(Missing(contender.label, f"after {len(values)} runs: {error}"))
        return
    figure.add(contender.peer, contender.label, values)


def say(text: str) -> None:
    """A line for who watches."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def progress(label: str, done: int, total: int) -> None:
    """How far a series is; only where somebody watches a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K  {label}: {done}/{total}")
        sys.stderr.flush()
