"""A score of findings: 100 less what they cost, each group no more than its most."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bulkhead.audit.report import Deduction, Finding
from bulkhead.audit.rules import MOST

MOST_HINTS = 8


def deductions(findings: Sequence[Finding]) -> tuple[Deduction, ...]:
    """What each group costs, those that cost nothing left out."""
    found = []
    for group, most in MOST.items():
        points = sum(finding.weight for finding in findings if finding.group == group)
        if points:
            found.append(Deduction(group=group, points=round(min(points, most), 2), most=most))
    return tuple(found)


def score(found: Sequence[Deduction]) -> int:
    """0 to 100, rounded down: what is not perfect is not 100."""
    return max(0, math.floor(100 - sum(each.points for each in found) + 1e-9))


def raises(findings: Sequence[Finding]) -> tuple[str, ...]:
    """What would raise the score, once each, with the points that it concerns; the most first."""
    gains: dict[str, float] = {}
    for finding in findings:
        if finding.hint and finding.weight:
            gains[finding.hint] = gains.get(finding.hint, 0.0) + finding.weight
    order = sorted(gains, key=lambda hint: -gains[hint])
    return tuple(order[:MOST_HINTS])
