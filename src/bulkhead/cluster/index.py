"""The fleet kept so that a decision is quick: the same as `placing.place` on the same hosts, whatever their number.

A host's row is written anew whenever the host changes; a decision then is some dozen operations over columns. Reasons
are told by `rules.check`, of the hosts as they were at the decision, when somebody asks for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from bulkhead.amounts import RESOURCES
from bulkhead.cluster import broken, rules, spare
from bulkhead.cluster.broken import Broken
from bulkhead.cluster.columns import Columns, Ints
from bulkhead.cluster.lookup import Lookup
from bulkhead.cluster.placing import RANKED, SPARE_HINT, Candidate, Decision, Refusal, count_rules, turn_of
from bulkhead.cluster.policies import Policy
from bulkhead.cluster.ranking import scores
from bulkhead.cluster.rules import Reason, Rule
from bulkhead.cluster.snapshot import HostView, Need, Snapshot, Speed, Term, Wanted
from bulkhead.cluster.spare import Measure, Row, Standing


class Index:
    """Hosts that come, change and go. Not safe to use from several threads at once."""

    def __init__(self, hosts: Iterable[HostView] = (), *, spare: bool = False) -> None:
        self._spare = spare
        self._columns = Columns()
        self._lookup = Lookup()
        self._views: list[HostView | None] = []
        self._rows: dict[str, int] = {}
        self._unused: list[int] = []
        self._kinds: dict[Speed, int] = {}
        self._sizes: dict[str, tuple[Need, int]] = {}
        self._measure = Measure((1,) * len(RESOURCES), ())
        self._measured = self._ranked = False
        for host in hosts:
            self.put(host)

    def __len__(self) -> int:
        return len(self._rows)

    def host(self, host_id: str) -> HostView:
        """Raises KeyError where there is none of this id."""
        found = self._views[self._rows[host_id]]
        assert found
        return found

    def views(self) -> Iterator[HostView]:
        """All hosts, in no order."""
        return (view for view in self._views if view)

    def snapshot(self) -> Snapshot:
        """All hosts as they are now."""
        return Snapshot(tuple(self.host(host_id) for host_id in sorted(self._rows)), self._spare)

    def put(self, host: HostView) -> None:
        """A host that is new or has changed."""
        row = self._rows.get(host.id)
        if row is None:
            row = self._unused.pop() if self._unused else self._columns.add()
            self._rows[host.id] = row
            self._views += [None] * (self._columns.top - len(self._views))
            self._ranked = False
        old = self._views[row]
        if old is None or old.has != host.has or old.speed != host.speed:
            self._measured = False
        self._views[row] = host
        self._lookup.change(row, old, host)
        self._columns.write(row, host, self._kinds.setdefault(host.speed, len(self._kinds)))
        for placed in old.instances if old else ():
            if not self._lookup.ids.rows(placed.id):
                self._sizes.pop(placed.id, None)
        if self._measured:
            self._columns.write_spare(row, self._spare_row(host))

    def drop(self, host_id: str) -> None:
        """A host that is no longer one of the fleet's. Raises KeyError where there is none."""
        row = self._rows.pop(host_id)
        old = self._views[row]
        self._lookup.change(row, old, None)
        self._views[row] = None
        self._columns.clear(row)
        self._unused.append(row)
        self._measured = self._ranked = False

    def place(self, wanted: Wanted, policy: Policy) -> Decision:
        """As `placing.place` of the snapshot."""
        self._settle()
        columns, top = self._columns, self._columns.top
        speeds = list(self._kinds)
        lone = self._lone(wanted)
        found = Broken(columns)
        broken.host(found, wanted, self._lookup)
        takes = broken.room(found, wanted, speeds)
        broken.tenants(found, wanted)
        broken.affinity(found, wanted, lone, self._rows_of(wanted), self._shunning(wanted))
        stands = None
        if self._spare:
            stands = self._standing(wanted)
            broken.reserve(found, takes, self._measure, stands)
        fitting = np.flatnonzero(found.fits())
        points = scores(
            columns,
            fitting,
            takes,
            policy=policy,
            wanted=wanted,
            lookup=self._lookup,
            rows_of=self._rows_of(wanted),
        )
        ranking = self._ranking(fitting, points, wanted)
        views = tuple(self._views[:top])
        late = _Late(views, found, columns.rank[:top].copy(), wanted=wanted, lone=lone, stands=stands)
        firsts = found.firsts()
        return Decision(
            wanted=wanted,
            policy=policy,
            chosen=ranking[0] if ranking else None,
            ranking=ranking,
            whole=self._spare or bool(lone),
            feasible=len(fitting),
            counts=count_rules(Counter({rule: len(rows) for rule, rows in firsts.items()})),
            examples={rule: late.of_row(_first(rows, columns.rank)) for rule, rows in firsts.items()},
            refusals=late,
        )

    def _ranking(self, fitting: Ints, points: Ints, wanted: Wanted) -> tuple[Candidate, ...]:
        count = len(self._rows)
        turned = (self._columns.rank[fitting] + turn_of(wanted)) % max(1, count)
        keys = points * (1 << 24) - turned
        best = np.argpartition(-keys, RANKED - 1)[:RANKED] if len(keys) > RANKED else np.arange(len(keys))
        found = []
        for position in sorted(best.tolist(), key=lambda position: -int(keys[position])):
            view = self._views[int(fitting[position])]
            assert view
            found.append(Candidate(view.id, view.name, view.version, int(points[position])))
        return tuple(found)

    def _settle(self) -> None:
        """What hosts that came or went have changed for all of them."""
        if not self._ranked:
            for rank, host_id in enumerate(sorted(self._rows)):
                self._columns.rank[self._rows[host_id]] = rank
            self._ranked = True
        if self._spare and not self._measured:
            by = spare.measure(view for view in self._views if view)
            if by != self._measure:
                self._sizes.clear()
            self._measure, self._measured = by, True
            for row, view in enumerate(self._views):
                if view:
                    self._columns.write_spare(row, self._spare_row(view))

    def _spare_row(self, host: HostView) -> Row:
        """As `spare.row_of`, without weighing again what has been weighed."""
        return spare.row_with(host, [self._size(placed.wanted) for placed in host.instances], self._measure)

    def _size(self, wanted: Wanted) -> int:
        need, size = self._sizes.get(wanted.id, (None, 0))
        if need is not wanted.need:
            size = self._measure.size(wanted.need)
            self._sizes[wanted.id] = (wanted.need, size)
        return size

    def _standing(self, wanted: Wanted) -> Standing:
        """As `spare.standing` of all rows."""
        columns, top = self._columns, self._columns.top
        adds = self._measure.size(wanted.need)
        largest = max(adds, int(columns.largest[:top].max(initial=0)))
        sure = np.maximum(columns.room[:top] - largest, 0)
        total = int(sure.sum())
        wants = np.where(columns.carries[:top] > 0, columns.carries[:top] + sure, 0)
        most = int(wants.max(initial=0))
        if not most:
            return Standing(adds, largest, "", 0, total)
        row = _first(np.flatnonzero(wants == most), columns.rank)
        view = self._views[row]
        assert view
        return Standing(adds, largest, view.name, int(columns.carries[row]), total - int(sure[row]))

    def _lone(self, wanted: Wanted) -> frozenset[Term]:
        """As `rules.lone_terms`."""
        own = (term for term in wanted.terms if term.hard and not term.away and term.matches(wanted))
        rows = self._rows_of(wanted)
        return frozenset(term for term in own if not rows(term))

    def _rows_of(self, wanted: Wanted) -> Callable[[Term], list[int]]:
        """The rows with another instance that a term is about."""
        home = self._lookup.ids.rows(wanted.id)

        def rows(term: Term) -> list[int]:
            found = self._lookup.traits.rows((wanted.tenant, term.key, term.value))
            if not home:
                return list(found)
            return [row for row in found if row not in home or self._beside(row, wanted, term.matches)]

        return rows

    def _shunning(self, wanted: Wanted) -> list[int]:
        """The rows with another instance that is to be away from it."""

        def shuns(other: Wanted) -> bool:
            return any(term.hard and term.away and term.matches(wanted) for term in other.terms)

        home = self._lookup.ids.rows(wanted.id)
        traits = [(wanted.tenant, "", wanted.name), *((wanted.tenant, *pair) for pair in wanted.labels.items())]
        found = {row for trait in traits for row in self._lookup.shunned.rows(trait)}
        return [row for row in found if row not in home or self._beside(row, wanted, shuns)]

    def _beside(self, row: int, wanted: Wanted, holds: Callable[[Wanted], bool]) -> bool:
        view = self._views[row]
        return view is not None and any(map(holds, rules.neighbours(view, wanted)))


