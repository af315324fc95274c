"""The pool, with connections that are none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count

import pytest

from bulkhead.errors import HostError
from bulkhead.model import Network
from bulkhead.network import pool as module
from bulkhead.network.addresses import address_of
from bulkhead.network.pool import Pool
from bulkhead.network.wiring import Connection

NETWORK = Network(name="n", id="0badcafe", subnet4="10.144.3.0/24", subnet6="fd42:b01c:0:3::/64")
OTHER = NETWORK.model_copy(update={"id": "00000002"})


class Maker:
    """Makes numbered connections, as long as it is not told to fail."""

    def __init__(self) -> None:
        self.numbers = count(2)
        self.made: list[Connection] = []
        self.dropped: list[Connection] = []
        self.fails = False
        self.go_on = threading.Event()
        self.go_on.set()

    def make(self, network: Network) -> Connection:
        """One more."""
        self.go_on.wait(10)
        if self.fails:
            raise HostError("no more")
        number = next(self.numbers)
        self.made.append(Connection(address_of(network, number), -1, f"v{number}"))
        return self.made[-1]


@pytest.fixture
def maker() -> Maker:
    """What the pool calls."""
    return Maker()


@pytest.fixture
def pool(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """A pool of three."""
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    pool = Pool(3, make=maker.make, drop=maker.dropped.append)
    yield pool
    pool.close()


def test_it_fills_and_fills_up_again(pool: Pool, maker: Maker) -> None:
    assert pool.take(NETWORK, ()) is None
    pool.serve(NETWORK)
    assert pool.wait_full(10)
    taken = [pool.take(NETWORK, ()) for _ in range(2)]
    assert taken == maker.made[:2]
    assert pool.wait_full(10)
    assert len(maker.made) == 5
    assert pool.take(OTHER, ()) is None


def test_what_is_taken_elsewhere_is_dropped(pool: Pool, maker: Maker) -> None:
    pool.serve(NETWORK)
    assert pool.wait_full(10)
    got = pool.take(NETWORK, {"10.144.3.2", "10.144.3.3"})
    assert got == maker.made[2]
    assert maker.dropped == maker.made[:2]


def test_after_a_failure_it_tries_again(pool: Pool, maker: Maker) -> None:
    maker.fails = True
    pool.serve(NETWORK)
    assert not pool.wait_full(0.05)
    assert str(pool.error) == "no more"
    maker.fails = False
    assert pool.wait_full(10)
    assert pool.error is None


def test_nothing_stays_when_it_is_drained_or_closed(pool: Pool, maker: Maker) -> None:
    pool.serve(NETWORK)
    assert pool.wait_full(10)
    pool.drain(OTHER)
    assert len(pool) == 3
    maker.go_on.clear()
    pool.take(NETWORK, ())
    threading.Timer(0.05, maker.go_on.set).start()  # one is being made meanwhile
    pool.drain(NETWORK)
    assert len(pool) == 0
    pool.close()
    assert set(maker.dropped) == set(maker.made[1:])


def test_without_a_size_there_is_no_pool(maker: Maker) -> None:
    pool = Pool(0, make=maker.make, drop=maker.dropped.append)
    pool.serve(NETWORK)
    assert pool.take(NETWORK, ()) is None
    pool.close()
    assert maker.made == []
