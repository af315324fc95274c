"""Records: what is written is there, whole, under its own key and nowhere else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkhead import model
from bulkhead.amounts import Amounts
from bulkhead.errors import Conflict
from bulkhead.events import Event
from bulkhead.store import State, Store, Transaction
from tests.unit.store.test_state import instance

Open = Callable[..., Store]
HOSTILE = (
    *("", "/", "//", "a/b", "../plan/a", "..", ".", "plan/a", "0", "/0", "a\0b", "\0", "a\nb", "é", "日本", "%2e", "*"),
    *("~", "~event/x", "\x7f", "\U0010fffe", "key with spaces", "a" * 2000, "'; DROP TABLE record; --"),
)


def test_records_live_over_a_new_store(open_store: Open) -> None:
    first = open_store()
    with first.transaction() as transaction:
        transaction.put("plan", "small", "{}")
    first.close()
    second = open_store()
    with second.read() as reader:
        assert reader.get("plan", "small") == "{}"
        assert reader.get("plan", "large") is None
        assert reader.get("network", "small") is None


def test_two_stores_share_what_is_there(open_store: Open) -> None:
    one, two = open_store(), open_store()
    with one.transaction() as transaction:
        transaction.put("plan", "a", "1")
    with two.read() as reader:
        assert reader.get("plan", "a") == "1"
    with two.transaction() as transaction:
        assert transaction.delete("plan", "a")
    with one.read() as reader:
        assert reader.list("plan") == []


def test_insert_put_delete_say_what_was_there(store: Store) -> None:
    with store.transaction() as transaction:
        assert transaction.insert("plan", "a", "1")
        assert not transaction.insert("plan", "a", "2")
        assert transaction.get("plan", "a") == "1"
        transaction.put("plan", "a", "3")
        assert transaction.get("plan", "a") == "3"
        transaction.put("plan", "b", "4")
    with store.transaction() as transaction:
        assert not transaction.insert("plan", "a", "5")
        assert transaction.delete("plan", "a")
        assert not transaction.delete("plan", "a")
        assert transaction.get("plan", "a") is None
        assert transaction.insert("plan", "a", "6")
        assert transaction.delete("plan", "b")
    with store.read() as reader:
        assert reader.list("plan") == [("a", "6")]


def test_a_list_is_by_prefix_in_order_and_with_what_was_just_written(store: Store) -> None:
    keys = ("tcp/80/*", "tcp/8/*", "tcp/80/::1", "udp/80/*", "tcp/800/*", "é", "tcp/80/\U0010fffe")
    with store.transaction() as transaction:
        for key in keys:
            transaction.put("port", key, key)
        transaction.put("plan", "tcp/80/*", "another kind")
        assert [key for key, _ in transaction.list("port", "tcp/80/")] == [
            "tcp/80/*",
            "tcp/80/::1",
            "tcp/80/\U0010fffe",
        ]
    with store.transaction() as transaction:
        assert transaction.delete("port", "tcp/80/::1")
        transaction.put("port", "tcp/80/0", "new")
        listed = transaction.list("port", "tcp/80/")
        assert listed == [("tcp/80/*", "tcp/80/*"), ("tcp/80/0", "new"), ("tcp/80/\U0010fffe", "tcp/80/\U0010fffe")]
        assert len(transaction.list("port")) == 7
        assert transaction.list("port", "%") == []
    with store.read() as reader:
        assert reader.list("port", "tcp/80/") == listed
        assert [key for key, _ in reader.list("port")] == sorted({*keys, "tcp/80/0"} - {"tcp/80/::1"}, key=str.encode)


def test_long_lists_are_whole(store: Store) -> None:
    for start in range(0, 2500, 100):
        with store.transaction() as transaction:
            for number in range(start, start + 100):
                transaction.put("plan", f"{number:05d}", str(number))
    with store.read() as reader:
        assert reader.list("plan") == [(f"{number:05d}", str(number)) for number in range(2500)]
        assert len(reader.list("plan", "02")) == 500


def text(kind: str, key: str) -> str:
    """The value of a record, by which it is known again."""
    return json.dumps(f"{kind}:{key}")


def test_no_key_leads_out_of_its_kind(store: Store) -> None:
    kinds = ("plan", "plan-a", "a", "port", "p")
    for kind in kinds:
        with store.transaction() as transaction:
            for key in HOSTILE:
                assert transaction.insert(kind, key, text(kind, key))
    with store.read() as reader:
        for kind in kinds:
            assert reader.list(kind) == [(key, text(kind, key)) for key in sorted(HOSTILE, key=str.encode)]
            assert all(reader.get(kind, key) == text(kind, key) for key in HOSTILE)
        assert reader.list("pla") == [] and reader.list("plan-") == []
        assert {key for key, _ in reader.list("plan", "a")} == {key for key in HOSTILE if key.startswith("a")}
    assert list(store.events()) == []
    with store.transaction() as transaction:
        assert all(transaction.delete("plan", key) for key in HOSTILE)
    with store.read() as reader:
        assert reader.list("plan") == [] and len(reader.list("plan-a")) == len(HOSTILE)
    assert store.check() == []


def test_text_that_is_none_is_refused_and_nothing_written(store: Store) -> None:
    for key, value in (("a", "\ud800"), ("\ud800", "a")):
        with pytest.raises(UnicodeEncodeError), store.transaction() as transaction:
            transaction.put("plan", "b", "1")
            transaction.put("plan", key, value)
    with store.read() as reader:
        assert reader.list("plan") == []


def test_large_records(store: Store) -> None:
    large = '"' + "x" * 1_000_000 + '"'
    with store.transaction() as transaction:
        transaction.put("plan", "large", large)
        assert transaction.get("plan", "large") == large
    with store.read() as reader:
        assert reader.get("plan", "large") == large
        assert reader.list("plan") == [("large", large)]


def test_an_exception_rolls_everything_back(store: Store) -> None:
    with pytest.raises(KeyError), store.transaction() as transaction:
        transaction.put("plan", "a", "1")
        store.append_event(Event(when=1.0, kind="plan", id="a", action="create"))
        raise KeyError
    with store.read() as reader:
        assert reader.list("plan") == []
    assert list(store.events()) == []


def test_an_attempt_returns_what_its_body_does_and_ends_with_its_exception(store: Store) -> None:
    def body(transaction: Transaction) -> str:
        transaction.put("plan", "a", "1")
        return transaction.get("plan", "a") or ""

    def fails(transaction: Transaction) -> None:
        transaction.put("plan", "b", "1")
        raise KeyError

    assert store.attempt(body) == "1"
    with pytest.raises(KeyError):
        store.attempt(fails)
    with store.read(stale=True) as reader:
        assert reader.list("plan") == [("a", "1")]


def test_a_transaction_within_a_transaction_is_a_mistake(store: Store) -> None:
    with store.transaction(), pytest.raises(RuntimeError, match="already open"), store.transaction():
        pass
    with store.transaction(), pytest.raises(RuntimeError, match="already open"):
        store.attempt(lambda transaction: None)


def test_a_reader_sees_one_moment(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.put("plan", "a", "old")

    def change() -> None:
        with store.transaction() as transaction:
            transaction.put("plan", "a", "new")
            transaction.put("plan", "b", "new")

    with store.read() as reader:
        assert reader.get("plan", "a") == "old"
        thread = threading.Thread(target=change)
        thread.start()
        thread.join()
        assert reader.get("plan", "a") == "old"
        assert reader.list("plan") == [("a", "old")]
        assert reader.get("plan", "b") is None
    with store.read() as reader:
        assert reader.list("plan") == [("a", "new"), ("b", "new")]


def test_a_reader_cannot_write(store: Store) -> None:
    with store.read() as reader:
        assert not hasattr(reader, "put")
    with store.transaction(), store.read() as reader:
        assert not hasattr(reader, "put")


def test_within_a_transaction_what_is_read_is_its_own(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.put("plan", "a", "1")
        with store.read() as reader:
            assert reader.get("plan", "a") == "1"
            assert reader.list("plan") == [("a", "1")]


def test_closed_means_closed(open_store: Open) -> None:
    store = open_store()
    store.close()
    store.close()
    caught: list[BaseException] = []

    def look() -> None:
        try:
            with store.read() as reader:
                reader.get("plan", "a")
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert "closed" in str(caught[0])


def test_nothing_is_wrong_with_what_is_right(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.put("plan", "a", "{}")
        store.append_event(Event(when=1.0, kind="plan", id="a", action="create"))
    assert store.check() == []


def test_the_daemons_state_over_it(store: Store) -> None:
    state = State(store, uid_base=1_000_000_000, scale=lambda spec: Amounts(memory=spec.plan.memory))
    made = [state.reserve_instance(instance(number, f"i{number}"), uid_range=True) for number in (1, 2)]
    assert [one.uid_start for one in made] == [1_000_000_000, 1_000_000_000 + model.UID_RANGE]
    with pytest.raises(Conflict, match="the name i1 is taken"):
        state.reserve_instance(instance(3, "i1"), uid_range=True)
    assert state.instances() == made
    assert state.find("i2") == made[1]
    assert state.sold().memory == 2 * made[0].spec.plan.memory
    state.remove(made[0].spec.id)
    assert state.reserve_instance(instance(4, "i1"), uid_range=True).uid_start == 1_000_000_000
    assert not state.count_again()


_steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "insert", "delete", "fail"]), st.sampled_from(["a", "b", "ab", ""]), st.text(max_size=4)
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps)
def test_it_behaves_like_a_dictionary(store: Store, steps: list[tuple[str, str, str]]) -> None:
    with store.transaction() as transaction:
        for key, _ in transaction.list("kind"):
            transaction.delete("kind", key)
    expected: dict[str, str] = {}
    for action, key, value in steps:
        try:
            with store.transaction() as transaction:
                if action == "put":
                    transaction.put("kind", key, value)
                    expected[key] = value
                elif action == "insert":
                    assert transaction.insert("kind", key, value) == (key not in expected)
                    expected.setdefault(key, value)
                elif action == "delete":
                    assert transaction.delete("kind", key) == (expected.pop(key, None) is not None)
                else:
                    transaction.put("kind", key, value)
                    raise InterruptedError
        except InterruptedError:
            pass
        with store.read() as reader:
            assert dict(reader.list("kind")) == expected
            assert [key for key, _ in reader.list("kind", "a")] == sorted(k for k in expected if k.startswith("a"))
