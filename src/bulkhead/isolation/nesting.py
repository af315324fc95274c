"""A start on the host made one in a guest: the same lists, but for where their devices and network come from. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bulkhead.agent.frames import Start, StartFlag
from bulkhead.agent.operations import Argument, Attr, Code, Operation, macvlan, mountdev, netif, simple, write
from bulkhead.isolation import guest
from bulkhead.isolation.base import Bundle, Limits, NoLimits
from bulkhead.isolation.plugging import Plugged
from bulkhead.model import Address

SETTINGS = {
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/default/accept_redirects": "0",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/accept_redirects": "0",
    "ipv6/conf/default/addr_gen_mode": "1",
}
"""Of a new network namespace before it has an interface: nothing is believed that neighbours say about routes."""


def moved(operations: Sequence[Operation], old: str, new: str) -> tuple[Operation, ...]:
    """The operations with the cgroup `new` in the place of `old`, both paths."""

    def changed(argument: Argument) -> Argument:
        within = isinstance(argument, str) and (argument == old or argument.startswith(f"{old}/"))
        return new + argument[len(old) :] if within and isinstance(argument, str) else argument

    return tuple(replace(each, arguments=tuple(map(changed, each.arguments))) for each in operations)


def moved_limits(limits: Limits, old: str, new: str) -> NoLimits:
    """A limit program for another cgroup than it was made for.

    Each start has one of its own: what cleans up after an earlier one, late, must not find this one's.
    """
    return NoLimits(
        prepare=moved(limits.prepare, old, new),
        join=tuple(path.replace(old, new) for path in limits.join),
        beside=tuple(path.replace(old, new) for path in limits.beside),
        delegated=limits.delegated.replace(old, new),
        kill=limits.kill.replace(old, new),
        finish=moved(limits.finish, old, new),
    )


def placed(bundle: Bundle, plugged: Plugged) -> Bundle:
    """The bundle with the guest's block devices where the host's mount points would be."""
    return replace(bundle, layers=tuple(Path(layer) for layer in plugged.layers), disk=Path(plugged.disk))


def within(start: Start, bundle: Bundle) -> Start:
    """The start of a bundle that `placed` has made, for the agent of a guest; its log is the host's."""
    kinds = {str(layer): ("erofs", Attr.RDONLY) for layer in bundle.layers} | {str(bundle.disk): ("ext4", Attr.NONE)}
    stage = [each for operation in start.stage for each in _in_guest(operation, kinds)]
    if bundle.address and StartFlag.HOLD not in start.flags:
        stage = list(_networked(stage, bundle.address))
    return replace(start, stage=tuple(stage), log_files=0)


def _in_guest(operation: Operation, kinds: Mapping[str, tuple[str, Attr]]) -> Iterator[Operation]:
    """A mount of the host's is in the guest a device, which is mounted first. The stage is the working directory."""
    kind = kinds.get(str(operation.arguments[0])) if operation.code is Code.ATTACH else None
    if kind is None:
        yield operation
        return
    path, name, *rest = operation.arguments
    assert isinstance(path, str) and isinstance(name, str)
    first = f"{name}.dev"
    yield mountdev(path, kind[0], first, attrs=kind[1])
    yield simple(Code.ATTACH, first, name, *rest)


def _networked(stage: list[Operation], address: Address) -> Iterator[Operation]:
    """With an interface of its own, once loopback is up."""
    for operation in stage:
        yield operation
        if operation.code is Code.LOOPBACK:
            yield from (write(f"/proc/sys/net/{name}", value) for name, value in SETTINGS.items())
            yield from interface(address)


def interface(address: Address) -> tuple[Operation, Operation]:
    """On top of the guest's own, with the addresses that were leased to the instance."""
    mac = bytes.fromhex(address.mac.replace(":", ""))
    addresses = (f"{address.ipv4}/{address.prefix4}", f"{address.ipv6}/{address.prefix6}")
    made = macvlan(guest.INTERFACE, guest.INTERFACE, mac)
    given = netif(guest.INTERFACE, addresses=addresses, gateway4=address.gateway4, gateway6=address.gateway6)
    return made, given
