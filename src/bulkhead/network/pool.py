"""Namespaces with their links kept ready for one network, so that a start need not wait for the kernel.

They are made by a thread of low priority that begins when no start has asked for some time, or when the pool is
nearly empty. Their addresses are known here alone: after a crash the kernel removes the links, and recovery the rest.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from bulkhead.errors import BulkheadError
from bulkhead.model import Network
from bulkhead.network.wiring import Connection

QUIET_SECONDS = 0.02
"""How long nobody may have asked before the pool is filled up."""
RETRY_SECONDS = 5.0
NICE = 10


class Pool:
    """At most `size` connections of one network. Thread-safe."""

    def __init__(self, size: int, *, make: Callable[[Network], Connection], drop: Callable[[Connection], None]) -> None:
        self._size = size
        self._make = make
        self._drop = drop
        self._ready: deque[Connection] = deque()
        self._network: Network | None = None
        self._changed = threading.Condition()
        self._asked = 0.0
        self._closed = False
        self._making = False
        self._thread: threading.Thread | None = None
        self.error: BulkheadError | OSError | None = None
        """Why the last attempt to fill it failed; None when it did not."""

    def __len__(self) -> int:
        return len(self._ready)

    def serve(self, network: Network) -> None:
        """Keep connections of this network ready from now on."""
        with self._changed:
            self._network = network
            if self._thread is None and self._size:
                self._thread = threading.Thread(target=self._work, name="network-pool", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def take(self, network: Network, taken: Collection[str]) -> Connection | None:
        """One that is ready, or None. Those whose address is `taken` by now are dropped."""
        stale = []
        found = None
        with self._changed:
            self._asked = time.monotonic()
            while self._network == network and self._ready and found is None:
                connection = self._ready.popleft()
                if connection.address.ipv4 in taken:
                    stale.append(connection)
                else:
                    found = connection
            self._changed.notify_all()
        for connection in stale:
            self._drop(connection)
        return found

    def wait_full(self, timeout: float) -> bool:
        """Wait until it is filled up; False when it is not by then."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._ready) >= self._size, timeout)

    def drain(self, network: Network | None = None) -> None:
        """Drop what is ready and make no more, of this network or of any."""
        with self._changed:
            if network is not None and self._network != network:
                return
            self._network = None
            self._changed.wait_for(lambda: not self._making, timeout=10.0)
            dropped = list(self._ready)
            self._ready.clear()
        for connection in dropped:
            self._drop(connection)

    def close(self) -> None:
        """Drop everything and end the thread."""
        self.drain()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while (network := self._wait()) is not None:
            try:
                connection = self._make(network)
            except (BulkheadError, OSError) as error:  # a start that finds the pool empty meets it, and tells the user
                self._made(network, None, error)
            else:
                self._made(network, connection, None)

    def _wait(self) -> Network | None:
        """The network to make one more for, once that is due; None at the end."""
        with self._changed:
            while not self._closed:
                if self._network is None or len(self._ready) >= self._size:
                    self._changed.wait()
                    continue
                left = self._asked + QUIET_SECONDS - time.monotonic()
                if left > 0 and len(self._ready) > self._size // 4:
                    self._changed.wait(left)
                    continue
                self._making = True
                return self._network
        return None

    def _made(self, network: Network, connection: Connection | None, error: BulkheadError | OSError | None) -> None:
        with self._changed:
            self._making = False
            self.error = error
            wanted = connection is not None and self._network == network
            if connection is not None and wanted:
                self._ready.append(connection)
            self._changed.notify_all()
            if error is not None and not self._closed:
                self._changed.wait(RETRY_SECONDS)
        if connection is not None and not wanted:
            self._drop(connection)
