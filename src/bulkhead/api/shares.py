"""The engine's threads as a tenant gets them: no more than its share, so that none keeps the others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from bulkhead.api.service import CALL_THREADS, LONG_THREADS, Engine, Service
from bulkhead.errors import TooMany

P = ParamSpec("P")
T = TypeVar("T")
CALL_SHARE, LONG_SHARE = CALL_THREADS // 4, LONG_THREADS // 4
"""What one tenant may have of the threads."""
MOST_WAITING = 256
"""Calls of one tenant that wait for its share; one more is refused."""


class TenantService(Service):
    """The service as a tenant gets it: the engine as it sees it, and no more than its share of the threads."""

    def __init__(self, whole: Service, engine: Engine) -> None:
        self.engine = engine
        self.editing = whole.editing
        self.stopping = whole.stopping
        self._whole = whole
        self._share = asyncio.Semaphore(CALL_SHARE)
        self._waiting = 0
        self._long_running = 0

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See Service.call. Raises TooMany where the tenant has that many calls waiting."""
        if self._waiting >= MOST_WAITING:
            raise TooMany(f"{MOST_WAITING} requests of this tenant are waiting already", hint="make fewer at once")
        self._waiting += 1
        try:
            async with self._share:
                return await self._whole.call(function, *args, **kwargs)
        finally:
            self._waiting -= 1

    def begin_long(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """See Service.begin_long. Raises TooMany where the tenant has its share already."""
        if self._long_running >= LONG_SHARE:
            raise TooMany(f"{LONG_SHARE} long requests of this tenant are served already", hint="end some of them")
        future = self._whole.begin_long(function, *args, **kwargs)
        self._long_running += 1
        future.add_done_callback(self._end_long)
        return future

    def seen_by(self, tenant: str | None) -> Service:
        """As the whole service says."""
        return self._whole.seen_by(tenant)

    def stop(self) -> None:
        """As the whole service does."""
        self._whole.stop()

    def close(self) -> None:
        """The threads are the whole service's."""
