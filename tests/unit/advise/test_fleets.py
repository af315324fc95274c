"""A fleet's own metering as an estate."""

from __future__ import annotations

from typing import Any

import pytest

from bulkhead.advise import advising, fleets
from bulkhead.advise.advising import Effort
from bulkhead.advise.levels import Workload
from bulkhead.advise.prices import Prices
from bulkhead.errors import Refused
from bulkhead.model import Isolation

GIB = 1 << 30
HOUR = 3600


def host(name: str) -> dict[str, Any]:
    return {"name": name, "machine": {"cores": 4, "ghz": 2.5, "memory": 16 * GIB}, "sellable": {"disk": 100 * GIB}}


def instance(number: int, on: str, **spec: Any) -> dict[str, Any]:
    usual = {
        "id": f"{number:032x}",
        "name": f"i{number}",
        "tenant": "default",
        "isolation": "container",
        "choice": None,
    }
    return {"spec": {**usual, **spec}, "host": on}


def row(number: int, hour: int, *, uptime: float = 3600, cpu: float = 360) -> dict[str, Any]:
    return {
        "id": f"{number:032x}",
        "kind": "instance",
        "from": hour * HOUR,
        "uptime_seconds": uptime,
        "cpu_seconds": cpu,
        "memory_gib_hours_used": uptime / HOUR * 2,
        "disk_gib_hours_used": uptime / HOUR * 5,
        "received": 4500,
        "sent": 450_000,
    }


def test_rows_become_series_over_the_hours() -> None:
    usage = [row(1, 10), row(1, 12, uptime=1800, cpu=900), row(2, 11), {**row(3, 11), "kind": "volume"}]
    choice = {"trust": "partner", "hostile_input": True, "needs_kernel": False}
    instances = [
        instance(1, "a"),
        instance(2, "b", tenant="shop", isolation="vm", choice=choice),
        instance(4, "a"),
        instance(5, "a", inside="1"),
    ]
    estate = fleets.read(fleets.Fleet([host("a"), host("b")], instances, usage))
    assert (estate.steps, estate.start, estate.hosts) == (3, 10 * HOUR, {"a", "b"})
    one, two = estate.loads
    assert one.use[0].tolist() == pytest.approx([0.25, 0.0, 1.25]) and one.use[1].tolist() == [2 * GIB, 0, 2 * GIB]
    assert one.use[3, 0] == pytest.approx(1000.0) and one.wall is Isolation.CONTAINER
    assert (two.name, two.owner, two.workload.trust, two.wall) == ("shop@i2", "shop", "partner", Isolation.VM)
    told = " ".join(estate.notes)
    assert "i4" in told and "1 instances run in virtual machines" in told


def test_power_and_speed_are_those_that_the_fleet_knows() -> None:
    quick = {**host("a"), "factor": 1.2, "labels": {"power.idle": "95", "power.peak": "310"}}
    odd = {**host("b"), "labels": {"power.idle": "much", "power.peak": "310"}}
    estate = fleets.read(fleets.Fleet([quick, odd], [instance(1, "a")], [row(1, 10)]))
    a, b = estate.servers
    assert (a.ghz, a.idle_watts, a.peak_watts) == (3.0, 95.0, 310.0) and b.idle_watts is None and b.peak_watts is None
    assert estate.loads[0].use[0, 0] == pytest.approx(0.3)


def test_nothing_measured_is_told() -> None:
    with pytest.raises(Refused, match="nothing was measured"):
        fleets.read(fleets.Fleet([host("a")], [], []))


def test_what_is_behind_its_wall_already_is_not_put_there_again() -> None:
    usage = [row(number, hour) for number in (1, 2) for hour in range(5)]
    estate = fleets.read(fleets.Fleet([host("a"), host("b")], [instance(1, "a"), instance(2, "b")], usage))
    advice = advising.advise(estate, Prices(), effort=Effort(1.0))
    assert [step.what for step in advice.steps] == ["move", "retire"]
    assert all(each.host for each in advice.before.hosts)
    levels = [Isolation.UNIKERNEL, Isolation.CHROOT]
    kinds = [instance(at + 1, name, isolation=level) for at, (name, level) in enumerate(zip("ab", levels, strict=True))]
    kept = advising.advise(
        fleets.read(fleets.Fleet([host("a"), host("b")], kinds, usage)), Prices(), effort=Effort(1.0)
    )
    assert [kept.arrangement.levels[name] for name in ("i1", "i2")] == levels


def test_labels_tell_what_metering_cannot() -> None:
    labels = {"advice.trust": "partner", "advice.hostile_input": "yes", "advice.data": "secret", "zone": "b"}
    wrong = {"advice.data": "holy", "advice.downtime": "10m", "advice.mood": "good"}
    instances = [
        instance(1, "a", isolation="chroot", labels=labels),
        instance(2, "a", isolation="chroot", labels=wrong),
    ]
    estate = fleets.read(fleets.Fleet([host("a")], instances, [row(1, 1), row(2, 1)]))
    one, two = estate.loads
    assert one.workload == Workload("partner", hostile_input=True) and one.data == "secret"
    # Nobody told whose it is: it was asked for by name, and keeps its wall.
    assert two.workload.shares_network and (two.data, two.downtime) == ("internal", 600.0)
    told = " ".join(estate.notes)
    assert "label advice.data of i2 counts for nothing" in told and "advice.mood of i2" in told


def test_where_an_instance_may_be_holds_for_the_advice() -> None:
    hosts = [{**host(name), "labels": {"zone": name}} for name in "abc"] + [{**host("d"), "state": "draining"}]
    instances = [
        instance(1, "a", where={"constraints": ["zone!=b"]}),
        instance(2, "b", where={"anti_affinity": ["kind=web", "~i4"]}),
        instance(3, "c", labels={"kind": "web"}, where={"affinity": ["i1"], "constraints": ["zone=a|c"]}),
        instance(4, "c", tenant="shop", labels={"kind": "web"}),
    ]
    usage = [row(number, hour) for number in (1, 2, 3, 4) for hour in range(5)]
    estate = fleets.read(fleets.Fleet(hosts, instances, usage))
    one, two, three, four = estate.loads
    assert (one.hosts, two.hosts, three.hosts, four.hosts) == ({"a", "c"}, set("abc"), {"a", "c"}, set("abc"))
    # Of other tenants nothing counts, and wishes are none of its business.
    assert (two.apart, three.near, four.apart) == (("i3",), ("i1",), ())
    places = advising.advise(estate, Prices(), effort=Effort(1.0)).arrangement.places
    assert places["i1"] == places["i3"] and places["i1"] in "ac" and places["i2"] != places["i3"] and "d" not in places
