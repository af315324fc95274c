"""What is on hosts that are not heard of: what becomes of it, and how a list shows it."""

from __future__ import annotations

from typing import Any

import pytest

from bulkhead.engine.fleet.absences import Records, line, silent, taken, waiting
from bulkhead.fleet import Phase, Place, Replica, Will
from bulkhead.model import Instance, Isolation, Plan, Spec
from bulkhead.store.seen import Seen
from bulkhead.where import OnHostLoss, Where
from tests.unit.engine.test_fleet_balancing import FLEET, host

HOSTS = (host(1), host(2))
ID = "a" * 32


def place(number: int = 1, *, policy: OnHostLoss = "stay", **fields: Any) -> Place:
    where = Where(on_host_loss=policy, replicas=1 if policy == "restart" else 0)
    made = Place(
        id=ID,
        name="web",
        tenant="default",
        host=HOSTS[number - 1].id,
        level=Isolation.CONTAINER,
        image="box",
        amounts={"memory": 64 << 20, "cpu": 2_000_000, "disk": 1 << 30},
        phase=Phase.PLACED,
        where=where,
    )
    return made.model_copy(update=fields)


def will(**fields: Any) -> Will:
    spec = Spec(
        id=ID,
        name="web",
        image="box",
        image_digest="sha256:0",
        isolation=Isolation.CONTAINER,
        plan=Plan(memory=64 << 20, cpus=1, disk=64 << 20),
        argv=("sleep", "1"),
        hostname="web",
        network="default",
        created=7.0,
    )
    return Will(spec=spec, **fields)


def copy(at: float) -> Replica:
    return Replica(id=ID, name="web", tenant="default", host=HOSTS[1].id, amounts={}, interval=60.0, at=at)


def seen(found: Place, *, alive: tuple[int, ...] = (2,)) -> Seen:
    return Seen(HOSTS, frozenset(HOSTS[number - 1].id for number in alive), {}, (found,), FLEET)


@pytest.mark.parametrize(
    ("found", "records", "lost", "state", "words"),
    [
        (place(), Records(), False, "unheard", "host1 is not heard of"),
        (place(policy="recreate"), Records({ID: will()}), False, "unheard", "then it is started elsewhere"),
        (place(policy="recreate"), Records({ID: will(runs=False)}), False, "unheard", "host1 is not heard of"),
        (place(), Records(), True, "lost", "it waits for host1, which alone has its disk"),
        (place(policy="recreate"), Records({ID: will(runs=False)}), True, "lost", "it did not run"),
        (place(policy="recreate"), Records({ID: will()}), True, "waiting", "it is about to be started elsewhere"),
        (place(policy="recreate"), Records({ID: will(problem="no room")}), True, "waiting", "no room"),
        (place(policy="restart"), Records({ID: will()}), True, "lost", "no copy of its disk was whole yet"),
        (place(policy="restart"), Records({ID: will()}, {ID: copy(0.0)}), True, "lost", "no copy of its disk"),
        (place(policy="restart"), Records({ID: will()}, {ID: copy(5.0)}), True, "waiting", "is about to be started"),
        (place(2, phase=Phase.RECOVERING), Records({ID: will(lost="host1")}), True, "recovering", "start on host2"),
        (
            place(2, phase=Phase.RECOVERING),
            Records({ID: will(lost="host1", problem="port 80 is taken")}),
            True,
            "recovering",
            "port 80 is taken",
        ),
    ],
)
def test_what_becomes_of_it(found: Place, records: Records, lost: bool, state: str, words: str) -> None:
    now = seen(found)
    (told,) = waiting(now, silent(now), records, lost={HOSTS[0].id} if lost else set())
    assert (told.name, told.state) == ("web", state)
    assert words in told.reason


def test_what_is_where_it_can_be_asked_for_is_not_told() -> None:
    now = seen(place(2))
    assert waiting(now, silent(now), Records(), lost=set()) == []
    (told,) = waiting(now, {HOSTS[1].id}, Records(), lost=set())  # heard of, and did not answer
    assert (told.state, told.reason) == ("unheard", "host2 does not answer, and may run it")


def test_what_was_taken_over_is_told_until_its_host_is_back() -> None:
    records = Records({ID: will(unheard=13.0)}, {}, {(HOSTS[0].id, ID): HOSTS[1].id})
    (told,) = taken(seen(place(2)), records)
    assert (told.name, told.lost, told.host, told.runs, told.unheard) == ("web", "host1", "host2", True, 13.0)
    assert taken(seen(place(2), alive=(1, 2)), records) == []
    assert taken(seen(place(2, phase=Phase.RECOVERING)), records) == []
    assert taken(seen(place(2)), Records()) == []


def test_a_list_shows_it_with_what_is_known() -> None:
    found = place()
    (told,) = waiting(seen(found), silent(seen(found)), Records(), lost={HOSTS[0].id})
    shown = line(told, found, None, HOSTS[0])
    assert {key: shown[key] for key in ("state", "host", "reason")} == {
        "state": "lost",
        "host": "host1",
        "reason": told.reason,
    }
    spec = shown["spec"]
    assert set(spec) == set(Spec.model_fields)
    assert (spec["name"], spec["image"], spec["isolation"], spec["argv"]) == ("web", "box", "container", [])
    assert spec["plan"]["memory"] == 64 << 20 and spec["plan"]["cpus"] == 1.0 and spec["plan"]["disk"] == 1 << 30
    assert set(shown) - {"host", "reason"} == set(Instance.model_fields)
    assert line(told, found, will(), HOSTS[0])["spec"]["argv"] == ["sleep", "1"]
