"""Parts of the etcd store by themselves: where keys are, and when a renewal counts. The rest: tests/contract/stores."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.errors import Refused, Unavailable
from bulkhead.store.etcd.gateway import Gateway, Rejected, Unsure
from bulkhead.store.etcd.layout import Layout
from bulkhead.store.etcd.leases import MARGIN, HeldLease

LAYOUT = Layout("c")
_kinds = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,5}", fullmatch=True)
_keys = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)


@given(kind=_kinds, other=_kinds, key=_keys, prefix=_keys)
def test_a_range_has_the_keys_of_its_kind_that_begin_so_and_no_other(
    kind: str, other: str, key: str, prefix: str
) -> None:
    raw = LAYOUT.record(kind, key)
    first, end = LAYOUT.records(other, prefix)
    assert (first <= raw < end) == (kind == other and key.startswith(prefix))
    assert LAYOUT.name(kind, raw) == key
    first, end = LAYOUT.everything()
    assert first <= raw < end
    assert not first <= Layout("c0").record(kind, key) < end
    for own in (LAYOUT.generation(kind), LAYOUT.slot(key), LAYOUT.event(key)):
        inner = LAYOUT.records(other)
        assert not inner[0] <= own < inner[1]


@pytest.mark.parametrize("name", ["", "a/b", "A", "~a", "é", "-a", "a" * 65])
def test_what_is_no_clusters_name(name: str) -> None:
    with pytest.raises(Refused, match="a cluster cannot be called"):
        Layout(name)


class Members(Gateway):
    """A gateway without members: what they say is set by the test."""

    def __init__(self) -> None:
        super().__init__(["http://127.0.0.1:1"])
        self.terms = [1]
        self.answer: dict[str, Any] = {"result": {"TTL": "10"}}
        self.takes = 0.0
        self.clock = 100.0

    def term(self, member: int, *, timeout: float = 3.0) -> int:
        return self.terms.pop(0) if len(self.terms) > 1 else self.terms[0]

    def ask(self, member: int, path: str, body: Mapping[str, Any], *, timeout: float = 3.0) -> dict[str, Any]:
        assert path == "lease/keepalive"
        self.clock += self.takes
        return self.answer


@pytest.fixture
def members() -> Members:
    """One that says yes."""
    return Members()


@pytest.fixture
def lease(members: Members) -> HeldLease:
    """Of ten seconds, granted now; no thread renews it."""
    return HeldLease(members, 7, 10, begun=100.0, ended=lambda lease: None, clock=lambda: members.clock)


def test_time_counts_from_before_the_renewal_was_sent(members: Members, lease: HeldLease) -> None:
    assert lease.remaining() == pytest.approx(10 * (1 - MARGIN))
    members.clock, members.takes = 104.0, 2.0
    assert lease._renew()
    assert lease.remaining() == pytest.approx(10 * (1 - MARGIN) - 2.0)


@pytest.mark.parametrize("terms", [[1, 2], [0, 3], [5, 6, 6]])
def test_a_leader_that_is_none_any_more_renews_nothing(members: Members, lease: HeldLease, terms: list[int]) -> None:
    members.terms, members.clock = terms, 105.0
    assert not lease._renew()
    assert lease.remaining() == pytest.approx(10 * (1 - MARGIN) - 5.0)


def test_nor_does_it_end_anything(members: Members, lease: HeldLease) -> None:
    members.terms, members.answer = [1, 2], {"result": {}}
    assert not lease._renew()
    assert not lease.lost.is_set()


def test_an_answer_that_is_none_renews_nothing(members: Members, lease: HeldLease) -> None:
    members.answer, members.clock = {"error": {"grpc_code": 14}}, 105.0
    assert not lease._renew()
    assert lease.remaining() < 5


def test_what_comes_after_the_time_is_over_comes_too_late(members: Members, lease: HeldLease) -> None:
    members.clock, members.takes = 105.0, 6.0
    assert not lease._renew()
    assert lease.remaining() == 0


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        (3, "etcdserver: request is too large", Refused),
        (8, "grpc: received message larger than max (3 vs. 2)", Refused),
        (3, "etcdserver: too many operations in txn request", Refused),
        (8, "etcdserver: mvcc: database space exceeded", Unavailable),
        (8, "etcdserver: too many requests", Unavailable),
    ],
)
def test_what_etcd_says_in_words(code: int, message: str, error: type[Exception]) -> None:
    said = Rejected(code, message).error()
    assert type(said) is error
    assert said.hint


def test_a_member_that_failed_is_asked_last(members: Members) -> None:
    gateway = Gateway(["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"])
    assert gateway.order() == [0, 1, 2]
    gateway.failed(0)
    assert gateway.order() == [1, 2, 0]
    with pytest.raises(Unavailable, match=r"127.0.0.1:2, http"):
        gateway.once("kv/txn", {}, timeout=0.2)
    with pytest.raises((Unavailable, Unsure)):
        gateway.ask(1, "kv/range", {}, timeout=0.2)
    gateway.close()


def test_who_is_about_to_end_waits_no_more_for_members_that_do_not_answer() -> None:
    gateway = Gateway(["http://127.0.0.1:1"], timeout=3600.0)
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            gateway.call("kv/range", {})
        except Unavailable as error:
            ended.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    gateway.hurry()
    thread.join(60.0)
    assert len(ended) == 1
    with pytest.raises(Unavailable):  # what comes after it is not even tried
        gateway.call("kv/range", {})
    gateway.close()


def test_who_is_about_to_end_still_asks_members_that_answer() -> None:
    gateway = Members()
    gateway.hurry()
    for _ in range(3):
        assert gateway.call("lease/keepalive", {}) == gateway.answer
