"""Instances of vector bin packing by chance, of kinds that the literature tells of and of kinds that a provider has:
from a seed, the same each time, with the optimum where the way they are made gives it.

`perfect` cuts whole bins, in all columns to the brim: as many bins are the optimum. Of the others nothing is known but
what is proven while they are packed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from bench.vbp import Instance

Ints = npt.NDArray[np.int64]
Draw = Callable[[np.random.Generator, int], tuple[tuple[int, ...], Ints]]
"""Random numbers, items -> capacities, sizes (items, columns)."""

CAPRARA = {
    1: (1000, (100, 400)),
    2: (1000, (1, 1000)),
    3: (1000, (200, 800)),
    4: (1000, (50, 200)),
    5: (1000, (25, 100)),
    6: (150, (20, 100)),
}
"""Caprara and Toth (2001), columns that do not depend on one another: class -> capacity, least and largest size."""
FLAVOURS = ((1, 2), (1, 4), (2, 4), (2, 8), (2, 16), (4, 8), (4, 16), (4, 32), (8, 16), (8, 32), (8, 64), (16, 64))
"""Cores and GiB that providers sell."""


def made(seed: int = 0) -> list[Instance]:
    """All of them, class by class."""
    return [*_perfect(seed), *_drawn(seed)]


def _rng(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _perfect(seed: int) -> Iterator[Instance]:
    """PARTS items fill each bin to the brim, in all columns."""
    for parts, columns, bins in (
        *((2, 2, 30), (3, 1, 40), (3, 2, 40), (3, 5, 40), (4, 3, 25), (5, 2, 40), (6, 10, 20)),
        *((12, 2, 10), (12, 5, 40), (40, 2, 5), (50, 3, 40), (3, 2, 1000), (10, 4, 500)),
    ):
        name = f"perfect{parts}_{parts * bins}_{columns}_0"
        rng = _rng(name, seed)
        sizes = np.concatenate([_cut(rng, parts, columns) for _ in range(bins)])
        yield _instance(name, (1000,) * columns, rng.permutation(sizes), bins)


def _cut(rng: np.random.Generator, parts: int, columns: int) -> Ints:
    """(parts, columns) whole numbers, each column 1000 in all."""
    share = rng.dirichlet(np.full(parts, 6.0), columns).T * 1000
    sizes = share.astype(np.int64)
    sizes[-1] += 1000 - sizes.sum(axis=0)
    return sizes


def _drawn(seed: int) -> Iterator[Instance]:
    for group, draw, numbers in _classes():
        for number in numbers:
            rng = _rng(f"{group}_{number}", seed)
            capacity, sizes = draw(rng, number)
            yield _instance(f"{group}_{number}_{len(capacity)}_0", capacity, sizes, None)


def _instance(name: str, capacity: tuple[int, ...], sizes: Ints, optimum: int | None) -> Instance:
    rows = tuple(tuple(float(size) for size in row) for row in sizes.tolist())
    return Instance("made", name, tuple(float(room) for room in capacity), rows, optimum)


def _classes() -> Iterator[tuple[str, Draw, tuple[int, ...]]]:
    """Name, what draws it, numbers of items."""
    for columns in (2, 5, 10):
        for number, (room, (low, high)) in CAPRARA.items():
            yield f"caprara{number}", _uniform(columns, room, low, high), (120,)
        for number in (120, 500):
            yield "caprara7", _leaning(columns, lambda one: one), (number,)
            yield "caprara8", _leaning(columns, lambda one: 120 - one), (number,)
    for columns in (6, 10, 20):
        yield f"many{columns}", _uniform(columns, 1000, 50, 350), (60, 200)
    yield "small", _uniform(3, 1000, 5, 60), (500, 2000, 5000)
    yield "large", _uniform(2, 1000, 50, 500), (1000, 4000, 10000)
    yield "sparse", _sparse, (100, 400, 2000)
    yield "counted", _counted, (200, 1000)
    yield "repeated", _repeated, (500, 3000)
    yield "flavours", _flavours, (300, 2000)
    yield "skewed", _skewed, (200, 1000, 5000)


def _uniform(columns: int, room: int, low: int, high: int) -> Draw:
    return lambda rng, number: ((room,) * columns, rng.integers(low, high, (number, columns), endpoint=True))


def _leaning(columns: int, of: Callable[[Ints], Ints]) -> Draw:
    """Each column goes with the one before it, or against it (Caprara and Toth, classes 7 and 8)."""

    def draw(rng: np.random.Generator, number: int) -> tuple[tuple[int, ...], Ints]:
        sizes = [rng.integers(20, 100, number, endpoint=True)]
        for _ in range(columns - 1):
            sizes.append(np.clip(of(sizes[-1]) + rng.integers(-10, 10, number, endpoint=True), 1, 150))
        return (150,) * columns, np.stack(sizes, axis=1)

    return draw


def _sparse(rng: np.random.Generator, number: int) -> tuple[tuple[int, ...], Ints]:
    """Much of one or two columns of six, nothing or little of the others."""
    sizes = rng.integers(0, 40, (number, 6))
    for _ in range(2):
        sizes[np.arange(number), rng.integers(0, 6, number)] = rng.integers(100, 600, number)
    return (1000,) * 6, sizes


def _counted(rng: np.random.Generator, number: int) -> tuple[tuple[int, ...], Ints]:
    """One size, and no more than seven on a host."""
    return (1000, 7), np.stack([rng.integers(20, 400, number), np.ones(number, np.int64)], axis=1)


def _repeated(rng: np.random.Generator, number: int) -> tuple[tuple[int, ...], Ints]:
    """Thirty kinds of items, many of each."""
    return (1000,) * 4, rng.integers(40, 400, (30, 4))[rng.integers(0, 30, number)]


def _flavours(rng: np.random.Generator, number: int) -> tuple[tuple[int, ...], Ints]:
    """What is sold, the small far more often."""
    share = 1.0 / (1.0 + np.arange(len(FLAVOURS)))
    chosen = np.array(FLAVOURS)[rng.choice(len(FLAVOURS), number, p=share / share.sum())]
    disk = rng.choice([20, 40, 80, 160, 500], (number, 1), p=[0.3, 0.3, 0.2, 0.15, 0.05])
    return (64, 256, 2000), np.concatenate([chosen, disk], axis=1)


def _skewed(rng: np.random.Generator, number: int) -> tuple[tuple[int, ...], Ints]:
    """As measured use: most items are tiny, a few take half a host, columns go together loosely."""
    base = rng.lognormal(3.5, 1.0, (number, 1))
    return (1000,) * 4, np.clip(base * rng.lognormal(0.0, 0.6, (number, 4)), 1, 700).astype(np.int64)
