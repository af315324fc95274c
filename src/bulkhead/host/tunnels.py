"""Messages for links that lead to other hosts (VXLAN), for whom they reach, and for where addresses are told to be.

Numbers are those of the kernel's uapi headers (if_link.h, neighbour.h). As in links.py, a `Message` does nothing by
itself.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Sequence

from bulkhead.host.links import IpAddress, mac_bytes
from bulkhead.host.netlink import CREATE, EXCL, REPLACE, Message, Netlink, attribute, attributes, nested, text, u32

_SETLINK, _AF_SPEC, _ADDR_GEN_MODE, _ADDR_GEN_NONE = 19, 26, 8, 1
_NEWLINK, _GETADDR, _NEWROUTE, _DELROUTE = 16, 22, 24, 25
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_APPEND = 0x800
_ADDRESS, _IFNAME, _MTU, _LINKINFO, _KIND, _DATA = 1, 3, 4, 18, 1, 2
_ID, _LOCAL, _LEARNING, _PORT, _LOCAL6 = 1, 4, 7, 15, 17
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_DST, _LLADDR = 1, 2
_SELF, _OF_BRIDGE = 0x02, 0x04
_REACHABLE, _NOARP, _PERMANENT = 0x02, 0x40, 0x80
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_UNICAST, _MAIN, _STATIC = 1, 254, 4
_NOBODY = bytes(6)
_link = struct.Struct("=BxHiII")
_neighbour = struct.Struct("=BxxxiHBB")


def add_vxlan(
    name: str, *, number: int, local: IpAddress, port: int, mtu: int, mac: str = "", learns: bool = True
) -> Message:
    """A link whose frames go to other hosts' addresses in UDP packets, from `local`. An existing one is fine.

    It reaches nobody until it is told of them. `learns`: it remembers behind which host a sender is.
    """
    own = attribute(_LOCAL if local.version == 4 else _LOCAL6, local.packed)
    options = (u32(_ID, number), own, attribute(_LEARNING, bytes([learns])), attribute(_PORT, struct.pack(">H", port)))
    info = nested(_LINKINFO, text(_KIND, "vxlan"), nested(_DATA, *options))
    address = attribute(_ADDRESS, mac_bytes(mac)) if mac else b""
    body = _link.pack(0, 0, 0, 0, 0) + text(_IFNAME, name) + address + u32(_MTU, mtu) + info
    return Message(_NEWLINK, CREATE | EXCL, body, f"make link {name} to other hosts", (errno.EEXIST,))


def set_mtu(name: str, mtu: int) -> Message:
    """Let no packet of more bytes leave by a link."""
    body = _link.pack(0, 0, 0, 0, 0) + text(_IFNAME, name) + u32(_MTU, mtu)
    return Message(_NEWLINK, 0, body, f"set the MTU of link {name}")


def no_link_local(name: str) -> Message:
    """Let a link that is still down get no address that nobody gives it."""
    mode = nested(_AF_SPEC, nested(socket.AF_INET6, attribute(_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE]))))
    return Message(_SETLINK, 0, _link.pack(0, 0, 0, 0, 0) + text(_IFNAME, name) + mode, f"set up link {name}")


def add_flood(index: int, host: IpAddress) -> Message:
    """Send to this host too what a VXLAN link sends to all, or to somebody whose host is not known. Idempotent."""
    body = _neighbour.pack(socket.AF_BRIDGE, index, _PERMANENT | _NOARP, _SELF, 0)
    body += attribute(_LLADDR, _NOBODY) + attribute(_DST, host.packed)
    return Message(_NEWNEIGH, CREATE | _APPEND, body, f"reach host {host}", (errno.EEXIST,))


def remove_flood(index: int, host: IpAddress) -> Message:
    """Send no more to a host what is for all. Idempotent."""
    body = _neighbour.pack(socket.AF_BRIDGE, index, 0, _SELF, 0)
    body += attribute(_LLADDR, _NOBODY) + attribute(_DST, host.packed)
    return Message(_DELNEIGH, 0, body, f"reach host {host} no more", (errno.ENOENT,))


def floods(netlink: Netlink, index: int) -> set[IpAddress]:
    """The hosts that a VXLAN link sends to what is for all."""
    found = set()
    for mac, host in _behind(netlink, index):
        if mac == _NOBODY:
            found.add(host)
    return found


def _behind(netlink: Netlink, index: int) -> list[tuple[bytes, IpAddress]]:
    """What a VXLAN link knows: (MAC address, the host that it is behind)."""
    head = _neighbour.pack(socket.AF_BRIDGE, index, 0, 0, 0)
    found: list[tuple[bytes, IpAddress]] = []
    for _, data in netlink.dump(_GETNEIGH, head, "list what is behind a link"):
        inside = attributes(data[_neighbour.size :])
        if struct.unpack_from("=i", data, 4)[0] == index and _LLADDR in inside and _DST in inside:
            found.append((inside[_LLADDR], ipaddress.ip_address(inside[_DST])))
    return found


def put_behind(index: int, mac: str, host: IpAddress, *, for_good: bool = False) -> Message:
    """Tell a VXLAN link behind which host a MAC address is; unless `for_good` it may learn otherwise."""
    state = _PERMANENT | _NOARP if for_good else _REACHABLE
    body = _neighbour.pack(socket.AF_BRIDGE, index, state, _SELF, 0)
    body += attribute(_LLADDR, mac_bytes(mac)) + attribute(_DST, host.packed)
    return Message(_NEWNEIGH, CREATE | REPLACE, body, f"put {mac} behind host {host}")


def put_at_port(index: int, mac: str) -> Message:
    """Tell a bridge that a MAC address is at this port of it; it may learn otherwise."""
    body = _neighbour.pack(socket.AF_BRIDGE, index, _REACHABLE, _OF_BRIDGE, 0) + attribute(_LLADDR, mac_bytes(mac))
    return Message(_NEWNEIGH, CREATE | REPLACE, body, f"put {mac} at its port")


def index_with(netlink: Netlink, address: IpAddress) -> int:
    """Index of the link that has an address; 0 where none has."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    for _, data in netlink.dump(_GETADDR, struct.pack("=BBBBI", family, 0, 0, 0, 0), "list addresses"):
        inside = attributes(data[8:])
        if inside.get(_IFA_LOCAL, inside.get(_IFA_ADDRESS)) == address.packed:
            return int(struct.unpack_from("=I", data, 4)[0])
    return 0


