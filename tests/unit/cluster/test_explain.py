"""What `run --explain` shows."""

from __future__ import annotations

import json
import random
from dataclasses import replace

from bulkhead.cluster.explain import EVERY, explain
from bulkhead.cluster.index import Index
from bulkhead.cluster.placing import place
from tests.unit.cluster.fleets import GIB, fleet, host, large_fleet, placed, random_wanted, wanted


def test_of_few_hosts_each_has_its_row() -> None:
    views = fleet(
        host(1, placed(memory=32 * GIB)), host(2), host(3, state="draining"), host(4, placed(memory=64 * GIB))
    )
    rows = explain(place(views, wanted(), "pack")).table()
    assert rows[0] == ("HOST", "VERDICT", "SCORE", "REASON")
    assert [row[:2] for row in rows[1:]] == [("h1", "chosen"), ("h2", "fits"), ("h3", "refused"), ("h4", "refused")]
    assert rows[1][3].startswith("pack: the best of 2, 0.")
    assert rows[3][3] == "h3 is draining"
    assert rows[4][3] == "memory: 2G asked for, 0 left: 64G of 64G are sold"


def test_all_reasons_of_a_host_are_told() -> None:
    (line,) = explain(place(fleet(host(1, placed(memory=64 * GIB), state="draining")), wanted(), "pack")).lines
    assert line.reason.startswith("h1 is draining; memory: ")
    assert line.hint.startswith("bulkhead host undrain h1; ")


def test_thousands_are_summed_up_with_counts_that_add_up() -> None:
    dice = random.Random(5)
    hosts = large_fleet(dice, 2000, 4000)
    hosts = [replace(view, state="draining") if number % 4 == 0 else view for number, view in enumerate(hosts)]
    found = explain(Index(hosts).place(random_wanted(dice, "new"), "spread"))
    assert len(found.lines) < EVERY
    assert sum(line.hosts for line in found.lines) == 2000
    drained = next(line for line in found.lines if line.hosts == 500)
    assert drained.reason == "the host takes nothing new, such as h0: h0 is draining"
    assert any(row[0] == "500 hosts" for row in found.table())
    told = json.loads(json.dumps(found.as_dict()))
    assert told["feasible"] + told["refused"] == 2000
    assert told["hosts"][0]["verdict"] == "chosen"
    assert set(told["hosts"][0]) == {"host", "verdict", "score", "reason", "hint", "hosts"}
