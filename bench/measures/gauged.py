"""What measuring plans shares: the plan that is sold, a row of what was got, somebody at the other end of the link."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.asking import NAME
from bench.suspects import MIB, Sold
from bench.timing import Unusable

IMAGE = "bench-gauge"
GAUGE = "/bin/gauge"
SOURCE = Path(__file__).parents[1] / "load/gauge.c"
PORT = 5301
SOLD = Sold(192 * MIB, 0.5, 256 * MIB, 200, 8 * MIB, 20_000_000, 100)
GHZ_SHARE = 0.6
"""Of the host's cores' speed, where GHz are measured."""
SETTLE_SECONDS, SECONDS = 1.5, 5.0
"""What is in buckets at first is let run off, then is counted."""
SMALL, LARGE = 4096, 256 << 10


@dataclass(frozen=True, slots=True)
class Row:
    """One field behind one wall. Numbers are in the field's own unit; None: not measured there."""

    wall: str
    field: str
    unit: str
    sold: float
    sees: float | None
    """What it says of itself inside."""
    inside: float | None
    """What a program inside got."""
    outside: float | None
    """What counters outside say that it got."""
    note: str = ""

    @property
    def error(self) -> float:
        """Of what was counted outside, or else inside."""
        got = self.outside if self.outside is not None else self.inside
        return (got or 0.0) / self.sold - 1


MEMORY_NOTE = "inside: one process until it is ended; outside: the limit, or the guest's memory"


@contextmanager
def peer() -> Iterator[None]:
    """Somebody at the other end, in the client's namespace: takes what comes, and sends all the time."""
    script = (
        "import socket, threading\n"
        f"s = socket.create_server(('', {PORT}))\n"
        "print('ready', flush=True)\n"
        "c, _ = s.accept()\n"
        "def take():\n"
        "    try:\n"
        "        while c.recv(1 << 16): pass\n"
        "    except OSError: pass\n"
        "threading.Thread(target=take, daemon=True).start()\n"
        "try:\n"
        "    while True: c.sendall(bytes(1 << 16))\n"
        "except OSError: pass\n"
    )
    argv = ["ip", "netns", "exec", NAME, "python3", "-c", script]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        if not process.stdout or not process.stdout.readline():
            raise Unusable("the other end of the link does not come up")
        yield
    finally:
        process.kill()
        process.communicate()