def send_frames(name: str, frames: Sequence[bytes]) -> None:
    """Send Ethernet frames out of a link. OSError where it has gone, or is down."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as made:
        made.bind((name, 0))
        for frame in frames:
            made.send(frame)


def put_neighbour(index: int, address: IpAddress, mac: str) -> Message:
    """Know for good which MAC address an IP address has on a link."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _neighbour.pack(family, index, _PERMANENT, 0, 0)
    body += attribute(_DST, address.packed) + attribute(_LLADDR, mac_bytes(mac))
    return Message(_NEWNEIGH, CREATE | REPLACE, body, f"put {address} at {mac}")


def add_route(address: IpAddress, gateway: IpAddress, index: int) -> Message:
    """Send what is for one address to a gateway on a link, in place of an earlier one."""
    parts = attribute(_RTA_DST, address.packed) + attribute(_RTA_GATEWAY, gateway.packed) + u32(_RTA_OIF, index)
    return Message(_NEWROUTE, CREATE | REPLACE, _route(address) + parts, f"send {address} to {gateway}")


def delete_route(address: IpAddress, index: int) -> Message:
    """Send it there no more. Idempotent."""
    parts = attribute(_RTA_DST, address.packed) + u32(_RTA_OIF, index)
    return Message(_DELROUTE, 0, _route(address) + parts, f"send {address} nowhere", (errno.ESRCH,))


def _route(address: IpAddress) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return struct.pack("=BBBBBBBBI", family, address.max_prefixlen, 0, 0, _MAIN, _STATIC, 0, _UNICAST, 0)


def add_wireguard(name: str) -> Message:
    """A link of the kernel's own WireGuard. An existing one is fine."""
    info = nested(_LINKINFO, text(_KIND, "wireguard"))
    body = _link.pack(0, 0, 0, 0, 0) + text(_IFNAME, name) + info
    return Message(_NEWLINK, CREATE | EXCL, body, f"make encrypted link {name}", (errno.EEXIST,))
