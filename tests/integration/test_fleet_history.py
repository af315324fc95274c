"""Many clients on a real fleet that is harmed: what they were told could have been so one after the other, and nothing
ever ran twice. What is done follows from a seed, which a failure tells:

BULKHEAD_HISTORY_SEED=7 BULKHEAD_HISTORY_SECONDS=600 .venv/bin/pytest --timeout=1800 -k could_have_been
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkhead.amounts import NOTHING, Amounts
from tests.harness.clients import WORKLOAD, Clients, believed
from tests.harness.fleet import Fleet, Host, laboratory
from tests.harness.harm import Copies, Harm
from tests.harness.histories import Outcome, Verb, impossible, told
from tests.integration.lives import until

pytestmark = [pytest.mark.timeout(1200), pytest.mark.minutes(4)]
SECONDS = float(os.environ.get("BULKHEAD_HISTORY_SECONDS", "60"))
SEED = int(os.environ.get("BULKHEAD_HISTORY_SEED", str(random.randrange(10**6))))


@pytest.fixture
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Three hosts, each of which has the image."""
    with laboratory(busybox_tar, everywhere=True) as made:
        yield made


def own(host: Host) -> dict[str, Any]:
    """By id what a daemon itself has, and says of it."""
    lines = host.daemon.json("ps", "-a", "--format", "json")
    return {each["spec"]["id"]: each["state"] for each in lines if each["host"] == host.name}


def agreed(fleet: Fleet, clients: Clients, copies: Copies) -> str:
    """Whether the fleet's record, the daemons and the processes say the same: "" where they do, else what differs."""
    seen, running = clients.record.seen(), copies.now()
    names = {host.id: host.name for host in seen.hosts}
    placed = {place.id: names[place.host] for place in seen.places}
    there = {instance: host.name for host in fleet.hosts for instance in own(host)}
    if placed != there or len(there) != sum(len(own(host)) for host in fleet.hosts):
        return f"the record has {placed}, the daemons {there}"
    if odd := [place.name for place in seen.places if place.phase != "placed"]:
        return f"not placed for good: {odd}"
    sums = {host.id: sum((Amounts(**each.amounts) for each in seen.places if each.host == host.id), NOTHING)
            for host in seen.hosts}  # fmt: skip
    sold = {host.id: seen.sold[host.id].amounts if host.id in seen.sold else NOTHING for host in seen.hosts}
    if sums != sold:
        return f"sold is {sold}, the places add up to {sums}"
    states = {instance: state for host in fleet.hosts for instance, state in own(host).items()}
    runs = {(host, instance) for host, found in running.items() for instance in found}
    said = {(there[instance], instance) for instance, state in states.items() if state == "running"}
    return "" if runs == said else f"processes: {runs}, records: {said}"


def heal(fleet: Fleet, clients: Clients, copies: Copies) -> None:
    """Each daemon begins anew; then wait until all that was left open is settled."""
    for host in fleet.hosts:
        host.daemon.kill9()
        host.daemon.start()
    fleet.wait_for_all()
    differs = ["?"]

    def look() -> bool:
        differs[:] = [agreed(fleet, clients, copies)]
        return differs == [""]

    try:
        until("all agree", look, seconds=150)
    except AssertionError:
        pytest.fail(f"seed {SEED}: they never agree: {differs[0]}")


def test_what_was_told_could_have_been_so_one_after_the_other(lab: Fleet) -> None:
    sys.stdout.write(f"seed {SEED}\n")
    clients = Clients(lab, SEED)
    harm = Harm(lab, clients.recorder, SEED)
    copies = Copies({host.name: host.daemon.config.cgroup for host in lab.hosts}, WORKLOAD[0])
    try:
        copies.begin()
        clients.begin()
        harm.begin()
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and not clients.failures and not harm.failures:
            time.sleep(0.2)
    finally:
        harm.end()
        operations = clients.end()
        copies.end()
    heal(lab, clients, copies)
    clients.ask_all()
    clients.record.close()
    found = impossible(believed(operations, harm.cut))
    counts = Counter((each.verb, each.outcome) for each in operations)
    lines = [*harm.done, *sorted(f"{verb} {how}: {count}" for (verb, how), count in counts.items())]
    sys.stdout.write("\n".join(lines) + "\n")
    assert not found, told(found, SEED) + "\n\n" + "\n".join(harm.done)
    assert not copies.twice, f"seed {SEED}: ran on two hosts at once: {copies.twice}"
    assert copies.looked > 10
    # It was a history, and it was harmed.
    assert harm.done
    for verb in (Verb.CREATE, Verb.MOVE, Verb.DELETE, Verb.LOOK):
        assert counts[verb, Outcome.OK] > 2, (verb, counts)
