"""What goes on for long goes on for whoever may: it ends with the token that has opened it, or with its user.

A stream or a terminal is let in once. While it lasts it is asked again and again whether it would still be let in;
where not, its connection is cut, so that nobody takes what had come by then for all that there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.types import Scope

from bulkhead.errors import BulkheadError, Unauthorized

CUT = "bulkhead.cut"
"""In a scope: cuts its connection."""
EVERY = 10.0
"""Seconds between two questions; what is over before the first is never asked for."""


@asynccontextmanager
async def watched(scope: Scope, identify: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """While something is served. `identify` raises Unauthorized where it would not be let in any more."""
    task: asyncio.Task[None] | None = None

    def begin() -> None:
        nonlocal task
        task = asyncio.ensure_future(_watch(scope, identify))

    later = asyncio.get_running_loop().call_later(EVERY, begin)
    try:
        yield
    finally:
        later.cancel()
        if task:
            task.cancel()


async def _watch(scope: Scope, identify: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await identify()
        except Unauthorized:
            scope[CUT]()
            return
        except BulkheadError:
            pass  # it cannot be told now
        await asyncio.sleep(EVERY)
