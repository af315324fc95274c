"""Knowing when workloads end: one thread watches the agents of all running instances."""

from __future__ import annotations

import logging
import os
import selectors
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from bulkhead.agent.frames import Type
from bulkhead.agent.session import Session
from bulkhead.errors import BulkheadError, NotFound

log = logging.getLogger(__name__)
WORKERS = 8


class ExitWatcher:
    """Calls `ended(instance_id, started)` in a worker thread, once, when an instance's agent says so or is gone.

    `started` tells which run it was: another one may have begun before the worker gets to it.
    """

    def __init__(self, ended: Callable[[str, float], object]) -> None:
        self._ended = ended
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="exit")
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="exits", daemon=True)
        self._thread.start()

    def add(self, instance_id: str, started: float, bundle: Path) -> None:
        """Watch an instance that runs. One whose agent cannot be reached counts as ended."""
        try:
            session = Session.connect(bundle / "agent.sock")
            stream = session.open(Type.WATCH)
        except BulkheadError:
            self._submit(instance_id, started)
            return
        # Adding to an epoll set takes effect in a wait that is under way.
        self._selector.register(session, selectors.EVENT_READ, (instance_id, started, stream))

    def close(self) -> None:
        """Stop watching; the instances run on."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(timeout=5)
        self._workers.shutdown(wait=True)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, Session):
                key.fileobj.close()
        self._selector.close()
        os.close(self._wake)

    def _loop(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select():
                if isinstance(key.fileobj, Session):
                    instance_id, started, stream = key.data
                    if self._has_ended(key.fileobj, stream):
                        self._selector.unregister(key.fileobj)
                        key.fileobj.close()
                        self._submit(instance_id, started)

    def _has_ended(self, session: Session, stream: int) -> bool:
        """Take what has arrived: the OK to WATCH, which nobody waits for, and at last EXIT or the connection's end."""
        try:
            while session.next(stream, timeout=0).type is Type.OK:
                pass
        except TimeoutError:
            return False
        except BulkheadError:
            return True
        return True

    def _submit(self, instance_id: str, started: float) -> None:
        with suppress(RuntimeError):  # the pool is closed: the next daemon finds out
            self._workers.submit(self._report, instance_id, started)

    def _report(self, instance_id: str, started: float) -> None:
        try:
            self._ended(instance_id, started)
        except NotFound:
            return  # removed by somebody else meanwhile
        except BulkheadError as error:
            log.warning("end of %s: %s", instance_id, error)
        except Exception:
            log.exception("end of %s", instance_id)
