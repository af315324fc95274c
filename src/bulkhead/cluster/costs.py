"""What moving an instance to another host costs: bytes to carry, how long it takes, how long it stands still."""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead.cluster.snapshot import HostView, Placed
from bulkhead.model import Isolation

AGAIN = 1.3
"""What a live migration carries of memory, over what is in use: some of it is written while it is carried."""
BLACKOUT = 0.3
"""Seconds that a live migration may stand still at its end."""
START = {Isolation.CHROOT: 0.5, Isolation.CONTAINER: 0.5, Isolation.UNIKERNEL: 2.0, Isolation.VM: 10.0}
"""Seconds to stop and to start again, with room to spare: a machine boots."""
USUAL_RATE = 100_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one move."""

    how: str
    """live: it runs on; copied: it is stopped, carried and started; carried: it did not run."""
    size: int
    """Bytes over the link."""
    seconds: float
    downtime: float
    """Seconds, predicted; 0 where it did not run."""


def cost(placed: Placed, source: HostView, target: HostView, rate: int = USUAL_RATE) -> Cost:
    """With a link of `rate` bytes a second. Live goes what can by its own host's word, and only where both hosts run
    machines alike: kvm or tcg. The processors' models are the migration's own preflight.
    """
    if not placed.running:
        return Cost("carried", placed.written, placed.written / rate, 0.0)
    if placed.live and source.speed.accelerator == target.speed.accelerator:
        size = placed.written + int(placed.resident * AGAIN)
        return Cost("live", size, size / rate + BLACKOUT, BLACKOUT)
    seconds = placed.written / rate + START[placed.wanted.level]
    return Cost("copied", placed.written, seconds, seconds)
