"""How much work there is time for, counted so that the same input gets as far each time.

A unit is about a microsecond of a slow machine. The steps of the solver say what they did in units (by the sizes of
the arrays and the pivots of the simplex method), and the search ends when the budget that the seconds stand for is
spent. The clock is asked too: on a machine that is slower still it ends the search, and the answer says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

UNITS_PER_SECOND = 600_000
"""Fewer than there are on a usual machine: then the budget ends the search and not the clock."""
CLOCK_SHARE = 0.92
"""Of the seconds, after which the clock ends it: the rest is for the step under way and the check."""


@dataclass(slots=True)
class Effort:
    """A budget of work and a deadline. Parts of it are `part`s."""

    units: float
    deadline: float
    """Of time.monotonic."""
    spent: float = 0.0
    cut: bool = False
    whole: Effort | None = None

    @staticmethod
    def of(seconds: float) -> Effort:
        """The budget that so many seconds from now on stand for."""
        return Effort(seconds * UNITS_PER_SECOND, time.monotonic() + seconds * CLOCK_SHARE)

    def part(self, share: float) -> Effort:
        """A share of what is left; what it spends is spent here as well."""
        return Effort((self.units - self.spent) * share, self.deadline, whole=self)

    def some(self, units: float) -> Effort:
        """So many units, or what is left."""
        return Effort(min(units, self.units - self.spent), self.deadline, whole=self)

    def spend(self, units: float) -> None:
        """Say what was done."""
        self.spent += units
        if self.whole is not None:
            self.whole.spend(units)

    def over(self) -> bool:
        """No more work, please."""
        if self.spent >= self.units:
            return True
        if time.monotonic() > self.deadline:
            each: Effort | None = self
            while each is not None:
                each.cut = True
                each = each.whole
            return True
        return False
