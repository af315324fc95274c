"""Plans of unikernels: nobody can be sent into one, so each thing is counted by one that is started to count it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bench.asking import CLIENT
from bench.measures.gauged import (
    GAUGE,
    GHZ_SHARE,
    IMAGE,
    LARGE,
    MEMORY_NOTE,
    PORT,
    SECONDS,
    SETTLE_SECONDS,
    SMALL,
    SOLD,
    Row,
    peer,
)
from bench.measures.rogues import options_of
from bench.peers.bulkhead import Bulkhead
from bench.suspects import MIB, Ours, Sold
from bench.timing import Unusable
from bulkhead.config import Config
from bulkhead.host import facts

WALL, UNIKERNEL, INSTANCE, ROOT = "unikernel", "bench-gauge-unikernel", "sold", "/disk"
PATIENCE = 300.0
"""Seconds until it has booted and begun, and until it has ended: the host interprets it."""
FAST = replace(SOLD, iops=20_000, disk_bps=1 << 30)
NUMBERS = re.compile(r"^[0-9][0-9. ]*$", re.MULTILINE)
_SECONDS = f"{SETTLE_SECONDS + SECONDS + 1:g}"


def measured(engine: Bulkhead) -> Iterator[tuple[str, Iterator[Row]]]:
    """Each field, to be measured when its rows are asked for."""
    asked = ("--unikernel", "-t", UNIKERNEL, "-e", f"GAUGE_ROOT={ROOT}")
    engine.output("build", *asked, IMAGE, GAUGE, "sees")
    solo = Solo(engine, facts.facts(Config()).ghz or 1.0)
    for field in (solo.cpu, solo.ghz_sold, solo.disk, solo.iops, solo.disk_bps, solo.bandwidth, solo.memory):
        yield field.__name__, field()


@dataclass(frozen=True, slots=True)
class Solo:
    """Starts one after the other."""

    engine: Bulkhead
    ghz: float

    def cpu(self) -> Iterator[Row]:
        """Half a core, beside what a whole one does."""
        _, whole = self._rates(replace(SOLD, cpus=1), "cpu", _SECONDS)
        rates, work = self._rates(SOLD, "cpu", _SECONDS)
        sees = self._says(SOLD, "sees")[0]
        yield Row(WALL, "cpu", "cores", SOLD.cpus, sees, work / whole, rates["cpu"], "sees: processors")

    def ghz_sold(self) -> Iterator[Row]:
        """A core of a slower host."""
        sold = self.ghz * GHZ_SHARE
        rates, _ = self._rates(replace(SOLD, cpus=1), "cpu", _SECONDS, more=("--ghz", f"{sold:.4f}"))
        yield Row(WALL, "cpu", "GHz", sold, None, None, rates["cpu"] * self.ghz, "1 core; outside: of its time")

    def disk(self) -> Iterator[Row]:
        """What a file can have, and what QEMU shows of the disk."""
        seen = self._says(SOLD, "sees")[2]
        with self._running(FAST, "file") as suspect:
            device = suspect.disk_size()
            (written,) = self._last(1)
        yield Row(WALL, "disk", "MiB", SOLD.disk / MIB, seen / MIB, written / MIB, device / MIB, "inside: one file")

    def iops(self) -> Iterator[Row]:
        """Small transfers."""
        for way, counter in (("read", "reads"), ("write", "writes")):
            rates, said = self._rates(SOLD, way, str(SMALL), _SECONDS)
            yield Row(WALL, "iops", f"{way}s/s", SOLD.iops, None, said, rates[counter])

    def disk_bps(self) -> Iterator[Row]:
        """Large ones."""
        for way, counter in (("read", "bytes read"), ("write", "bytes written")):
            rates, said = self._rates(SOLD, way, str(LARGE), _SECONDS)
            got = rates[counter] / MIB
            yield Row(WALL, "disk_bps", f"MiB/s, {way}", SOLD.disk_bps / MIB, None, said * LARGE / MIB, got)

    def bandwidth(self) -> Iterator[Row]:
        """Each way of its link."""
        for way, counter in (("send", "sent"), ("receive", "received")):
            with peer():
                rates, said = self._rates(SOLD, way, CLIENT, str(PORT), _SECONDS)
            got = rates[counter] * 8 / 1e6
            yield Row(WALL, "bandwidth", f"Mbit/s, {way}", SOLD.bandwidth / 1e6, None, said * 8 / 1e6, got)

    def memory(self) -> Iterator[Row]:
        """Until its kernel ends it."""
        seen = self._says(SOLD, "sees")[1]
        with self._running(SOLD, "memory") as suspect:
            limit = suspect.memory_size()
            (touched,) = self._last(1)
        yield Row(WALL, "memory", "MiB", SOLD.memory / MIB, seen / MIB, touched / MIB, limit / MIB, MEMORY_NOTE)

    # --- one of them

    @contextmanager
    def _running(self, sold: Sold, *words: str, more: tuple[str, ...] = ()) -> Iterator[Ours]:
        plan = options_of(replace(sold, pids=0))
        at = plan.index("--pids")  # nothing inside counts processes
        options = ("--isolation", WALL, *plan[:at], *plan[at + 2 :], *more)
        self.engine.output("run", "-d", "--name", INSTANCE, *options, UNIKERNEL, *words)
        try:
            yield Ours(self.engine, INSTANCE, sold)
        finally:
            self.engine.output("rm", "-f", INSTANCE)

    def _rates(self, sold: Sold, *words: str, more: tuple[str, ...] = ()) -> tuple[dict[str, float], float]:
        """Counters in a second outside, once it has begun, and what it says itself."""
        with self._running(sold, *words, more=more) as suspect:
            self._await(lambda: "begun" in self._log(), "to begin")
            time.sleep(SETTLE_SECONDS)
            before = suspect.count()
            time.sleep(SECONDS)
            rates = suspect.count().rates_since(before)
            return rates, self._last(1)[0]

    def _says(self, sold: Sold, *words: str) -> list[float]:
        with self._running(sold, *words):
            return self._last(4)

    def _last(self, numbers: int) -> list[float]:
        """The last line with so many numbers that it has said, when it has ended."""
        self._await(lambda: self._state() == "exited", "to end")
        lines = [line.split() for line in NUMBERS.findall(self._log().replace("\r", ""))]
        found = [line for line in lines if len(line) == numbers]
        if not found:
            raise Unusable(f"it said nothing that is a number: {self._log()[-300:]!r}")
        return [float(number) for number in found[-1]]

    def _log(self) -> str:
        return self.engine.output("logs", INSTANCE)

    def _state(self) -> str:
        (row,) = json.loads(self.engine.output("inspect", INSTANCE))
        return str(row["state"])

    def _await(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise Unusable(f"it did not come {what} within {PATIENCE:g} s: {self._log()[-300:]!r}")
            time.sleep(0.2)
