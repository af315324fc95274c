"""How well sizes hold for days that nobody has seen: all but the last week is learned from, and that week is played.

What was measured for less than three weeks is judged by its last day, for less than three days not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bulkhead.advise import simulating, sizing
from bulkhead.advise.arranging import Wish, arrange
from bulkhead.advise.estate import DAY, WEEK, Estate
from bulkhead.advise.prices import Prices
from bulkhead.errors import Refused
from bulkhead.model import Isolation

PARTS = ((3 * WEEK, WEEK), (3 * DAY, DAY))
"""Seconds that were measured at least, and of these the last ones, which are held out."""


@dataclass(frozen=True, slots=True)
class Held:
    """What came of the days that were held out."""

    learned_days: float
    checked_days: float
    servers: int
    """That an arrangement by what was learned needs."""
    saved: float
    """The part of the power that it saves in the days held out."""
    short: float
    """The part of that time in which any workload got less than it wanted."""
    worst: str
    worst_short: float


def held_out(
    estate: Estate, levels: Mapping[str, Isolation], prices: Prices, wish: Wish, *, seconds: float, seed: int
) -> Held | None:
    """None: too little was measured, or what was learned fits nowhere."""
    last = next((part for least, part in PARTS if estate.seconds >= least), 0)
    steps = int(last // estate.step) if last else 0
    if not 0 < steps < estate.steps:
        return None
    known = part(estate, 0, estate.steps - steps)
    sizes = sizing.sizes(known, sizing.slots(known), prices)
    wants = {name: sizing.with_wall(sized, levels[name], prices) for name, sized in sizes.items()}
    try:
        made = arrange(known, levels, wants, prices, wish, seconds=seconds, seed=seed)
    except Refused:
        return None
    plans = {name: sized.plan for name, sized in sizes.items()}
    unseen = part(estate, estate.steps - steps, estate.steps)
    played = simulating.play(unseen, made.places, made.bare, levels=levels, plans=plans, prices=prices)
    return Held(
        known.seconds / DAY,
        unseen.seconds / DAY,
        len(made.hosts),
        played.saved,
        played.short,
        played.worst,
        played.worst_short,
    )


def part(estate: Estate, begin: int, end: int) -> Estate:
    """The same estate, measured from one step to another."""
    loads = []
    for load in estate.loads:
        use = load.use[:, begin:end]
        loads.append(replace(load, use=use, cpu_mean=float(use[0].mean())))
    return replace(estate, loads=tuple(loads), start=estate.start + begin * estate.step, steps=end - begin)
