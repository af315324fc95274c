"""Where an instance goes: what would do, how good it is, which it is. The definition that the index is held to."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bulkhead.cluster import rules, spare
from bulkhead.cluster.policies import Policy, score
from bulkhead.cluster.rules import Reason, Rule
from bulkhead.cluster.snapshot import Snapshot, Wanted
from bulkhead.errors import NoRoom, Problem

RANKED = 10
"""How many of the best hosts a decision tells."""
SPARE_HINT = "add a host, or let the fleet do without the reserve"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one host will not do: every rule that is broken."""

    host: str
    """Its name."""
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that would do, and how good it is."""

    id: str
    name: str
    version: int
    score: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Where an instance goes, and why."""

    wanted: Wanted
    policy: Policy
    chosen: Candidate | None
    """The best; its version is what the reservation has to be made against. None: no host will do."""
    ranking: tuple[Candidate, ...]
    """The best RANKED, best first."""
    whole: bool
    """It rests on other hosts as well (the reserve, or nothing of its kind being anywhere yet): the reservation has to
    be made against the version of the whole fleet too."""
    feasible: int
    """Hosts that would do."""
    counts: Mapping[Rule, int]
    """Of the hosts that would not, by the first rule that is broken."""
    examples: Mapping[Rule, Refusal]
    """For each of these rules the first host by id."""
    refusals: Mapping[str, Refusal] = field(repr=False)
    """By the host's id, of every host that would not do."""

    def require(self) -> Candidate:
        """Raises NoRoom where no host will do, with how many are refused for what."""
        if self.chosen:
            return self.chosen
        if not self.counts:
            raise NoRoom([Problem("the fleet has no host", "bulkhead cluster join")])
        total = sum(self.counts.values())
        problems = []
        for rule, count in self.counts.items():
            example = self.examples[rule]
            what = (
                f"{count} of {total} hosts: {rules.IN_WORDS[rule]}, such as {example.host}: {example.reasons[0].what}"
            )
            problems.append(Problem(what, example.reasons[0].hint))
        raise NoRoom(problems)


def feasible(snapshot: Snapshot, wanted: Wanted) -> dict[str, Refusal | None]:
    """By the host's id, in their order: None where it will do."""
    lone = rules.lone_terms(snapshot, wanted)
    by = spare.measure(snapshot.hosts)
    fleet = spare.rows(snapshot, by) if snapshot.spare else []
    stands = spare.standing(fleet, by.size(wanted.need))
    found: dict[str, Refusal | None] = {}
    for position, host in enumerate(snapshot.hosts):
        reasons = rules.check(host, wanted, lone)
        if snapshot.spare and not spare.stays_covered(fleet, position, host, wanted, by):
            reasons += (Reason(Rule.SPARE, stands.reason(), SPARE_HINT),)
        found[host.id] = Refusal(host.name, reasons) if reasons else None
    return found


def place(snapshot: Snapshot, wanted: Wanted, policy: Policy) -> Decision:
    """The best host. Of equally good ones the instance's id decides, so that many who decide at the same time do not
    all choose the same; the same input has the same output.
    """
    found = feasible(snapshot, wanted)
    turn, count = turn_of(wanted), len(snapshot.hosts)
    fitting = [
        (-score(host, wanted, policy), (rank + turn) % count, host)
        for rank, host in enumerate(snapshot.hosts)
        if found[host.id] is None
    ]
    fitting.sort(key=lambda each: each[:2])
    ranking = tuple(Candidate(host.id, host.name, host.version, -points) for points, _, host in fitting[:RANKED])
    refusals = {host_id: refusal for host_id, refusal in found.items() if refusal}
    return Decision(
        wanted=wanted,
        policy=policy,
        chosen=ranking[0] if ranking else None,
        ranking=ranking,
        whole=snapshot.spare or bool(rules.lone_terms(snapshot, wanted)),
        feasible=len(fitting),
        counts=count_rules(Counter(refusal.reasons[0].rule for refusal in refusals.values())),
        examples=_examples(refusals.values()),
        refusals=refusals,
    )


def _examples(refusals: Iterable[Refusal]) -> dict[Rule, Refusal]:
    found: dict[Rule, Refusal] = {}
    for refusal in refusals:
        found.setdefault(refusal.reasons[0].rule, refusal)
    return {rule: found[rule] for rule in Rule if rule in found}


def turn_of(wanted: Wanted) -> int:
    """By how much the order of equally good hosts is turned for an instance."""
    return zlib.crc32(wanted.id.encode())


def count_rules(counts: Mapping[Rule, int]) -> dict[Rule, int]:
    """In the order of the rules, without those of which there is nothing."""
    return {rule: counts[rule] for rule in Rule if counts.get(rule)}
