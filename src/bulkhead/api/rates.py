"""How often one may ask: so many requests of one user, so many failed sign-ins of one address. In memory, bounded."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from bulkhead.errors import TooMany

REQUESTS, BURST = 50.0, 200.0
"""Requests a second of one user, and how many at once."""
FAILURES, FAILURE_SECONDS = 10.0, 60.0
"""Failed sign-ins of one address in so many seconds."""
MOST_KNOWN = 8192
"""Users, and addresses, of whom the last requests are remembered."""


class Buckets:
    """Token buckets by name: `rate` a second, at most `burst` at once. Those that were not asked for longest go."""

    def __init__(self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, name: str) -> float:
        """Seconds until `name` may do one more; 0 where it may now."""
        left = self._now(name)
        return 0.0 if left >= 1.0 else (1.0 - left) / self._rate

    def take(self, name: str) -> None:
        """Count one."""
        self._left[name] = (max(0.0, self._now(name) - 1.0), self._clock())
        self._left.move_to_end(name)
        while len(self._left) > MOST_KNOWN:
            self._left.popitem(last=False)

    def _now(self, name: str) -> float:
        left, when = self._left.get(name, (self._burst, self._clock()))
        return min(self._burst, left + (self._clock() - when) * self._rate)


class Rates:
    """What a door asks before it lets somebody in. Used in the event loop alone."""

    def __init__(self) -> None:
        self._requests = Buckets(REQUESTS, BURST)
        self._failures = Buckets(FAILURES / FAILURE_SECONDS, FAILURES)

    def check_address(self, address: str) -> None:
        """Raise TooMany where an address has failed to sign in too often."""
        if wait := self._failures.wait(network_of(address)):
            raise TooMany("too many failed sign-ins from this address", hint="wait, then check the token", after=wait)

    def failed(self, address: str) -> None:
        """A sign-in has failed."""
        self._failures.take(network_of(address))

    def check_user(self, user: str) -> None:
        """Count a request. Raises TooMany where there were too many."""
        if wait := self._requests.wait(user):
            raise TooMany(f"too many requests of {user}: {REQUESTS:g} a second may last", after=wait)
        self._requests.take(user)


def network_of(address: str) -> str:
    """What one client can easily have more of: an IPv4 address, a /64 of IPv6."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return address
