"""How much a core of this host does in one of its cycles, over what a reference core does: a short loop, timed.

GHz alone do not tell: a cycle of one processor does more than that of another. The loop packs and sorts text that is
the same everywhere, by libraries that a host has anyway; it is about integers, branches and the caches, as most
programs are. What is timed is processor time, and the quickest of some rounds counts: neighbours slow a round down,
nothing speeds it up.
"""

from __future__ import annotations

import bz2
import json
import time
import zlib
from pathlib import Path

from bulkhead.errors import HostError

REFERENCE = 33.4
"""Rounds per billion cycles of the reference core: those of a server of 2023 at 2.6 GHz."""
ROUNDS = 9
LEAST, MOST = 0.2, 5.0
"""What a factor can be. Beyond them the clock is wrong that it was divided by, or the machine stood still."""
FILE = "speed.json"
_SIZE = 1 << 17
_MULTIPLIER, _INCREMENT, _MASK = 6364136223846793005, 1442695040888963407, (1 << 64) - 1


def cached(directory: Path, *, boot: str, processor: str, ghz: float) -> float:
    """The factor, as it was measured in this boot on this kind of processor at this clock; measured now where it was
    not, and kept in `directory`. Raises HostError for one that cannot be.
    """
    about = {"boot": boot, "processor": processor, "ghz": ghz}
    file = directory / FILE
    try:
        known = json.loads(file.read_text())
        if {key: known[key] for key in about} == about:
            return checked(float(known["factor"]))
    except (OSError, ValueError, KeyError, TypeError, HostError):
        pass  # not there, or cut short by a crash
    factor = measure(ghz)
    made = file.with_suffix(".new")
    made.write_text(json.dumps({**about, "factor": factor}))
    made.rename(file)
    return factor


def measure(ghz: float) -> float:
    """Of a core with this clock; takes a third of a second or so. Raises HostError where it cannot be."""
    text = _text()
    _round(text)  # into the caches
    return factor_of(min(_timed(text) for _ in range(ROUNDS)), ghz)


def factor_of(seconds: float, ghz: float) -> float:
    """Of a round that took so long. Raises HostError where that cannot be."""
    if seconds <= 0 or ghz <= 0:
        raise HostError(f"a round in {seconds:g} s at {ghz:g} GHz is no speed", hint="set host_factor")
    return checked(round(1.0 / seconds / ghz / REFERENCE, 2))


def checked(factor: float) -> float:
    """Raises HostError for a factor that no processor has."""
    if not LEAST <= factor <= MOST:
        what = f"the speed of this host's cores was measured as {factor:g} of the reference: that cannot be"
        raise HostError(what, hint="set host_ghz to their clock, or host_factor, in the configuration")
    return factor


def _timed(text: bytes) -> float:
    began = time.thread_time()
    _round(text)
    return time.thread_time() - began


def _round(text: bytes) -> int:
    return len(zlib.compress(text, 6)) + len(bz2.compress(text, 5))


def _text() -> bytes:
    """Words of a small vocabulary in an order that looks like chance; the same everywhere."""
    words = [f"{number * 7919 % 4093:x}-{'abcdefg'[number % 7] * (number % 5)}".encode() for number in range(512)]
    state = 1
    found: list[bytes] = []
    size = 0
    while size < _SIZE:
        state = (state * _MULTIPLIER + _INCREMENT) & _MASK
        word = words[(state >> 33) % len(words)]
        found.append(word)
        size += len(word) + 1
    return b" ".join(found)[:_SIZE]
