"""What an instance may hold that no other may hold at the same time: a range of uids.

A lease is a record under (kind, key) that says who holds it, and an entry in the holder's own list, so that
everything an instance holds can be dropped at once. All functions work inside one transaction.
"""

from __future__ import annotations

import json

from bulkhead import model
from bulkhead.errors import Conflict
from bulkhead.store.base import Reader, Transaction

UID_RANGE = "uid-range"
_HELD = "leases"
LAST_UID = 0xFFFF_FFFE
"""The largest uid: 2^32 - 1 means "no uid" to the kernel."""


def take(transaction: Transaction, kind: str, key: str, holder: str) -> str:
    """Lease (kind, key) for `holder`; returns who holds it afterwards: somebody else where it is taken."""
    if not transaction.insert(kind, key, json.dumps(holder)):
        return holder_of(transaction, kind, key)
    held = _held(transaction, holder)
    transaction.put(_HELD, holder, json.dumps([*held, [kind, key]]))
    return holder


def drop(transaction: Transaction, holder: str) -> None:
    """Give back everything that `holder` has. Idempotent."""
    for kind, key in _held(transaction, holder):
        transaction.delete(kind, key)
    transaction.delete(_HELD, holder)


def held_by(reader: Reader, holder: str, kind: str) -> list[str]:
    """Keys of one kind that `holder` has."""
    return [key for found, key in _held(reader, holder) if found == kind]


def holder_of(reader: Reader, kind: str, key: str) -> str:
    """Who holds (kind, key); "" where nobody does."""
    text = reader.get(kind, key)
    return "" if text is None else str(json.loads(text))


def take_uid_range(transaction: Transaction, holder: str, *, base: int) -> int:
    """Lease the lowest free range of UID_RANGE uids above `base`; the range it has already, where it has one."""
    own = held_by(transaction, holder, UID_RANGE)
    if own:
        return int(own[0])
    start = base
    for key, _ in transaction.list(UID_RANGE):
        if int(key) >= start + model.UID_RANGE:
            break
        start = max(start, int(key) + model.UID_RANGE)
    if start + model.UID_RANGE - 1 > LAST_UID:
        raise Conflict(
            f"no {model.UID_RANGE} uids are free above {base}", hint="remove instances, or set a lower uid_base"
        )
    take(transaction, UID_RANGE, f"{start:010d}", holder)
    return start


def _held(reader: Reader, holder: str) -> list[list[str]]:
    text = reader.get(_HELD, holder)
    return [] if text is None else json.loads(text)
