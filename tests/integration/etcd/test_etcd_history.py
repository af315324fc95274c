"""Processes that change the same pages while etcd's leaders are killed and stand still: what each read could have been
so one after the other, what was refused has changed nothing, and what is undecided is in no reader's way.

BULKHEAD_HISTORY_SEED=7 BULKHEAD_HISTORY_SECONDS=600 .venv/bin/pytest --timeout=1800 tests/integration/etcd -k history
"""

from __future__ import annotations

import json
import os
import random
import secrets
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from bulkhead.store.etcd import EtcdStore
from tests.harness.etcd import Etcd
from tests.harness.linearizing import order
from tests.integration.etcd.bookkeeper import EMPTY, PAGES, Entry, attempt

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).resolve().parents[3]
SECONDS = float(os.environ.get("BULKHEAD_HISTORY_SECONDS", "20"))
SEED = int(os.environ.get("BULKHEAD_HISTORY_SEED", str(random.randrange(10**6))))
WRITERS = 4


def start(etcd: Etcd, cluster: str, number: int, output: Path) -> subprocess.Popen[bytes]:
    """A process whose nearest member is another one than its neighbour's; what it says goes to a file."""
    turn = number % 3
    endpoints = ",".join(etcd.endpoints[turn:] + etcd.endpoints[:turn])
    argv = [sys.executable, "-m", "tests.integration.etcd.bookkeeper", endpoints, cluster, f"w{number}"]
    with output.open("wb") as file:
        return subprocess.Popen([*argv, str(SEED), str(SECONDS)], cwd=ROOT, stdout=file)


def harm(etcd: Etcd, dice: random.Random) -> str:
    """One leader is away for a while."""
    leader = etcd.leader()
    if dice.random() < 0.5:
        etcd.kill(leader)
        time.sleep(dice.uniform(0.2, 4.0))
        etcd.restart(leader)
        return f"member {leader} was killed"
    etcd.freeze(leader)
    try:
        time.sleep(dice.uniform(0.2, 5.0))
    finally:
        etcd.thaw(leader)
    return f"member {leader} stood still"


def smallest(entries: list[Entry]) -> list[Entry]:
    """Up to the first answer with which no order is left."""
    for moment in sorted(entry.ended for entry in entries):
        begun = [entry for entry in entries if entry.began <= moment]
        calls = [call for entry in begun if entry.ended <= moment and (call := entry.call())]
        if order(calls, EMPTY) is None:
            return begun
    return entries


def test_transactions_could_have_been_one_after_the_other(etcd: Etcd, tmp_path: Path) -> None:
    sys.stdout.write(f"seed {SEED}\n")
    cluster, dice, harmed = f"c{secrets.token_hex(8)}", random.Random(SEED), []
    outputs = [tmp_path / f"w{number}" for number in range(WRITERS)]
    processes = [start(etcd, cluster, number, output) for number, output in enumerate(outputs)]
    try:
        while any(process.poll() is None for process in processes):
            harmed.append(harm(etcd, dice))
            time.sleep(dice.uniform(0.5, 2.0))
    finally:
        for process in processes:
            process.terminate()
            process.wait(60)
    lines = [line for output in outputs for line in output.read_text().splitlines()]
    entries = [Entry(**json.loads(line)) for line in lines]
    last = EtcdStore(etcd.endpoints, cluster=cluster, timeout=30.0)
    entries += [attempt(last, "end", "list", page, "") for page in PAGES]
    last.close()
    counts = Counter(entry.outcome for entry in entries)
    sys.stdout.write("\n".join([*harmed, str(counts)]) + "\n")
    assert [process.returncode for process in processes] == [0] * WRITERS
    assert counts["made"] > 100
    assert harmed
    for page in PAGES:
        on_it = [entry for entry in entries if entry.page == page]
        if order([call for entry in on_it if (call := entry.call())], EMPTY) is None:
            few = sorted(smallest(on_it), key=lambda entry: entry.ended)[-12:]
            pytest.fail(f"seed {SEED}: no order explains\n" + "\n".join(map(str, few)))
