"""Leases: what is under one is gone with its holder, who never believes in it for longer than etcd does."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bulkhead.errors import Conflict, Contended
from bulkhead.store import Leases, Watches
from bulkhead.store.etcd import EtcdStore
from tests.harness.etcd import Etcd
from tests.harness.http_proxy import Fate, HttpProxy

MakeStore = Callable[..., EtcdStore]
PATIENCE = 120.0


def there(store: EtcdStore) -> bool:
    """Whether the record is."""
    with store.read() as reader:
        return reader.get("alive", "h") is not None


def wait_until_gone(store: EtcdStore) -> None:
    """Until it is not."""
    deadline = time.monotonic() + PATIENCE
    while there(store):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_abilities_are_told_by_their_protocols(store: EtcdStore) -> None:
    assert isinstance(store, Leases) and isinstance(store, Watches)


def test_it_is_kept_until_it_is_revoked(store: EtcdStore) -> None:
    lease = store.grant(1.5)
    assert lease.ttl >= 2
    with store.transaction() as transaction:
        store.put_leased(transaction, "alive", "h", "1", lease=lease)
        assert transaction.get("alive", "h") == "1"
    deadline = time.monotonic() + 2 * lease.ttl
    while time.monotonic() < deadline:
        assert there(store) and not lease.lost.is_set()
        assert 0 < lease.remaining() <= lease.ttl
        time.sleep(0.1)
    lease.revoke()
    lease.revoke()
    assert not there(store)
    assert lease.lost.is_set() and lease.remaining() == 0


def test_who_is_cut_off_knows_it_before_others_do(make_store: MakeStore, etcd: Etcd) -> None:
    other = make_store()
    with HttpProxy(etcd.addresses[0], 2379) as proxy:
        holder = make_store(endpoints=[proxy.url], timeout=5.0)
        lease = holder.grant(2)
        with holder.transaction() as transaction:
            holder.put_leased(transaction, "alive", "h", "1", lease=lease)
        proxy.rule = lambda path: Fate.CUT_BEFORE
        wait_until_gone(other)
        assert lease.remaining() == 0
        assert lease.lost.wait(PATIENCE)
        proxy.rule = lambda path: Fate.PASS
        with pytest.raises(Conflict, match=r"lease .* is gone") as caught, holder.transaction() as transaction:
            transaction.put("result", "r", "1")
            holder.put_leased(transaction, "alive", "h", "1", lease=lease)
        assert not isinstance(caught.value, Contended)
        with other.read() as reader:
            assert reader.list("result") == []


def test_a_holder_that_is_told_nothing_is_told_by_etcd(store: EtcdStore, etcd: Etcd) -> None:
    lease = store.grant(3)
    etcd.ctl("lease", "revoke", f"{lease.id:x}")
    assert lease.lost.wait(PATIENCE)
    assert lease.remaining() == 0


def test_it_outlives_a_leader(make_store: MakeStore, etcd: Etcd) -> None:
    store = make_store()
    lease = store.grant(30)
    with store.transaction() as transaction:
        store.put_leased(transaction, "alive", "h", "1", lease=lease)
    leader = etcd.leader()
    etcd.kill(leader)
    etcd.wait_for_leader(other_than=leader)
    renewed = lease.remaining()
    deadline = time.monotonic() + PATIENCE
    while lease.remaining() <= renewed:
        assert time.monotonic() < deadline and not lease.lost.is_set()
        time.sleep(0.05)
    assert there(store)


def test_a_store_that_is_closed_renews_no_more(make_store: MakeStore) -> None:
    holder, other = make_store(), make_store()
    lease = holder.grant(2)
    with holder.transaction() as transaction:
        holder.put_leased(transaction, "alive", "h", "1", lease=lease)
    holder.close()
    wait_until_gone(other)
    assert lease.remaining() == 0


def test_put_again_without_a_lease_it_stays(store: EtcdStore) -> None:
    lease = store.grant(5)
    with store.transaction() as transaction:
        store.put_leased(transaction, "alive", "h", "1", lease=lease)
    with store.transaction() as transaction:
        transaction.put("alive", "h", "2")
    lease.revoke()
    assert there(store)


@pytest.mark.parametrize("listed", [False, True])
def test_what_ended_since_it_was_read_is_contended(make_store: MakeStore, listed: bool) -> None:
    one, other = make_store(), make_store()
    lease = other.grant(5)
    with other.transaction() as transaction:
        other.put_leased(transaction, "alive", "h", "1", lease=lease)
    with pytest.raises(Contended), one.transaction() as transaction:
        assert transaction.list("alive") if listed else transaction.get("alive", "h")
        lease.revoke()
        transaction.put("result", "r", "1")


def test_a_transaction_of_another_store_is_a_mistake(store: EtcdStore) -> None:
    lease = store.grant(5)
    with pytest.raises(TypeError):
        store.put_leased(object(), "alive", "h", "1", lease=lease)  # type: ignore[arg-type]
