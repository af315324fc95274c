"""Fewer columns for demands over many time steps: on the safe side to find answers, on the other side to find bounds.

`safe`: steps that are alike become one, with the largest size and the least room among them. What fits there fits in
each step. `loose`: the steps in which most is asked for, as they are. What does not fit there does not fit at all.
"""

from __future__ import annotations

import numpy as np

from bulkhead.advise.packing.core import Core, Ints
from bulkhead.advise.packing.model import Floats

COLUMNS = 64
"""As many are searched with; more are reduced."""
TURNS = 12
"""Of the grouping of steps."""


def safe(core: Core, resources: int, steps: int) -> Core:
    """At most about COLUMNS columns; what fits by them fits by all."""
    if core.size.shape[1] <= COLUMNS:
        return core
    group = _alike(core, resources, steps, max(1, COLUMNS // resources))
    groups = int(group.max()) + 1
    size = np.zeros((len(core.count), resources, groups))
    room = np.zeros((len(core.cost), resources, groups))
    sizes, rooms = core.size.reshape(-1, resources, steps), core.room.reshape(-1, resources, steps)
    for number in range(groups):
        size[:, :, number] = sizes[:, :, group == number].max(axis=2)
        room[:, :, number] = rooms[:, :, group == number].min(axis=2)
    return core.seen(size.reshape(len(core.count), -1), room.reshape(len(core.cost), -1))


def loose(core: Core, columns: int = COLUMNS // 2) -> Core:
    """Some of the columns, those that most is asked of."""
    if core.size.shape[1] <= columns:
        return core
    asked = (core.count @ core.size) / np.maximum(core.room.max(axis=0), 1e-12)
    chosen = np.sort(np.argsort(-asked, kind="stable")[:columns])
    return core.seen(core.size[:, chosen], core.room[:, chosen])


def _alike(core: Core, resources: int, steps: int, groups: int) -> Ints:
    """(steps,) the group of each step: means of groups, as they come out after some turns (Lloyd)."""
    rng = np.random.default_rng(0)
    items = len(core.count)
    sizes = core.size.reshape(items, resources, steps)
    # What many items ask for is told by a few mixtures of them as well.
    mixture = rng.normal(size=(16, items)) / np.sqrt(items)
    points = np.concatenate([np.einsum("mi,irs->mrs", mixture, sizes).reshape(-1, steps), sizes.sum(axis=0)]).T
    points = points - points.mean(axis=0)
    order = np.argsort(points[:, -resources:].sum(axis=1), kind="stable")
    group = np.empty(steps, np.int64)
    group[order] = np.arange(steps) * groups // steps
    for _ in range(TURNS):
        used, group = np.unique(group, return_inverse=True)
        means = np.array([points[group == number].mean(axis=0) for number in range(len(used))])
        group = np.argmin(_distances(points, means), axis=1)
    return np.unique(group, return_inverse=True)[1].astype(np.int64)


def _distances(points: Floats, means: Floats) -> Floats:
    """(points, means), without what is the same for all means of a point."""
    found: Floats = (means**2).sum(axis=1)[None, :] - 2.0 * (points @ means.T)
    return found
