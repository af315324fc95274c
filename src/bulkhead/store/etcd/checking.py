"""What is wrong with a fleet's etcd, in words: members, whether they hold the same, records that cannot be read."""

from __future__ import annotations

import json
from collections import Counter

from bulkhead.errors import BulkheadError
from bulkhead.store.etcd.gateway import Gateway, Rejected, Unsure
from bulkhead.store.etcd.layout import Layout
from bulkhead.store.etcd.views import Snapshot


def check(gateway: Gateway, layout: Layout) -> list[str]:
    """Everything that is wrong; empty where nothing is."""
    found = [line for member in range(len(gateway)) for line in _member(gateway, member)]
    try:
        snapshot = Snapshot(gateway, layout)
        records = snapshot.range(*layout.everything())
        alarms = gateway.call("maintenance/alarm", {"action": "GET"}).get("alarms", [])
    except (BulkheadError, Rejected) as error:
        return [*found, str(error)]
    found += [f"etcd's member {int(alarm.get('memberID', 0)):x}: alarm {alarm.get('alarm')}" for alarm in alarms]
    found += _differing(gateway, snapshot.revision)
    for record in records:
        kind, key = layout.split(record.key)
        if kind.startswith(b"~") and kind != b"~event":
            continue
        try:
            key.decode()
            json.loads(record.value.decode())
        except ValueError:
            found.append(f"etcd: the {kind.decode(errors='replace')} record {key!r} cannot be read")
    return found


def _member(gateway: Gateway, member: int) -> list[str]:
    try:
        status = gateway.ask(member, "maintenance/status", {})
    except (BulkheadError, Rejected, Unsure) as error:
        return [f"etcd's member at {gateway.url(member)} does not answer: {error}"]
    return [] if int(status.get("leader", 0)) else [f"etcd's member at {gateway.url(member)} knows no leader"]


def _differing(gateway: Gateway, revision: int) -> list[str]:
    """Members whose records as of a revision are not what most members have."""
    hashes: dict[int, tuple[int, int]] = {}
    for member in range(len(gateway)):
        try:
            answer = gateway.ask(member, "maintenance/hash", {"revision": str(revision)})
        except (BulkheadError, Rejected, Unsure):  # told already, or behind
            continue
        hashes[member] = int(answer.get("hash", 0)), int(answer.get("compact_revision", 0))
    # What was compacted away counts in the hash, and members compact one after the other.
    by_compaction = Counter(compacted for _, compacted in hashes.values())
    if not by_compaction:
        return []
    same = by_compaction.most_common(1)[0][0]
    compared = {member: value for member, (value, compacted) in hashes.items() if compacted == same}
    usual = Counter(compared.values()).most_common(1)[0][0]
    return [
        f"etcd's member at {gateway.url(member)} holds something else than the others"
        for member, value in compared.items()
        if value != usual
    ]
