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
from tests.harness.clients import PLAIN, WORKLOAD, Clients, believed
from tests.harness.fleet import Fleet, Host, laboratory
from tests.harness.harm import Copies, Harm
from tests.harness.histories import FENCED, MACHINE, Outcome, Verb, impossible, told
from tests.harness.kernels import kernel_layout
from tests.integration.lives import until
from tests.integration.passages import answering

pytestmark = [pytest.mark.timeout(1200), pytest.mark.minutes(4)]
SECONDS = float(os.environ.get("BULKHEAD_HISTORY_SECONDS", "60"))
KINDS = os.environ.get("BULKHEAD_HISTORY_KINDS", PLAIN * 3 + FENCED + MACHINE)
"""Of the names: see tests.harness.histories."""
LEASE = 6.0
LOST = 2 * LEASE + 6.0
"""Seconds after which a host that is gone certainly counts as lost, and what is to run elsewhere has begun to."""
SEED = int(os.environ.get("BULKHEAD_HISTORY_SEED", str(random.randrange(10**6))))


@pytest.fixture
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Three hosts, each of which has the image."""
    with laboratory(busybox_tar, everywhere=True, options=("--lease", f"{LEASE:g}s")) as made:
        for host in made.hosts if MACHINE in KINDS else ():
            host.cli("image", "import", kernel_layout(), "kernel/debian:latest")
        yield made


def own(host: Host) -> dict[str, Any]:
    """By id what a daemon itself has, and says of it."""
    return {each["spec"]["id"]: each["state"] for each in answering(host) if each["host"] == host.name}


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
    machines = {place.id for place in seen.places if place.name.startswith(MACHINE)}  # whose processes are their own
    runs = {(host, instance) for host, found in running.items() for instance in found}
    said = {(there[each], each) for each, state in states.items() if state == "running" and each not in machines}
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
    clients = Clients(lab, SEED, kinds=KINDS)
    harm = Harm(lab, clients.recorder, SEED, longest=LEASE / 2, lost=LOST if FENCED in KINDS else 0.0)
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
