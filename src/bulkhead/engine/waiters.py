"""Who waits for the end of which instance."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from bulkhead.model import Exit, State
from bulkhead.store import State as Records


class Waiters:
    """Futures by instance id. Thread-safe."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._waiting: dict[str, list[Future[Exit]]] = {}
        self._guard = threading.Lock()

    def wait(self, instance_id: str) -> Future[Exit]:
        """A future of how the instance ends: at once if it has. With auto_remove it comes after the removal."""
        future: Future[Exit] = Future()
        with self._guard:
            instance = self._records.get(instance_id)
            if instance.state in (State.EXITED, State.CREATED) and instance.exit:
                future.set_result(instance.exit)
            else:
                self._waiting.setdefault(instance_id, []).append(future)
        return future

    def resolve(self, instance_id: str, how: Exit) -> None:
        """Tell everybody who waits."""
        with self._guard:
            waiting = self._waiting.pop(instance_id, [])
        for future in waiting:
            future.set_result(how)
