"""How good a host is for an instance that it could take: a whole number, higher is better.

What comes out is 0 to MILLION of the policy, on top BONUS where the host has the image, and for soft affinity up to
its weight. Each step is one that numpy does alike, to the last bit: the index must come to the same.
"""

from __future__ import annotations

from typing import Literal, get_args

from bulkhead.cluster.rules import neighbours
from bulkhead.cluster.snapshot import HostView, Wanted

Policy = Literal["pack", "spread", "balance"]
"""pack: few hosts awake, the fullest first. spread: the one whose scarcest resource is used least. balance: the one
where memory, cpu and disk are used most evenly afterwards, so that nothing is left over that cannot be sold."""
POLICIES: tuple[Policy, ...] = get_args(Policy)
WEIGHED = ("memory", "cpu", "disk")
MILLION = 1_000_000
BONUS = 50_000
"""For an image that need not be pulled: less than any real difference in use."""
SOFT = 4_000
"""For each hundredth of a soft term's weight: one with the usual weight outweighs a fifth of a host."""


def score(host: HostView, wanted: Wanted, policy: Policy) -> int:
    """Of a host that would do."""
    takes = wanted.need.on(host.speed)
    use = [_use(host, name, host.sold.of(name) + takes.of(name)) for name in WEIGHED]
    points = int(_points(policy, use[0], use[1], use[2], awake=bool(host.instances)) * MILLION)
    if wanted.image and wanted.image in host.images:
        points += BONUS
    here = neighbours(host, wanted)
    for term in wanted.terms:
        if not term.hard and any(map(term.matches, here)):
            points += SOFT * (-term.weight if term.away else term.weight)
    return points


def _use(host: HostView, name: str, sold: int) -> float:
    """0 to 1; what is not sold by is never used up."""
    share = host.has.shares.get(name)
    if share is None:
        return 0.0
    return min(1.0, max(0.0, float(sold) / float(share.sellable))) if share.sellable else 1.0


def _points(policy: Policy, memory: float, cpu: float, disk: float, *, awake: bool) -> float:
    mean = (memory + cpu + disk) / 3.0
    most = max(memory, cpu, disk)
    if policy == "pack":
        return 0.5 * mean + (0.5 if awake else 0.0)
    if policy == "spread":
        return 1.0 - most
    return 1.0 - (0.75 * (most - min(memory, cpu, disk)) + 0.25 * mean)
