"""Messages for links, addresses, routes and queues, and what the kernel tells about them.

The functions that return a `Message` do nothing by themselves: `Netlink.send` carries messages out, many at a time.
Numbers are those of the kernel's uapi headers (rtnetlink.h, if_link.h, pkt_sched.h).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass

from bulkhead.host.netlink import (
    CREATE,
    DUMP,
    EXCL,
    REPLACE,
    Message,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    nested,
    text,
    u32,
)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR, _NEWROUTE, _GETROUTE = 20, 21, 24, 26
_NEWQDISC, _DELQDISC, _GETQDISC = 36, 37, 38
_ADDRESS, _IFNAME, _MTU, _LINK_INDEX, _MASTER, _LINKINFO = 1, 3, 4, 5, 10, 18
_IFALIAS, _STATS64, _AF_SPEC, _NET_NS_FD = 20, 23, 26, 28
_KIND, _DATA, _SLAVE_KIND, _SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER = 1
_BR_MCAST_SNOOPING = 23
_BRPORT_HAIRPIN, _BRPORT_LEARNING = 4, 8
_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
_UNICAST, _MAIN, _STATIC, _LINK = 1, 254, 4, 253
_ROOT = 0xFFFFFFFF
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_UP, _NOARP = 0x1, 0x80
LOOPBACK_INDEX = 1

_ifinfo = struct.Struct("=BxHiII")


@dataclass(frozen=True, slots=True)
class Link:
    """A network link as the kernel describes it. Bytes are counted on this end."""

    name: str
    index: int
    alias: str
    kind: str
    master: int
    """Index of the bridge it belongs to; 0: none."""
    peer: int
    """Of a veth: index of the other end, in that end's namespace; else 0 or its own index."""
    mac: str
    received: int
    sent: int
    mtu: int = 1500


def mac_bytes(mac: str) -> bytes:
    """The six bytes of "02:68:0a:90:00:05"."""
    return bytes.fromhex(mac.replace(":", ""))


def _link(kind: int, flags: int, index: int, up: int, *inside: bytes, what: str, fine: tuple[int, ...] = ()) -> Message:
    return Message(kind, flags, _ifinfo.pack(0, 0, index, up, up) + b"".join(inside), what, fine)


def _no_link_local() -> bytes:
    """Links of ours carry no address that nobody gave them: nothing to wait for, nothing to announce."""
    mode = attribute(_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE]))
    return nested(_AF_SPEC, nested(socket.AF_INET6, mode))


def add_bridge(name: str, mac: str) -> Message:
    """A bridge that learns, floods what it does not know, and snoops on nothing. An existing one is fine."""
    data = nested(_DATA, attribute(_BR_MCAST_SNOOPING, b"\0"))
    info = nested(_LINKINFO, text(_KIND, "bridge"), data)
    parts = (text(_IFNAME, name), attribute(_ADDRESS, mac_bytes(mac)), info)
    return _link(_NEWLINK, CREATE | EXCL, 0, 0, *parts, what=f"make bridge {name}", fine=(errno.EEXIST,))


def add_veth(name: str, *, peer: str, peer_netns_fd: int, peer_mac: str, mtu: int = 0) -> Message:
    """A pair of links, the other end of which appears in another network namespace. Both are down.

    `mtu` 0: the usual.
    """
    size = u32(_MTU, mtu) if mtu else b""
    other = (
        _ifinfo.pack(0, 0, 0, 0, 0)
        + text(_IFNAME, peer)
        + attribute(_ADDRESS, mac_bytes(peer_mac))
        + u32(_NET_NS_FD, peer_netns_fd)
        + size
    )
    info = nested(_LINKINFO, text(_KIND, "veth"), nested(_DATA, attribute(_VETH_PEER, other)))
    return _link(_NEWLINK, CREATE | EXCL, 0, 0, text(_IFNAME, name), size, info, what=f"make link {name}")


def add_loop(name: str, *, back: str, mac: str) -> Message:
    """A pair of links, both in this namespace and with the same address: what leaves by one arrives by the other."""
    address = attribute(_ADDRESS, mac_bytes(mac))
    size = u32(_MTU, 65535)
    other = _ifinfo.pack(0, 0, 0, 0, 0) + text(_IFNAME, back) + address + size
    info = nested(_LINKINFO, text(_KIND, "veth"), nested(_DATA, attribute(_VETH_PEER, other)))
    parts = (text(_IFNAME, name), address, size, info)
    return _link(_NEWLINK, CREATE | EXCL, 0, 0, *parts, what=f"make link {name}", fine=(errno.EEXIST,))


