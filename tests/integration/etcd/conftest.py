"""An etcd of three members that a module's tests do harm to, and stores on it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from bulkhead.store.etcd import EtcdStore
from tests.harness.etcd import Etcd

MakeStore = Callable[..., EtcdStore]
"""Opens a store of the test's own cluster; arguments are those of EtcdStore, all with a usual value."""


@pytest.fixture(scope="module")
def running_etcd() -> Iterator[Etcd]:
    """The three members."""
    with Etcd() as running:
        yield running


@pytest.fixture
def etcd(running_etcd: Etcd) -> Etcd:
    """All of them up, whatever the last test has done."""
    for number, pid in enumerate(running_etcd.pids):
        if not pid:
            running_etcd.restart(number, wait=False)
    running_etcd.wait_for_leader()
    return running_etcd


@pytest.fixture
def make_store(request: pytest.FixtureRequest) -> Iterator[MakeStore]:
    """See MakeStore."""
    cluster = f"c{secrets.token_hex(8)}"
    with ExitStack() as stack:

        def made(**arguments: Any) -> EtcdStore:
            endpoints = arguments.pop("endpoints", None) or request.getfixturevalue("etcd").endpoints
            store = EtcdStore(endpoints, **{"cluster": cluster, "timeout": 30.0, **arguments})
            stack.callback(store.close)
            return store

        yield made


@pytest.fixture
def store(make_store: MakeStore) -> EtcdStore:
    """One of them."""
    return make_store()
