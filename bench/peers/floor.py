"""The floor: a C sketch of the system calls that a start cannot do without, run beside the bench where it is there."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from pathlib import Path

from bench import timing
from bench.peers.base import Peer, Scene
from bench.statistics import Summary

_LINE = re.compile(r"network namespace ([01]): median ([\d.]+) ms, p90 ([\d.]+), min ([\d.]+)")
RUNS = 50


class Floor(Peer):
    """Says medians alone, of its own 50 starts each without and with a network namespace."""

    name = "floor"

    def setup(self, scene: Scene, stack: ExitStack) -> str:  # noqa: ARG002 - nothing to undo
        """Find the sketch and what it needs."""
        if not scene.floor.exists():
            raise timing.Unusable("the sketch is not part of a clone (bench/run --floor FILE)")
        timing.find("gcc", "gcc")
        timing.find("mkfs.erofs", "erofs-utils")
        if not Path("/bin/busybox").exists():
            raise timing.Unusable("/bin/busybox is not there (Debian package busybox-static)")
        self._argv = [sys.executable, str(scene.floor)]
        self._tmp = str(scene.directory("floor"))
        return "sketch"

    def measure(self) -> dict[bool, Summary]:
        """Starts without (False) and with (True) a network namespace of their own; the better of two rounds."""
        found: dict[bool, Summary] = {}
        for network, median, p90, least in _LINE.findall(
            timing.output(self._argv, env=timing.environment(TMPDIR=self._tmp))
        ):
            summary = Summary(RUNS, float(least), float(median), float(p90), None, None)
            before = found.get(network == "1")
            if before is None or summary.median < before.median:
                found[network == "1"] = summary
        if not found:
            raise timing.Unusable("the sketch told no figures")
        return found