def set_up(name: str, *, alias: str = "", arp: bool = True, link_local: bool = True) -> Message:
    """Bring a link up, with an alias that tells whose it is."""
    parts = [text(_IFNAME, name)]
    if alias:
        parts.append(text(_IFALIAS, alias))
    if not link_local:
        parts.append(_no_link_local())
    flags = _UP | (0 if arp else _NOARP)
    body = _ifinfo.pack(0, 0, 0, flags, _UP | _NOARP) + b"".join(parts)
    return Message(_SETLINK, 0, body, f"bring up link {name}")


def set_index_up(index: int, what: str) -> Message:
    """Bring a link up that is known by its index."""
    return _link(_SETLINK, 0, index, _UP, what=f"bring up {what}")


def attach(name: str, bridge_index: int, *, alias: str) -> Message:
    """Make a link a port of a bridge and bring it up."""
    parts = (text(_IFNAME, name), text(_IFALIAS, alias), u32(_MASTER, bridge_index), _no_link_local())
    return _link(_SETLINK, 0, 0, _UP, *parts, what=f"attach link {name} to its bridge")


def set_hairpin(name: str) -> Message:
    """Let a port send back what came through it: an instance that asks for its own published port.

    Needed where the host has br_netfilter, which translates addresses before the bridge forwards.
    """
    return _set_port(name, attribute(_BRPORT_HAIRPIN, b"\1"))


def forget_senders(name: str) -> Message:
    """Let a port learn no addresses: its bridge sends to it whatever is not known to be elsewhere."""
    return _set_port(name, attribute(_BRPORT_LEARNING, b"\0"))


def _set_port(name: str, setting: bytes) -> Message:
    info = nested(_LINKINFO, text(_SLAVE_KIND, "bridge"), nested(_SLAVE_DATA, setting))
    return _link(_NEWLINK, 0, 0, 0, text(_IFNAME, name), info, what=f"set up bridge port {name}")


def set_alias(name: str, alias: str) -> Message:
    """Say whose a link is."""
    return _link(_SETLINK, 0, 0, 0, text(_IFNAME, name), text(_IFALIAS, alias), what=f"name the owner of link {name}")


def delete_link(name: str) -> Message:
    """Remove a link, and with a veth its other end. One that is gone already is fine."""
    return _link(_DELLINK, 0, 0, 0, text(_IFNAME, name), what=f"remove link {name}", fine=(errno.ENODEV,))


def add_address(index: int, address: IpAddress, prefix: int) -> Message:
    """Give a link an address, in use at once (no duplicate address detection). An existing one is fine."""
    packed = address.packed
    head = struct.pack("=BBBBI", _family(address), prefix, _IFA_NODAD if address.version == 6 else 0, 0, index)
    body = head + attribute(_IFA_ADDRESS, packed) + attribute(_IFA_LOCAL, packed)
    return Message(_NEWADDR, CREATE | EXCL, body, f"add address {address}/{prefix}", (errno.EEXIST,))