class _Late(Mapping[str, Refusal]):
    """Refusals that are put into words when somebody looks."""

    def __init__(
        self,
        views: Sequence[HostView | None],
        found: Broken,
        rank: Ints,
        *,
        wanted: Wanted,
        lone: frozenset[Term],
        stands: Standing | None,
    ) -> None:
        self._views, self._found, self._rank = views, found, rank
        self._wanted, self._lone, self._stands = wanted, lone, stands

    def of_row(self, row: int) -> Refusal:
        """Of one host."""
        view = self._views[row]
        assert view
        reasons = rules.check(view, self._wanted, self._lone)
        if self._stands and self._found.breaks(row, Rule.SPARE):
            reasons += (Reason(Rule.SPARE, self._stands.reason(), SPARE_HINT),)
        return Refusal(view.name, reasons)

    @cached_property
    def _all(self) -> dict[str, Refusal]:
        rows = self._found.refused()
        ordered = rows[np.argsort(self._rank[rows])].tolist()
        return {view.id: self.of_row(row) for row in ordered if (view := self._views[row])}

    def __getitem__(self, host_id: str) -> Refusal:
        return self._all[host_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._found.refused())


def _first(rows: Ints, rank: Ints) -> int:
    """Of these rows the one whose host comes first by id."""
    return int(rows[np.argmin(rank[rows])])
