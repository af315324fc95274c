"""Each test of the stores' contract runs once on SQLite, and once on an etcd of three members."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bulkhead.store import SQLiteStore, Store
from bulkhead.store.etcd import EtcdStore
from tests.contract.stores.processes import Place
from tests.harness.etcd import Etcd

Open = Callable[..., Store]
"""Opens the test's one database once more, as another process would; the arguments are the store's."""


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    """Three members for all tests of the run; each test has a cluster's name of its own."""
    with Etcd() as running:
        yield running


@pytest.fixture(params=["sqlite", "etcd"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the test's database is."""
    if request.param == "sqlite":
        return Place(path=str(tmp_path / "state.db"))
    return Place(endpoints=request.getfixturevalue("etcd").endpoints, cluster=f"c{secrets.token_hex(8)}")


@pytest.fixture
def open_store(place: Place) -> Iterator[Open]:
    """See Open; all are closed after the test."""
    with ExitStack() as stack:

        def opened(**arguments: Any) -> Store:
            made: Store
            if place.path:
                made = SQLiteStore(Path(place.path), **arguments)
            else:
                made = EtcdStore(place.endpoints, cluster=place.cluster, timeout=30.0, **arguments)
            stack.callback(made.close)
            return made

        yield opened


@pytest.fixture
def store(open_store: Open) -> Store:
    """One of them."""
    return open_store()
