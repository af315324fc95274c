"""What came of system calls: carried out, refused by a filter, or refused by the kernel itself.

A filter answers before the kernel looks at anything, with an errno of its choice; so does a kernel that lacks the call
(ENOSYS), or the capability (EPERM). The same calls with the same arguments and capabilities and without a filter, on
the same kernel, tell them apart. Where there are none of those, both are "closed".
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import resources

SIGSYS = 31
_SIGNAL, _BLOCKED, _NOT_TRIED = 1000, 2000, 3000
_ABIS = ("x86_64", "i386")


class Reached(StrEnum):
    """How far a call got."""

    REACHABLE = "reachable"
    """The kernel carried it out, or refused the arguments."""
    GUARDED = "guarded"
    """The kernel refused it for want of a capability."""
    FILTERED = "filtered"
    ABSENT = "absent"
    """The kernel has no such call."""
    CLOSED = "closed"
    """Filtered, guarded or absent: nothing tells which."""
    UNTRIED = "untried"


@dataclass(frozen=True, slots=True)
class Surface:
    """The calls of one architecture by how far they got; names in order."""

    abi: str
    calls: Mapping[str, Reached]

    def named(self, reached: Reached) -> tuple[str, ...]:
        """Names of those that got so far."""
        return tuple(name for name, how in self.calls.items() if how is reached)

    def counts(self) -> dict[str, int]:
        """How many there are of each."""
        return {str(how): sum(1 for found in self.calls.values() if found is how) for how in Reached}


@lru_cache(maxsize=1)
def numbers() -> dict[str, dict[str, int]]:
    """Architecture -> name -> number."""
    text = resources.files("bulkhead.audit").joinpath("syscalls.txt").read_text()
    found: dict[str, dict[str, int]] = {abi: {} for abi in _ABIS}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, *values = line.split()
        for abi, value in zip(_ABIS, values, strict=True):
            if value != "-":
                found[abi][name] = int(value)
    return found


def judge(result: int, reference: int | None, *, filtered: bool) -> Reached:
    """How far one call got. `reference`: what came of it without the filter; None: nobody knows."""
    if result == _NOT_TRIED:
        return Reached.UNTRIED
    if result == _SIGNAL + SIGSYS:
        return Reached.FILTERED
    own = {errno.ENOSYS: Reached.ABSENT, errno.EPERM: Reached.GUARDED}.get(result)
    if own is None:
        return Reached.REACHABLE
    if not filtered or reference == result:
        return own
    return Reached.CLOSED if reference is None or reference == _NOT_TRIED else Reached.FILTERED


def surface(abi: str, results: Mapping[int, int], reference: Mapping[int, int] | None, *, filtered: bool) -> Surface:
    """Every call that has a name. What has no result counts as not tried."""
    found = {}
    for name, number in sorted(numbers()[abi].items()):
        if number in results:
            known = reference.get(number) if reference else None
            found[name] = judge(results[number], known, filtered=filtered)
    return Surface(abi, found)


def surfaces(
    results: Mapping[str, Mapping[int, int]], reference: Mapping[str, Mapping[int, int]], *, filtered: bool
) -> tuple[Surface, ...]:
    """The same for each architecture that was tried."""
    return tuple(surface(abi, results[abi], reference.get(abi), filtered=filtered) for abi in _ABIS if abi in results)
