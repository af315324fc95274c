"""Commits that are made once or not at all, and of which it is known which: etcd's answer may be lost, its effect not.

Each commit also writes its own name into a slot, a key of this client's, and compares that the slot is as it was left.
Where the answer is lost, another write into the slot decides: either it finds the name there, so the commit was made,
or it changes the slot, and the commit, wherever it still is under way, can never be made.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bulkhead.errors import Contended, Unavailable, Undecided
from bulkhead.store.etcd.gateway import Gateway, Rejected, Unsure
from bulkhead.store.etcd.layout import KeyValue, Layout, pack
from bulkhead.store.etcd.views import modified, put

SESSION_SECONDS = 3600
"""Slots of a client that is gone are gone after so long."""
_RENEW_AFTER = SESSION_SECONDS / 3
Operations = list[dict[str, Any]]


@dataclass(slots=True)
class _Session:
    """The lease of this client's slots."""

    lease: int
    renewed: float


@dataclass(slots=True)
class _Slot:
    """A key that one commit at a time is named in, and the revision of its last change."""

    key: bytes
    session: _Session
    revision: int


class Commits:
    """Safe to use from any thread; there are as many slots as there are commits at the same time."""

    def __init__(self, gateway: Gateway, layout: Layout, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._gateway, self._layout, self._clock = gateway, layout, clock
        self._guard = threading.Lock()
        self._session: _Session | None = None
        self._free: list[_Slot] = []

    def commit(self, compares: Operations, operations: Operations) -> int:
        """Make the changes if the comparisons hold; the revision that they are made in.

        Raises Contended where they do not hold; Unavailable where nothing was changed, since etcd does not answer;
        Undecided where it does not answer afterwards either; Rejected where etcd does not take it.
        """
        deadline = time.monotonic() + self._gateway.timeout
        again = True
        while True:
            slot = self._take()
            try:
                made = self._try(slot, compares, operations)
            except Rejected as error:
                # The session's lease, or one that a record is put under? With a new session it can only be the other.
                if not (error.no_lease and again):
                    self._give(slot)
                    raise
                again, made = False, None
                self._forget(slot.session)
            else:
                if slot.revision:
                    self._give(slot)
            if made is not None:
                return made
            if time.monotonic() > deadline:
                raise self._gateway.unavailable("it could not be asked in time to make a change, and has not made it")

    def close(self) -> None:
        """Let go of the slots, if etcd answers. Idempotent."""
        with self._guard:
            session, self._session = self._session, None
            self._free.clear()
        if session:
            try:
                self._gateway.call("lease/revoke", {"ID": str(session.lease)}, timeout=1.0)
            except (Unavailable, Rejected):
                pass

    # --- inside

    def _try(self, slot: _Slot, compares: Operations, operations: Operations) -> int | None:
        """One try; None where it was not made and may be tried again."""
        name = secrets.token_hex(16).encode()
        body = {
            "compare": [modified(slot.key, slot.revision), *compares],
            # The last one: who watches takes it for the end of the commit.
            "success": [put(slot.key, name, lease=slot.session.lease), *operations, put(self._layout.newest(), b"")],
            "failure": [{"request_range": {"key": pack(slot.key)}}],
        }
        try:
            answer = self._gateway.once("kv/txn", body)
        except Unsure as error:
            return self._decide(slot, name, error)
        revision = int(answer["header"]["revision"])
        if answer.get("succeeded"):
            slot.revision = revision
            return revision
        if _modified_in(answer) == slot.revision:
            raise self._contended(slot)
        # The slot is not as it was left: its lease has ended, over a long sleep of this host.
        slot.revision = 0
        self._forget(slot.session)
        return None

    def _contended(self, slot: _Slot) -> Contended:
        self._give(slot)
        return Contended("somebody else has changed the same at the same time", hint="try again")

    def _decide(self, slot: _Slot, name: bytes, unsure: Unsure) -> int | None:
        """Find out whether a commit was made, and where it was not, see to it that it never is."""
        fence = b"not " + name
        body = {
            "compare": [modified(slot.key, slot.revision)],
            "success": [put(slot.key, fence, lease=slot.session.lease)],
            "failure": [{"request_range": {"key": pack(slot.key)}}],
        }
        before, slot.revision = slot.revision, 0  # a slot that nothing is known of is not used again
        try:
            answer = self._gateway.call("kv/txn", body)
        except (Unavailable, Rejected) as error:
            raise self._undecided(unsure) from error
        if answer.get("succeeded"):
            slot.revision = int(answer["header"]["revision"])
            return None
        found = _found_in(answer)
        if found is None or found.modified == before or found.value not in (name, fence):
            raise self._undecided(unsure)
        slot.revision = found.modified
        return found.modified if found.value == name else None

    def _undecided(self, unsure: Unsure) -> Undecided:
        return Undecided(
            f"etcd at {self._gateway.names} did not say whether a change was made, nor can it be asked: {unsure}",
            hint="look whether it was, once etcd answers again",
        )

    def _take(self) -> _Slot:
        """A free slot, or a new one."""
        session = self._live_session()
        with self._guard:
            while self._free:
                slot = self._free.pop()
                if slot.session is session:
                    return slot
        key = self._layout.slot(secrets.token_hex(16))
        body = {"key": pack(key), "value": "", "lease": str(session.lease)}
        try:
            answer = self._gateway.call("kv/put", body)
        except Rejected as error:
            self._forget(session)
            raise self._gateway.unavailable(error.message) if error.no_lease else error.error() from error
        return _Slot(key, session, int(answer["header"]["revision"]))

    def _give(self, slot: _Slot) -> None:
        with self._guard:
            if slot.session is self._session:
                self._free.append(slot)

    def _live_session(self) -> _Session:
        """The session, renewed so that its slots outlive by far whatever is decided by them."""
        with self._guard:
            session, now = self._session, self._clock()
            if session and now - session.renewed < _RENEW_AFTER:
                return session
            if session and self._renewed(session):
                session.renewed = now
                return session
            lease = secrets.randbits(62) + 1
            try:
                self._gateway.call("lease/grant", {"TTL": str(SESSION_SECONDS), "ID": str(lease)})
            except Rejected as error:
                if "already exists" not in error.message:  # asked twice, and done the first time
                    raise error.error() from error
            self._free.clear()
            self._session = _Session(lease, now)
            return self._session

    def _renewed(self, session: _Session) -> bool:
        try:
            answer = self._gateway.call("lease/keepalive", {"ID": str(session.lease)})
        except Rejected:
            return False
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def _forget(self, session: _Session) -> None:
        with self._guard:
            if self._session is session:
                self._session = None
                self._free.clear()


def _found_in(answer: dict[str, Any]) -> KeyValue | None:
    pairs = answer["responses"][0].get("response_range", {}).get("kvs", [])
    return KeyValue.of(pairs[0]) if pairs else None


def _modified_in(answer: dict[str, Any]) -> int:
    found = _found_in(answer)
    return found.modified if found else 0
