"""A decision as a table: of each host whether it would do, how good it is, or why not; of thousands what matters."""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead.cluster.placing import Decision
from bulkhead.cluster.policies import MILLION
from bulkhead.cluster.rules import IN_WORDS, Rule

EVERY = 20
"""Up to so many hosts each has its row."""
HEADS = ("HOST", "VERDICT", "SCORE", "REASON")


@dataclass(frozen=True, slots=True)
class Line:
    """One host, or `hosts` of them that are refused for the same."""

    host: str
    """Its name; of several that of an example."""
    verdict: str
    """chosen, fits or refused."""
    score: float | None
    reason: str
    hint: str = ""
    hosts: int = 1


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an instance goes where it goes."""

    instance: str
    policy: str
    feasible: int
    refused: int
    lines: tuple[Line, ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "instance": self.instance,
            "policy": self.policy,
            "feasible": self.feasible,
            "refused": self.refused,
            "hosts": [{name: getattr(line, name) for name in Line.__slots__} for line in self.lines],
        }

    def table(self) -> list[tuple[str, ...]]:
        """Rows of cells, heads first."""
        rows: list[tuple[str, ...]] = [HEADS]
        for line in self.lines:
            host = line.host if line.hosts == 1 else f"{line.hosts} hosts"
            score = "" if line.score is None else f"{line.score:.3f}"
            rows.append((host, line.verdict, score, line.reason))
        return rows


def explain(decision: Decision) -> Explanation:
    """Every host where there are few; else the best ones, and the refused ones by their first reason, with counts."""
    refused = sum(decision.counts.values())
    lines = [
        Line(each.name, "fits" if place else "chosen", each.score / MILLION, "" if place else _why(decision))
        for place, each in enumerate(decision.ranking)
    ]
    if decision.feasible > len(lines):
        more = decision.feasible - len(lines)
        lines.append(Line("", "fits", None, "less good than these", hosts=more))
    if decision.feasible + refused <= EVERY:
        lines += [
            Line(
                refusal.host,
                "refused",
                None,
                "; ".join(reason.what for reason in refusal.reasons),
                "; ".join(dict.fromkeys(reason.hint for reason in refusal.reasons if reason.hint)),
            )
            for refusal in decision.refusals.values()
        ]
    else:
        lines += [_summary(decision, rule, count) for rule, count in decision.counts.items()]
    return Explanation(decision.wanted.name, decision.policy, decision.feasible, refused, tuple(lines))


def _why(decision: Decision) -> str:
    others = decision.feasible - 1
    if not others:
        return "the only one that would do"
    second = decision.ranking[1]
    best = decision.ranking[0].score
    like = "like others" if second.score == best else f"{(best - second.score) / MILLION:.3f} more than {second.name}"
    return f"{decision.policy}: the best of {others + 1}, {like}"


def _summary(decision: Decision, rule: Rule, count: int) -> Line:
    example = decision.examples[rule]
    reason = example.reasons[0]
    what = reason.what if count == 1 else f"{IN_WORDS[rule]}, such as {example.host}: {reason.what}"
    return Line(example.host, "refused", None, what, reason.hint, count)
