"""Leases of etcd that renew themselves, and whose holder never believes longer than etcd does that it holds them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from bulkhead.errors import Unavailable
from bulkhead.store.etcd.gateway import PATIENCE, Gateway, Rejected, Unsure

MARGIN = 0.01
"""Part of a lease's time that is not relied on: clocks of two hosts may run at speeds that differ by less than this."""
_LEAST_TTL = 2
_TRY_AGAIN = 0.2
"""Seconds between renewals that fail."""
_JOIN = 2 * PATIENCE


class _Gone(Exception):
    """etcd says that the lease is not there."""


class HeldLease:
    """A Lease. `clock` gives seconds, and runs on while the host is suspended; `ended` is called when it is closed."""

    def __init__(
        self,
        gateway: Gateway,
        lease: int,
        ttl: int,
        *,
        begun: float,
        ended: Callable[[HeldLease], None],
        clock: Callable[[], float],
    ) -> None:
        self._gateway, self._id, self._ttl, self._ended, self._clock = gateway, lease, ttl, ended, clock
        self._until = begun + ttl * (1 - MARGIN)
        self._terms: dict[int, int] = {}
        self.lost = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{lease:x}", daemon=True)

    @classmethod
    def granted(
        cls,
        gateway: Gateway,
        ttl: float,
        *,
        ended: Callable[[HeldLease], None],
        clock: Callable[[], float] | None = None,
    ) -> HeldLease:
        """A new one. Raises Unavailable."""
        clock = clock or _boottime
        lease, whole = secrets.randbits(62) + 1, max(_LEAST_TTL, -int(-ttl // 1))
        begun = clock()
        try:
            answer = gateway.call("lease/grant", {"TTL": str(whole), "ID": str(lease)})
            whole = int(answer.get("TTL", whole))
        except Rejected as error:
            if "already exists" not in error.message:  # asked twice, and done the first time
                raise error.error() from error
        made = cls(gateway, lease, whole, begun=begun, ended=ended, clock=clock)
        made._thread.start()
        return made

    @property
    def id(self) -> int:
        """See Lease.id."""
        return self._id

    @property
    def ttl(self) -> float:
        """See Lease.ttl."""
        return float(self._ttl)

    def remaining(self) -> float:
        """See Lease.remaining."""
        return 0.0 if self.lost.is_set() else max(0.0, self._until - self._clock())

    def revoke(self) -> None:
        """See Lease.revoke."""
        if self._stop.is_set() and self.lost.is_set():
            return
        self.lost.set()
        self.close()
        with suppress(Unavailable, Rejected):
            self._gateway.call("lease/revoke", {"ID": str(self._id)})

    def close(self) -> None:
        """Renew it no more. Idempotent."""
        self._stop.set()
        self._ended(self)
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN)

    # --- inside

    def _keep(self) -> None:
        wait = self._ttl / 3
        while not self._stop.wait(min(wait, self.remaining())):
            if not self.remaining():
                break
            try:
                wait = self._ttl / 3 if self._renew() else _TRY_AGAIN
            except _Gone:
                break
        if not self._stop.is_set():
            self.lost.set()
            self._ended(self)

    def _renew(self) -> bool:
        """Whether it was renewed. Raises _Gone."""
        for member in self._gateway.order():
            left = self.remaining()
            if not left or self._stop.is_set():
                return False
            with suppress(Unsure, Unavailable, Rejected):
                if self._renewed_by(member, min(PATIENCE, left / 4)):
                    return True
        return False

    def _renewed_by(self, member: int, timeout: float) -> bool:
        """Renew by this member; False where it cannot be relied on.

        A leader that was stopped while the others elected a new one still renews, for a moment after it goes on, what
        the others may have ended (3.4.23 does not ask them). So the answer counts only where a majority had the same
        leader before and after it.
        """
        before = self._terms.pop(member, 0) or self._gateway.term(member, timeout=timeout)
        begun = self._clock()
        answer = self._gateway.ask(member, "lease/keepalive", {"ID": str(self._id)}, timeout=timeout)
        ttl = int(answer["result"].get("TTL", 0)) if "result" in answer else None
        after = self._gateway.term(member, timeout=timeout)
        self._terms[member] = after
        if before != after or ttl is None:
            return False
        if ttl <= 0:
            raise _Gone
        if self._clock() >= self._until:
            return False  # its holder has been told that it is lost
        self._until = begun + ttl * (1 - MARGIN)
        return True


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
