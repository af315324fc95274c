"""A plan's bandwidth as token buckets: one on each end of an instance's link, each limiting what leaves by it. Pure."""

from __future__ import annotations

from bulkhead.host import links
from bulkhead.host.netlink import Message

BURST_SECONDS = 0.005
"""How much may come at once after a pause, as time at the full rate: small, so that short transfers obey too."""
QUEUE_SECONDS = 0.05
"""How long a packet may wait before the queue is full and packets are dropped, which tells TCP to slow down."""
SMALLEST_BURST = 3 * 1514
SMALLEST_QUEUE = 20 * 1514


def rate_message(index: int, bandwidth: int | None, what: str) -> Message:
    """Limit what leaves by a link to `bandwidth` bits per second, Ethernet headers included; None: no limit."""
    if bandwidth is None:
        return links.clear_rate(index, what)
    rate = bandwidth // 8
    burst = max(int(rate * BURST_SECONDS), SMALLEST_BURST)
    queue = burst + max(int(rate * QUEUE_SECONDS), SMALLEST_QUEUE)
    return links.set_rate(index, rate=rate, burst=min(burst, 1 << 31), limit=min(queue, 1 << 31), what=what)
