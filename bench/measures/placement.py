"""How long a decision takes, among how many hosts: no peer does the same, so there is a goal and no comparison."""

from __future__ import annotations

import gc
import random
import time
from dataclasses import replace

from bench.contest import Cast, Sizes
from bench.figures import Figure
from bench.statistics import quantile
from bulkhead.cluster.index import Index
from bulkhead.cluster.policies import POLICIES
from bulkhead.cluster.snapshot import Placed
from tests.unit.cluster.fleets import large_fleet, random_wanted

FLEETS = (100, 1_000, 10_000)
INSTANCES = 10
"""On each host before the first decision."""
DECISIONS = 1_000
"""Of each fleet, the policies by turns."""
GOAL_MS = 5.0


def measure(_: Cast, sizes: Sizes) -> Figure:
    """Simulated fleets; each decision is carried out in the index, so that the next one meets another fleet."""
    figure = Figure(
        "placement",
        "Deciding where an instance goes",
        f"{INSTANCES} instances on each host, {DECISIONS} decisions by the policies in turn, every rule and the "
        "reserve for the loss of one host included. `put`: a host of the index written anew after its reservation.",
    )
    for hosts in FLEETS:
        decided, put = _decide(hosts, DECISIONS if sizes.runs > 5 else 50)
        figure.add("bulkhead", f"{hosts} hosts", decided)
        figure.add("bulkhead", f"put among {hosts}", put)
        if hosts == FLEETS[-1]:
            text = f"p99 of a decision among {hosts} hosts and {hosts * INSTANCES} instances"
            figure.want(text, GOAL_MS, "ms", quantile(decided, 0.99))
    return figure


def _decide(hosts: int, decisions: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each decision, and of each change of the index."""
    dice = random.Random(hosts)
    index = Index(large_fleet(dice, hosts, hosts * INSTANCES), spare=True)
    index.place(random_wanted(dice, "first"), "pack")
    # As a daemon does after its start: what is there for good is not looked through again and again.
    gc.collect()
    gc.freeze()
    decided, put = [], []
    try:
        for number in range(decisions):
            wanted = random_wanted(dice, f"new-{number}")
            began = time.perf_counter()
            decision = index.place(wanted, POLICIES[number % len(POLICIES)])
            decided.append((time.perf_counter() - began) * 1e3)
            if decision.chosen:
                host = index.host(decision.chosen.id)
                host = replace(host.holding(Placed(wanted, wanted.need.on(host.speed))), version=host.version + 1)
                began = time.perf_counter()
                index.put(host)
                put.append((time.perf_counter() - began) * 1e3)
    finally:
        gc.unfreeze()
    return decided, put
