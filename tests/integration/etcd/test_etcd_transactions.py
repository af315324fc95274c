"""Transactions in etcd, step by step against one another; what it refuses; and where its answers get lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulkhead.errors import Contended, HostError, Refused, Unavailable, Undecided
from bulkhead.events import Event
from bulkhead.store import Transaction
from bulkhead.store.etcd import TLS, EtcdStore
from bulkhead.store.etcd import store as etcd_store
from tests.harness.certificates import Authority
from tests.harness.etcd import Etcd
from tests.harness.http_proxy import Fate, HttpProxy

MakeStore = Callable[..., EtcdStore]
Step = Callable[[Transaction], object]
TXN = "/v3/kv/txn"

READS: dict[str, Step] = {
    "a key": lambda transaction: transaction.get("plan", "a"),
    "a key that is not there": lambda transaction: transaction.get("plan", "ab"),
    "a list": lambda transaction: transaction.list("plan"),
    "a list of some": lambda transaction: transaction.list("plan", "a"),
    "an insert that failed": lambda transaction: transaction.insert("plan", "a", "x"),
    "a removal of nothing": lambda transaction: transaction.delete("plan", "ab"),
}
CHANGES: dict[str, tuple[Step, set[str]]] = {
    "changed": (
        lambda transaction: transaction.put("plan", "a", "2"),
        {"a key that is not there", "a removal of nothing"},
    ),
    "written as it was": (
        lambda transaction: transaction.put("plan", "a", "1"),
        {"a key that is not there", "a removal of nothing"},
    ),
    "added": (lambda transaction: transaction.put("plan", "ab", "2"), {"a key", "an insert that failed"}),
    "removed": (
        lambda transaction: transaction.delete("plan", "a"),
        {"a key that is not there", "a removal of nothing"},
    ),
    "of another kind": (lambda transaction: transaction.put("port", "a", "2"), set(READS)),
    "removed from another kind": (lambda transaction: transaction.delete("port", "z"), set(READS)),
}
"""What somebody else does, and to which readings it makes no difference."""


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("change", CHANGES)
def test_what_was_read_must_still_be_so(make_store: MakeStore, read: str, change: str) -> None:
    one, other = make_store(), make_store()
    with one.transaction() as transaction:
        transaction.put("plan", "a", "1")
        transaction.put("port", "z", "1")
    step, harmless = CHANGES[change]
    mine = one.transaction()
    transaction = mine.__enter__()
    READS[read](transaction)
    transaction.put("result", "r", "made")
    with other.transaction() as theirs:
        step(theirs)
    if read in harmless:
        mine.__exit__(None, None, None)
    else:
        with pytest.raises(Contended):
            mine.__exit__(None, None, None)
    with other.read() as reader:
        assert (reader.get("result", "r") == "made") == (read in harmless)


def test_removed_and_added_again_is_another(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    with one.transaction() as transaction:
        transaction.put("plan", "a", "1")
    with pytest.raises(Contended), one.transaction() as transaction:
        assert transaction.list("plan", "a")
        for step in (lambda found: found.delete("plan", "a"), lambda found: found.insert("plan", "a", "1")):
            other.attempt(step)
        transaction.put("result", "r", "made")


def test_who_has_only_read_is_right_whatever_changes(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    with one.transaction() as transaction:
        assert transaction.list("plan") == []
        other.attempt(lambda found: found.put("plan", "a", "1"))
        assert transaction.get("plan", "a") is None, "as of the moment of the first read"


def test_those_who_only_write_do_not_wait_for_one_another(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    with one.transaction() as transaction:
        transaction.put("plan", "a", "1")
        other.attempt(lambda found: found.put("plan", "a", "2"))
    with other.read() as reader:
        assert reader.get("plan", "a") == "1"


def test_an_attempt_ends(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_store, "TRIES", 5)
    one, other = make_store(), make_store()
    tries = []

    def body(transaction: Transaction) -> None:
        tries.append(transaction.get("counter", "n"))
        other.attempt(lambda found: found.put("counter", "n", str(len(tries))))
        transaction.put("counter", "n", "mine")

    with pytest.raises(Contended):
        one.attempt(body)
    assert tries == [None, "1", "2", "3", "4"]
    with one.read() as reader:
        assert reader.get("counter", "n") == "5"


def test_what_etcd_does_not_take_is_refused_whole(store: EtcdStore) -> None:
    with pytest.raises(Refused, match="more records than etcd takes") as caught, store.transaction() as transaction:
        for number in range(5000):
            transaction.put("plan", f"{number}", "1")
    assert "--max-txn-ops" in caught.value.hint
    with pytest.raises(Refused, match="too large"), store.transaction() as transaction:
        transaction.put("plan", "small", "1")
        transaction.put("plan", "large", "x" * 4_200_000)
    with store.read() as reader:
        assert reader.list("plan") == []
    with store.transaction() as transaction:
        for number in range(3000):
            transaction.put("plan", f"{number}", "1")
    with store.read() as reader:
        assert len(reader.list("plan")) == 3000


def test_an_etcd_with_its_own_bounds_refuses_as_clearly() -> None:
    with Etcd(members=1, flags=()) as etcd:
        store = EtcdStore(etcd.endpoints, cluster="c", timeout=30.0)
        with pytest.raises(Refused, match="more records than etcd takes"), store.transaction() as transaction:
            for number in range(200):
                transaction.put("plan", f"{number}", "1")
        for size in (1_700_000, 2_500_000):
            with pytest.raises(Refused, match="too large"), store.transaction() as transaction:
                transaction.put("plan", "large", "x" * size)
        with store.read() as reader:
            assert reader.list("plan") == []
        store.close()


@pytest.mark.parametrize("kind", ["", "a/b", "~event", "A", "é", "a" * 65, "..", "a\0"])
def test_what_is_no_kind_is_a_mistake(store: EtcdStore, kind: str) -> None:
    with store.transaction() as transaction:
        for step in (
            lambda: transaction.get(kind, "a"),
            lambda: transaction.list(kind),
            lambda: transaction.put(kind, "a", "1"),
            lambda: transaction.insert(kind, "a", "1"),
            lambda: transaction.delete(kind, "a"),
        ):
            with pytest.raises(ValueError, match="no kind of records"):
                step()


def test_what_was_read_too_long_ago_is_contended(make_store: MakeStore, etcd: Etcd) -> None:
    one, other = make_store(), make_store()
    with pytest.raises(Contended), one.transaction() as transaction:
        transaction.get("plan", "a")
        for number in range(3):
            other.attempt(lambda found, number=number: found.put("plan", "b", str(number)))  # type: ignore[misc]
        etcd.compact(other.revision())
        transaction.list("plan")


def test_endpoints_and_clusters_that_are_none(tmp_path: Path) -> None:
    wrong = ["10.0.0.1", "ftp://a:1", "http://a:1/path", "http://a", "", "https://a:1"]
    with pytest.raises(Refused) as caught:
        EtcdStore(["http://a:1", *wrong], cluster="c")
    assert len(caught.value.problems) == len(wrong)
    for arguments in ({"endpoints": [], "cluster": "c"}, {"endpoints": ["http://a:1"], "cluster": "a/b"}):
        with pytest.raises(Refused):
            EtcdStore(**arguments)  # type: ignore[arg-type]
    missing = TLS(tmp_path / "ca", tmp_path / "crt", tmp_path / "key")
    with pytest.raises(HostError, match="certificates for etcd"):
        EtcdStore(["https://a:1"], cluster="c", tls=missing)


def test_mutual_tls(tmp_path: Path) -> None:
    strange = Authority(tmp_path, name="strange")
    pair = strange.issue("client", [])
    with Etcd(members=1, tls=True) as etcd:
        assert etcd.tls
        ours = EtcdStore(etcd.endpoints, cluster="c", tls=etcd.tls)
        ours.attempt(lambda transaction: transaction.put("plan", "a", "1"))
        assert ours.check() == []
        ours.close()
        for tls in (TLS(etcd.tls.authority, *pair), TLS(strange.certificate, etcd.tls.certificate, etcd.tls.key)):
            other = EtcdStore(etcd.endpoints, cluster="c", tls=tls, timeout=2.0)
            with pytest.raises(Unavailable), other.read() as reader:
                reader.get("plan", "a")
            other.close()


# --- answers that get lost


@pytest.fixture
def proxy(etcd: Etcd) -> Iterator[HttpProxy]:
    """In front of the first member."""
    with HttpProxy(etcd.addresses[0], 2379) as made:
        yield made


def count(transaction: Transaction) -> None:
    """Changes what it reads, so that doing it twice shows."""
    transaction.put("counter", "n", str(int(transaction.get("counter", "n") or 0) + 1))


def counted(store: EtcdStore) -> str | None:
    """How often."""
    with store.read() as reader:
        return reader.get("counter", "n")


@pytest.mark.parametrize("fate", [Fate.CUT_BEFORE, Fate.CUT_AFTER, Fate.HOLD])
@pytest.mark.parametrize("others", [False, True])
def test_a_commit_without_an_answer_is_made_once(
    make_store: MakeStore, etcd: Etcd, proxy: HttpProxy, fate: Fate, others: bool
) -> None:
    store = make_store(endpoints=[proxy.url, *(etcd.endpoints[1:] if others else [])])
    store.attempt(count)
    for number in range(2, 5):
        proxy.once(TXN, fate)
        store.attempt(count)
        assert counted(store) == str(number)
    late = proxy.deliver()
    assert bool(late) == (fate is Fate.HOLD)
    assert not any(b'"succeeded":true' in answer for answer in late), "what comes late comes too late"
    assert counted(store) == "4"


def test_one_that_comes_late_changes_nothing(make_store: MakeStore, etcd: Etcd, proxy: HttpProxy) -> None:
    """It compares nothing but its slot: only that can keep it out."""
    store, other = make_store(endpoints=[proxy.url]), make_store()
    store.attempt(lambda transaction: transaction.put("plan", "a", "first"))
    proxy.once(TXN, Fate.HOLD)
    store.attempt(lambda transaction: transaction.put("plan", "a", "second"))
    other.attempt(lambda transaction: transaction.put("plan", "a", "third"))
    assert len(proxy.deliver()) == 1
    with other.read() as reader:
        assert reader.get("plan", "a") == "third"


@pytest.mark.parametrize("fate", [Fate.CUT_AFTER, Fate.HOLD])
def test_one_that_nobody_can_be_asked_about_is_undecided(
    make_store: MakeStore, etcd: Etcd, proxy: HttpProxy, fate: Fate
) -> None:
    store, other = make_store(endpoints=[proxy.url], timeout=1.0), make_store()
    store.attempt(count)
    fates = [fate]
    proxy.rule = lambda path: (fates.pop() if fates else Fate.CUT_BEFORE) if path == TXN else Fate.PASS
    with pytest.raises(Undecided, match="did not say whether"):
        store.attempt(count)
    proxy.rule = lambda path: Fate.PASS
    assert counted(other) == ("2" if fate is Fate.CUT_AFTER else "1")
    proxy.deliver()
    assert counted(other) == "2", "it is made yet"
    store.attempt(count)
    assert counted(other) == "3"


def test_a_slot_that_has_ended_is_made_anew(store: EtcdStore, etcd: Etcd) -> None:
    """As over a long sleep of the host."""
    store.attempt(count)
    for lease in etcd.leases():
        etcd.ctl("lease", "revoke", f"{lease:x}")
    store.attempt(count)
    store.attempt(count)
    assert counted(store) == "3"


def test_an_event_without_an_answer_is_kept_once(make_store: MakeStore, proxy: HttpProxy) -> None:
    store = make_store(endpoints=[proxy.url])
    for fate in (Fate.CUT_BEFORE, Fate.CUT_AFTER):
        proxy.once("/v3/kv/put", fate)
        store.append_event(Event(when=1.0, kind="plan", id=fate.name, action="create"))
    assert [event.id for event in store.events()] == ["CUT_BEFORE", "CUT_AFTER"]


def test_nothing_is_left_of_a_store_that_is_closed(make_store: MakeStore, etcd: Etcd) -> None:
    before = etcd.ctl("get", "--prefix", "--keys-only", "/bulkhead/leaving/")
    store = make_store(cluster="leaving")
    store.attempt(count)
    store.close()
    after = etcd.ctl("get", "--prefix", "--keys-only", "/bulkhead/leaving/").split()
    assert before == "" and after == ["/bulkhead/leaving/counter/n", "/bulkhead/leaving/~at/"]


def test_what_is_damaged_is_told(store: EtcdStore, etcd: Etcd) -> None:
    store.attempt(lambda transaction: transaction.put("plan", "bad", "{"))
    assert any("the plan record b'bad' cannot be read" in line for line in store.check())
    store.attempt(lambda transaction: transaction.delete("plan", "bad"))
    etcd.kill(2)
    said = store.check()
    assert len(said) == 1 and etcd.endpoints[2] in said[0] and "does not answer" in said[0]
