"""Events: kept in order, numbered, and not for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bulkhead.events import Event
from bulkhead.store import Store

Open = Callable[..., Store]


def event(number: int) -> Event:
    """One of them."""
    return Event(
        when=float(number), kind="instance", id=f"{number}", action="start", name="wéb", attributes={"code": "1"}
    )


def unnumbered(found: Event) -> Event:
    """As it was appended."""
    return replace(found, number=0)


def test_events_come_back_as_they_were(store: Store) -> None:
    made = [event(number) for number in range(300)]
    for one in made[:100]:
        store.append_event(one)
    with store.transaction():
        for one in made[100:200]:
            store.append_event(one)
    for one in made[200:]:
        store.append_event(one)
    found = list(store.events())
    assert [unnumbered(one) for one in found] == made
    numbers = [one.number for one in found]
    assert numbers == sorted(set(numbers)) and numbers[0] > 0
    assert list(store.events(since=198.0)) == found[198:]
    assert list(store.events(since=10.0, until=12.0)) == found[10:12]
    for place in (0, 99, 100, 150, 298, 299):
        assert list(store.events(after=found[place].number)) == found[place + 1 :]
    assert list(store.events(since=150.0, after=found[199].number, until=203.0)) == found[200:203]


def test_those_of_several_stores_are_in_one_order(open_store: Open) -> None:
    stores = [open_store() for _ in range(3)]
    for number in range(30):
        stores[number % 3].append_event(event(number))
    assert [one.id for one in stores[0].events()] == [f"{number}" for number in range(30)]
    assert list(stores[1].events()) == list(stores[2].events())


def test_one_is_part_of_the_transaction_that_is_open(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.put("plan", "a", "1")
        store.append_event(event(1))
    assert [one.id for one in store.events()] == ["1"]


def test_old_events_are_dropped(open_store: Open) -> None:
    store = open_store(max_events=10)
    for number in range(100):
        store.append_event(event(number))
    assert [one.when for one in store.events()] == [float(number) for number in range(90, 100)]
    with store.transaction():
        for number in range(100, 110):
            store.append_event(event(number))
    assert [one.when for one in store.events()] == [float(number) for number in range(100, 110)]
