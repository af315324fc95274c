"""Hosts as placement looks at them, kept beside the fleet's records: one is looked at again when it has changed.

It decides as `cluster.placing.place` does over a snapshot of all records (design 0034).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from bulkhead.cluster.placing import Decision, place
from bulkhead.cluster.policies import Policy
from bulkhead.cluster.snapshot import HostState as State
from bulkhead.cluster.snapshot import HostView, Snapshot, Wanted
from bulkhead.engine.fleet import views
from bulkhead.fleet import Host, HostState
from bulkhead.store.following import Kept
from bulkhead.store.seen import Sold

if TYPE_CHECKING:
    from bulkhead.cluster.index import Index

MOST_PLAIN = 100
"""Hosts up to which the plain functions decide; above, the index, which decides the same."""


class Indexed:
    """Used by whoever holds the records (`Following.latest`), which is one at a time."""

    def __init__(self) -> None:
        self._of: Kept | None = None
        self._views: dict[str, HostView] = {}
        self._index: Index | None = None
        self._spare = False

    def decide(self, kept: Kept, wanted: Wanted, policy: Policy, *, heard: Collection[str]) -> Decision:
        """Where it goes. `heard`: ids of hosts that are taken to live whatever their lease says."""
        self._bring(kept)
        revived = [self._revived(kept.hosts[each]) for each in heard if self._is_silent(each)]
        if len(self._views) <= MOST_PLAIN:
            by_id = {**self._views, **{view.id: view for view in revived}}
            return place(Snapshot(tuple(by_id[key] for key in sorted(by_id)), self._spare), wanted, policy)
        index = self._whole_index()
        for view in revived:
            index.put(view)
        try:
            return index.place(wanted, policy)
        finally:
            for view in revived:
                index.put(self._views[view.id])

    def _is_silent(self, host_id: str) -> bool:
        view = self._views.get(host_id)
        return view is not None and view.state == "unreachable"

    def _revived(self, host: Host) -> HostView:
        state: State = "draining" if host.state is HostState.DRAINING else "ready"
        return replace(self._views[host.id], state=state)

    def _bring(self, kept: Kept) -> None:
        """Look again at what has changed."""
        spare = kept.fleet.spare if kept.fleet else False
        if kept is not self._of or spare is not self._spare:
            self._of, self._spare, self._index = kept, spare, None
            self._views = {}
            changed = set(kept.hosts)
        else:
            changed = kept.changed
        kept.changed = set()
        for key in changed:
            self._look(kept, key)

    def _look(self, kept: Kept, key: str) -> None:
        host = kept.hosts.get(key)
        if host is None:
            if self._views.pop(key, None) and self._index is not None:
                self._index.drop(key)
            return
        there = kept.there.get(key, {})
        view = views.standing(
            host,
            kept.sold.get(key, Sold()),
            [there[each] for each in sorted(there)],
            alive=key in kept.alive,
        )
        self._views[key] = view
        if self._index is not None:
            self._index.put(view)

    def _whole_index(self) -> Index:
        if self._index is None:
            from bulkhead.cluster.index import Index  # numpy: a daemon that serves no large fleet does without

            self._index = Index((self._views[key] for key in sorted(self._views)), spare=self._spare)
        return self._index
