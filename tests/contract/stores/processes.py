"""What a process of its own does to the database of a test: python -m tests.contract.stores.processes PLACE WHAT N."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bulkhead.store import SQLiteStore, Store, Transaction
from bulkhead.store.etcd import EtcdStore

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Place:
    """A file of SQLite's, or a cluster in etcd."""

    path: str = ""
    endpoints: list[str] = field(default_factory=list)
    cluster: str = ""

    def open(self) -> Store:
        """Its store."""
        return SQLiteStore(Path(self.path)) if self.path else EtcdStore(self.endpoints, cluster=self.cluster)

    def process(self, what: str, times: int) -> subprocess.Popen[bytes]:
        """Start one."""
        argv = [sys.executable, "-m", __name__, json.dumps(asdict(self)), what, str(times)]
        return subprocess.Popen(argv, cwd=ROOT)


def add_one(transaction: Transaction) -> None:
    """Count up."""
    transaction.put("counter", "n", str(int(transaction.get("counter", "n") or 0) + 1))


def _killed(transaction: Transaction) -> None:
    transaction.put("plan", "open", "1")
    os.kill(os.getpid(), 9)


def main() -> None:
    """See above."""
    place, what, times = Place(**json.loads(sys.argv[1])), sys.argv[2], int(sys.argv[3])
    store = place.open()
    for _ in range(times):
        store.attempt({"count": add_one, "die": _killed}[what])
    store.close()


if __name__ == "__main__":
    main()