def delete_address(index: int, address: IpAddress, prefix: int) -> Message:
    """Take an address from a link. One that it does not have is fine."""
    packed = address.packed
    body = struct.pack("=BBBBI", _family(address), prefix, 0, 0, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    return Message(_DELADDR, 0, body, f"remove address {address}/{prefix}", (errno.EADDRNOTAVAIL,))


def set_mac(index: int, mac: str, what: str) -> Message:
    """Give a link another MAC address."""
    return _link(_SETLINK, 0, index, 0, attribute(_ADDRESS, mac_bytes(mac)), what=f"set the MAC address of {what}")


def add_default_route(gateway: IpAddress, index: int) -> Message:
    """Send what is for elsewhere to a gateway."""
    parts = attribute(_RTA_GATEWAY, gateway.packed) + u32(_RTA_OIF, index)
    return Message(_NEWROUTE, CREATE | EXCL, _route(gateway, 0, 0) + parts, f"add default route through {gateway}")


def add_host_route(address: IpAddress, index: int) -> Message:
    """Send what is for one address out of a link; the link's index is the metric, so that two of these coexist."""
    parts = attribute(_RTA_DST, address.packed) + u32(_RTA_OIF, index) + u32(_RTA_PRIORITY, index)
    body = _route(address, address.max_prefixlen, _LINK if address.version == 4 else 0) + parts
    return Message(_NEWROUTE, CREATE | REPLACE, body, f"add route to {address}")


def _family(address: IpAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _route(address: IpAddress, prefix: int, scope: int) -> bytes:
    return struct.pack("=BBBBBBBBI", _family(address), prefix, 0, 0, _MAIN, _STATIC, scope, _UNICAST, 0)


def set_rate(index: int, *, rate: int, burst: int, limit: int, what: str) -> Message:
    """Limit what leaves by a link (a token bucket): `rate` in bytes per second, `burst` and `limit` in bytes.

    The link layer is given as Ethernet, so that no table of sizes has to be sent along.
    """
    spec = struct.pack("=BBHhHI", 0, 1, 0, 0, 0, min(rate, 0xFFFFFFFF))
    parameters = spec + bytes(12) + struct.pack("=III", limit, 0, 0)
    options = [attribute(_TBF_PARMS, parameters), u32(_TBF_BURST, burst)]
    if rate > 0xFFFFFFFF:
        options.append(attribute(_TBF_RATE64, struct.pack("=Q", rate)))
    body = _traffic(index) + text(1, "tbf") + nested(2, *options)
    return Message(_NEWQDISC, CREATE | REPLACE, body, f"limit the rate of {what}")


def clear_rate(index: int, what: str) -> Message:
    """Take the limit away; none there is fine."""
    fine = (errno.ENOENT, errno.EINVAL)
    return Message(_DELQDISC, 0, _traffic(index), f"unlimit the rate of {what}", fine)


def _traffic(index: int) -> bytes:
    return struct.pack("=BxxxiIII", 0, index, 0, _ROOT, 0)


def index_of(name: str) -> int:
    """Index of a link in the namespace of the calling thread; 0 when there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def find(netlink: Netlink, name: str) -> Link | None:
    """A link by its name."""
    body = _ifinfo.pack(0, 0, 0, 0, 0) + text(_IFNAME, name)
    try:
        answers = netlink.dump(_GETLINK, body, f"read link {name}", flags=0)
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return _parse_link(answers[0][1])


def find_all(netlink: Netlink) -> list[Link]:
    """Every link."""
    return [_parse_link(data) for _, data in netlink.dump(_GETLINK, _ifinfo.pack(0, 0, 0, 0, 0), "list links")]


def _parse_link(data: bytes) -> Link:
    index = struct.unpack_from("=i", data, 4)[0]
    found = attributes(data[16:])
    stats = struct.unpack_from("=4Q", found.get(_STATS64, bytes(32)))
    return Link(
        name=_string(found, _IFNAME),
        index=index,
        alias=_string(found, _IFALIAS),
        kind=_string(attributes(found.get(_LINKINFO, b"")), _KIND),
        master=int.from_bytes(found.get(_MASTER, b""), "little"),
        peer=int.from_bytes(found.get(_LINK_INDEX, b""), "little"),
        mac=found.get(_ADDRESS, b"").hex(":"),
        received=stats[2],
        sent=stats[3],
        mtu=int.from_bytes(found.get(_MTU, b""), "little"),
    )


def _string(found: dict[int, bytes], kind: int) -> str:
    return found.get(kind, b"").rstrip(b"\0").decode(errors="replace")


def routes(netlink: Netlink) -> list[tuple[IpNetwork, int]]:
    """Where unicast traffic goes, every table, without default routes: (destination, index of the link)."""
    found: list[tuple[IpNetwork, int]] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
        for _, data in netlink.dump(_GETROUTE, head, "list routes"):
            prefix, kind = data[1], data[7]
            inside = attributes(data[12:])
            if kind != _UNICAST or not prefix or _RTA_DST not in inside:
                continue
            network = ipaddress.ip_network((inside[_RTA_DST], prefix), strict=False)
            found.append((network, int.from_bytes(inside.get(_RTA_OIF, b""), "little")))
    return found


def queues(netlink: Netlink, index: int) -> list[tuple[str, int]]:
    """The root queues of a link: kind and, of a token bucket, its rate in bytes per second (else 0)."""
    found = []
    for _, data in netlink.dump(_GETQDISC, _traffic(index), "list queues", flags=DUMP):
        if struct.unpack_from("=i", data, 4)[0] != index or struct.unpack_from("=I", data, 12)[0] != _ROOT:
            continue
        inside = attributes(data[20:])
        kind, rate = _string(inside, 1), 0
        if kind == "tbf":
            options = attributes(inside[2])
            rate = struct.unpack_from("=I", options[_TBF_PARMS], 8)[0]
            if _TBF_RATE64 in options:
                rate = struct.unpack("=Q", options[_TBF_RATE64])[0]
        found.append((kind, rate))
    return found
