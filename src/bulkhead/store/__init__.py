"""The daemon's state: a small key-value protocol with transactions, SQLite behind it, typed records over it."""

from __future__ import annotations

from bulkhead.config import Config
from bulkhead.store.abilities import Behind, Change, Lease, Leases, Watch, Watches
from bulkhead.store.base import Reader, Store, Transaction
from bulkhead.store.sqlite import SQLiteStore
from bulkhead.store.state import Scale, State, weightless

__all__ = [
    "Behind",
    "Change",
    "Lease",
    "Leases",
    "Reader",
    "SQLiteStore",
    "Scale",
    "State",
    "Store",
    "Transaction",
    "Watch",
    "Watches",
    "open_state",
]


def open_state(config: Config, *, scale: Scale = weightless) -> State:
    """The state of the daemon with this configuration; the file is made when it is not there. Raises HostError."""
    return State(SQLiteStore(config.store_file), uid_base=config.uid_base, scale=scale)
