"""Work that the caller need not wait for: throwing away what a deleted instance leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_WORKERS = 3
_BACKLOG = 128
_PAUSE = 0.01
"""Seconds before a job: whoever waits for what handed it in is answered first."""


class Reaper:
    """Runs jobs in the background; at most `_BACKLOG` wait, then the caller does the job itself. Thread-safe.

    A crash loses waiting jobs: what they would have removed must be found again by a recovery pass.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Future[None]] = {}
        self._failed: list[BaseException] = []
        self._workers = ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="reaper")

    def submit(self, name: str, job: Callable[[], None]) -> None:
        """Run `job` soon. A second job of the same name waits for the first."""
        self.wait(name)
        with self._lock:
            full = len(self._jobs) >= _BACKLOG
            if not full:
                future = self._jobs[name] = self._workers.submit(_later, job)
        if full:
            job()
        else:
            future.add_done_callback(lambda done: self._finished(name, done))

    def wait(self, name: str) -> None:
        """Wait until the job of this name has ended; at once when there is none."""
        with self._lock:
            future = self._jobs.get(name)
        if future:
            future.exception()

    def wait_all(self) -> None:
        """Wait until every job has ended, well or not."""
        while True:
            with self._lock:
                waiting = list(self._jobs.values())
            if not waiting:
                return
            for future in waiting:
                future.exception()

    def settle(self) -> None:
        """Wait until every job has ended. Raises the first error of those that failed since the last time."""
        self.wait_all()
        with self._lock:
            failed, self._failed = self._failed, []
        if failed:
            raise failed[0]

    def close(self) -> None:
        """Finish every job, then end. Raises as `settle` does."""
        self._workers.shutdown(wait=True)
        self.settle()

    def _finished(self, name: str, done: Future[None]) -> None:
        error = done.exception()
        with self._lock:
            if self._jobs.get(name) is done:
                del self._jobs[name]
            if error:
                self._failed.append(error)


def _later(job: Callable[[], None]) -> None:
    time.sleep(_PAUSE)
    job()
