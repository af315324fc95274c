"""How much work there is time for, counted so that the same input gets as far each time.

A unit is about a microsecond of a slow machine. The steps of the solver say what they did in units (by the sizes of
the arrays and the pivots of the simplex method), and the search ends when the budget that the seconds stand for is
spent. The clock is asked too: on a machine that is slower still it ends the search, and the answer says so.

The clock is the caller's: `time.monotonic` for who waits, `time.process_time` for who measures on a busy machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]
"""Seconds since whenever."""

UNITS_PER_SECOND = 700_000
"""Fewer than there are on a usual machine: then the budget ends the search and not the clock."""
CLOCK_SHARE = 0.88
"""Of the seconds, after which the clock ends it: the rest is for the step under way and the check."""


@dataclass(slots=True)
class Ledger:
    """What was done in all, and whether the clock ever said no."""

    spent: float = 0.0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Effort:
    """A budget of work and a deadline; `part`s of it are written to the same ledger."""

    until: float
    """Of the ledger's units."""
    deadline: float
    """Of the clock."""
    ledger: Ledger
    clock: Clock = time.monotonic

    @staticmethod
    def of(seconds: float, clock: Clock = time.monotonic) -> Effort:
        """The budget that so many seconds from now on stand for."""
        return Effort(seconds * UNITS_PER_SECOND, clock() + seconds * CLOCK_SHARE, Ledger(), clock)

    @property
    def left(self) -> float:
        """Units."""
        return max(0.0, self.until - self.ledger.spent)

    @property
    def seconds(self) -> float:
        """Until the deadline, by the clock."""
        return max(0.0, self.deadline - self.clock())

    @property
    def cut(self) -> bool:
        """The clock has ended something."""
        return self.ledger.cut

    def part(self, share: float) -> Effort:
        """A share of what is left, of the time as well."""
        deadline = self.clock() + self.seconds * share
        return Effort(self.ledger.spent + self.left * share, deadline, self.ledger, self.clock)

    def some(self, units: float) -> Effort:
        """So many units, or what is left."""
        return Effort(self.ledger.spent + min(units, self.left), self.deadline, self.ledger, self.clock)

    def spend(self, units: float) -> None:
        """Say what was done."""
        self.ledger.spent += units

    def over(self) -> bool:
        """No more work, please."""
        if self.ledger.spent >= self.until:
            return True
        if self.clock() > self.deadline:
            self.ledger.cut = True
            return True
        return False
