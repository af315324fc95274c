"""Disks made before they are asked for: formatted, attached, mounted. Bounded, filled in the background."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_PAUSE = 0.01
"""Seconds before filling begins: the start that took a disk should not have to share a core with the next disk."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A blank disk: its file and where it is mounted."""

    file: Path
    target: Path


class Pool:
    """Ready disks of the sizes asked for with `want`. Thread-safe.

    `make(name, size)` makes one, `drop(ready)` throws one away; both may raise. An error while filling is kept in
    `problem` and ends that filling; the next take tries again.
    """

    def __init__(self, make: Callable[[str, int], Ready], drop: Callable[[Ready], None]) -> None:
        self.problem: Exception | None = None
        self._make = make
        self._drop = drop
        self._lock = threading.Lock()
        self._ready: dict[int, deque[Ready]] = {}
        self._wanted: dict[int, int] = {}
        self._filling: Future[None] | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="disk-pool")
        self._closed = False

    def want(self, size: int, count: int) -> None:
        """Keep `count` disks of `size` bytes ready from now on."""
        with self._lock:
            self._wanted[size] = count
            self._ready.setdefault(size, deque())
            self._fill_soon()

    def take(self, size: int) -> Ready | None:
        """A ready disk that is the caller's from now on; None when there is none of that size at this moment."""
        with self._lock:
            waiting = self._ready.get(size)
            if waiting is None:
                return None
            taken = waiting.popleft() if waiting else None
            self._fill_soon()
            return taken

    def settle(self) -> None:
        """Wait until the pool is full, or its filling has failed."""
        while True:
            with self._lock:
                filling = self._filling
            if filling is None or filling.done():
                return
            filling.exception()

    def close(self) -> None:
        """Stop filling and throw away what is ready. Every disk is tried; the first error is raised at the end."""
        with self._lock:
            self._closed = True
        self._worker.shutdown(wait=True)
        errors: list[Exception] = []
        for waiting in self._ready.values():
            while waiting:
                try:
                    self._drop(waiting.popleft())
                except Exception as error:
                    errors.append(error)
        if errors:
            raise errors[0]

    def _fill_soon(self) -> None:
        if not self._closed and (self._filling is None or self._filling.done()) and self._lacking() is not None:
            self._filling = self._worker.submit(self._fill)

    def _lacking(self) -> int | None:
        return next((size for size, count in self._wanted.items() if len(self._ready[size]) < count), None)

    def _fill(self) -> None:
        time.sleep(_PAUSE)
        while True:
            with self._lock:
                size = None if self._closed else self._lacking()
                if size is None:
                    self._filling = None  # under the lock: a take that comes next starts a new one
                    return
            try:
                made = self._make(secrets.token_hex(8), size)
            except Exception as error:
                self.problem = error
                return
            self.problem = None
            with self._lock:
                self._ready[size].append(made)
