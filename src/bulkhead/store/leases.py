"""What an instance may hold that no other may hold at the same time: a uid range, addresses, ports of the host.

A lease is a record under (kind, key) that says who holds it, and an entry in the holder's own list, so that
everything an instance holds can be dropped at once. All functions work inside one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from bulkhead import model
from bulkhead.errors import Conflict
from bulkhead.model import PortMapping
from bulkhead.store.base import Reader, Transaction

UID_RANGE = "uid-range"
ADDRESS = "address"
PORT = "port"
_HELD = "leases"
LAST_UID = 0xFFFF_FFFE
"""The largest uid: 2^32 - 1 means "no uid" to the kernel."""


def take(transaction: Transaction, kind: str, key: str, holder: str) -> str:
    """Lease (kind, key) for `holder`; returns who holds it afterwards: somebody else where it is taken."""
    if not transaction.insert(kind, key, json.dumps(holder)):
        return holder_of(transaction, kind, key)
    held = _held(transaction, holder)
    transaction.put(_HELD, holder, json.dumps([*held, [kind, key]]))
    return holder


def drop(transaction: Transaction, holder: str, kinds: Iterable[str] = ()) -> None:
    """Give back what `holder` has of these kinds, everything when none is named. Idempotent."""
    kinds = tuple(kinds)
    kept = []
    for kind, key in _held(transaction, holder):
        if kinds and kind not in kinds:
            kept.append([kind, key])
        else:
            transaction.delete(kind, key)
    if kept:
        transaction.put(_HELD, holder, json.dumps(kept))
    else:
        transaction.delete(_HELD, holder)


def held_by(reader: Reader, holder: str, kind: str) -> list[str]:
    """Keys of one kind that `holder` has."""
    return [key for found, key in _held(reader, holder) if found == kind]


def holder_of(reader: Reader, kind: str, key: str) -> str:
    """Who holds (kind, key); "" where nobody does."""
    text = reader.get(kind, key)
    return "" if text is None else str(json.loads(text))


def take_uid_range(transaction: Transaction, holder: str, *, base: int) -> int:
    """Lease the lowest free range of UID_RANGE uids above `base`; the range it has already, where it has one."""
    own = held_by(transaction, holder, UID_RANGE)
    if own:
        return int(own[0])
    start = base
    for key, _ in transaction.list(UID_RANGE):
        if int(key) >= start + model.UID_RANGE:
            break
        start = max(start, int(key) + model.UID_RANGE)
    if start + model.UID_RANGE - 1 > LAST_UID:
        raise Conflict(
            f"no {model.UID_RANGE} uids are free above {base}", hint="remove instances, or set a lower uid_base"
        )
    take(transaction, UID_RANGE, f"{start:010d}", holder)
    return start


def take_address(transaction: Transaction, holder: str, *, network: str, candidates: Iterable[str]) -> str:
    """Lease the first of `candidates` that nobody else holds."""
    tried = 0
    for candidate in candidates:
        tried += 1
        if take(transaction, ADDRESS, f"{network}/{ip_address(candidate)}", holder) == holder:
            return candidate
    raise Conflict(
        f"no address is free in network {network} ({tried} tried)", hint="remove instances, or use another network"
    )


def addresses_in_use(reader: Reader, network: str) -> set[str]:
    """Every address of a network that is leased, in its canonical form."""
    prefix = f"{network}/"
    return {key.removeprefix(prefix) for key, _ in reader.list(ADDRESS, prefix)}


def port_clashes(reader: Reader, holder: str, ports: Sequence[PortMapping]) -> list[tuple[PortMapping, str]]:
    """Each of `ports` that somebody else holds, or that overlaps an earlier one of `ports`, with the holder."""
    clashes = []
    for index, port in enumerate(ports):
        if any(_same_port(port, other) and _overlap(port.host_ip, other.host_ip) for other in ports[:index]):
            clashes.append((port, holder))
            continue
        for key, text in reader.list(PORT, _port_prefix(port)):
            owner = str(json.loads(text))
            if owner != holder and _overlap(port.host_ip, key.removeprefix(_port_prefix(port))):
                clashes.append((port, owner))
                break
    return clashes


def take_ports(transaction: Transaction, holder: str, ports: Sequence[PortMapping]) -> None:
    """Lease ports that have been found not to clash."""
    for port in ports:
        host_ip = "*" if port.host_ip == "" else str(ip_address(port.host_ip))
        take(transaction, PORT, f"{_port_prefix(port)}{host_ip}", holder)


def _held(reader: Reader, holder: str) -> list[list[str]]:
    text = reader.get(_HELD, holder)
    return [] if text is None else json.loads(text)


def _port_prefix(port: PortMapping) -> str:
    return f"{port.protocol}/{port.host_port}/"


def _same_port(one: PortMapping, other: PortMapping) -> bool:
    return _port_prefix(one) == _port_prefix(other)


def _overlap(one: str, other: str) -> bool:
    """Whether two listening addresses take the same packets; "" is all, 0.0.0.0 and :: are all of their family."""
    if one in ("", "*") or other in ("", "*"):
        return True
    first, second = ip_address(one), ip_address(other)
    if first.version != second.version:
        return False
    return first == second or first.is_unspecified or second.is_unspecified
