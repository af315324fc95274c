"""nftables: rulesets through the nft program, elements of sets and maps through the kernel's own interface.

Rules change seldom and are text; elements change with every start and stop, and go over a netlink socket in
0.1 ms where the program takes 5 ms. All or nothing holds for both. Numbers are those of nf_tables.h.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bulkhead.errors import HostError
from bulkhead.host import processes
from bulkhead.host.links import IpAddress
from bulkhead.host.netlink import (
    CREATE,
    DUMP,
    NETFILTER,
    Message,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    nested,
    text,
)

FAMILIES = {"ip": 2, "ip6": 10, "bridge": 7, "inet": 1, "netdev": 5}
_SUBSYSTEM = 10
_NEWSETELEM, _DELSETELEM = 12, 14
_CT_GET, _CT_DELETE = 0x101, 0x102
_DST_NAT = 0x20
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_AT_ONCE = 256
"""Elements in one transaction: their answers must fit the socket's buffer."""


@dataclass(frozen=True, slots=True)
class Element:
    """A member of a set, or of a map: as text in nft's syntax, and packed where it is added and removed singly.

    `key` and `data` are concatenations of fields; b"" where an element is only ever part of a script.
    """

    family: str
    set: str
    text: str
    key: bytes = b""
    data: bytes = b""

    def script(self, verb: str, table: str) -> str:
        """The line of a script that adds or deletes it."""
        shown = self.text if verb == "add" else self.text.partition(" : ")[0]
        return f"{verb} element {self.family} {table} {self.set} {{ {shown} }}\n"


def field(data: bytes) -> bytes:
    """One field of a concatenation: nftables counts in registers of four bytes."""
    return data + bytes(-len(data) % 4)


def interface(name: str) -> bytes:
    """A link's name as a field."""
    return name.encode().ljust(16, b"\0")


def port(number: int) -> bytes:
    """A TCP or UDP port as a field."""
    return field(struct.pack(">H", number))


def protocol(name: str) -> bytes:
    """ "tcp" or "udp" as a field."""
    return field(bytes([{"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}[name]]))


def load(script: str) -> None:
    """Carry out an nft script: all of it or nothing."""
    processes.run(["nft", "-f", "-"], stdin=script.encode(), package="nftables")


def read(family: str, table: str) -> list[dict[str, Any]] | None:
    """Everything in a table, as `nft -j` tells it; None when there is no such table."""
    try:
        said = processes.run(["nft", "-j", "list", "table", family, table], package="nftables")
    except HostError as error:
        if "No such file or directory" in error.what:
            return None
        raise
    objects: list[dict[str, Any]] = json.loads(said)["nftables"]
    return objects


def elements(objects: list[dict[str, Any]]) -> set[Element]:
    """What the sets and maps hold of a table that was read, as text; not what rules themselves put into sets."""
    found = set()
    for each in objects:
        if "set" in each:
            about = each["set"]
            plain = [one for one in about.get("elem", ()) if not _is_of_a_rule(one)]
            found |= {Element(about["family"], about["name"], _text(one, about)) for one in plain}
        elif "map" in each:
            about = each["map"]
            for key, data in about.get("elem", ()):
                text = f"{_text(key, about)} : {_text(data, {'type': about['map'].split(' . ')})}"
                found.add(Element(about["family"], about["name"], text))
    return found


def _is_of_a_rule(value: Any) -> bool:
    """Whether an element has a statement or an end, as only those have that rules put into sets."""
    return isinstance(value, dict) and "elem" in value


def _text(value: Any, about: dict[str, Any]) -> str:
    types = about["type"] if isinstance(about["type"], list) else [about["type"]]
    if isinstance(value, dict) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    fields = value["concat"] if isinstance(value, dict) else [value]
    return " . ".join(f'"{one}"' if kind == "ifname" else str(one) for one, kind in zip(fields, types, strict=True))


def chains(objects: list[dict[str, Any]]) -> set[str]:
    """Names of the chains of a table that was read."""
    return {each["chain"]["name"] for each in objects if "chain" in each}


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain that the kernel calls, of anybody's."""

    family: str
    table: str
    name: str
    hook: str
    policy: str


def base_chains() -> list[BaseChain]:
    """Every base chain of the host, those of iptables (in its nftables form) among them."""
    said = json.loads(processes.run(["nft", "-j", "list", "chains"], package="nftables"))
    found = [each["chain"] for each in said["nftables"] if "hook" in each.get("chain", {})]
    return [
        BaseChain(each["family"], each["table"], each["name"], each["hook"], each.get("policy", "accept"))
        for each in found
    ]


class Elements:
    """The sets and maps of one table name (in several families)."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._netlink = Netlink(NETFILTER)

    def close(self) -> None:
        """Give the socket back."""
        self._netlink.close()

    def add(self, elements: Sequence[Element]) -> None:
        """Add all or none. One that is there with the same data is fine."""
        self._transact([self._message(_NEWSETELEM, CREATE, element, "add") for element in elements])

    def remove(self, elements: Sequence[Element]) -> None:
        """Remove them; what is not there is fine."""
        messages = [self._message(_DELSETELEM, 0, element, "remove") for element in elements]
        try:
            self._transact(messages)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            for message in messages:
                self._remove_one(message)

    def _remove_one(self, message: Message) -> None:
        try:
            self._transact([message])
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise

    def _transact(self, messages: Sequence[Message]) -> None:
        begin = _message_bytes(_BATCH_BEGIN, _SUBSYSTEM)
        end = _message_bytes(_BATCH_END, _SUBSYSTEM)
        for start in range(0, len(messages), _AT_ONCE):
            self._netlink.batch(begin, messages[start : start + _AT_ONCE], end)

    def _message(self, kind: int, flags: int, element: Element, verb: str) -> Message:
        parts = [nested(1, attribute(1, element.key))]
        if element.data and kind == _NEWSETELEM:
            parts.append(nested(2, attribute(1, element.data)))
        body = (
            struct.pack("=BBH", FAMILIES[element.family], 0, 0)
            + text(1, self._table)
            + text(2, element.set)
            + nested(3, nested(1, *parts))
        )
        what = f"{verb} element {element.text} in {element.family} {self._table} {element.set}"
        return Message(_SUBSYSTEM << 8 | kind, flags, body, what)


def _message_bytes(kind: int, subsystem: int) -> bytes:
    return struct.pack("=IHHII", 20, kind, 1, 0, 0) + struct.pack(">BBH", 0, 0, subsystem)


def forget_connections(addresses: Collection[IpAddress]) -> int:
    """Drop the tracked connections that lead to `addresses` by a translation; returns how many.

    Without this, a client that keeps sending from one UDP port goes on being sent to an instance that has gone.
    The kernel looks through its whole table, some 10 ms: for many addresses at once, and not on anybody's way.
    """
    wanted = {address.packed for address in addresses}
    translated = attribute(3, struct.pack(">I", _DST_NAT)) + attribute(26, struct.pack(">I", _DST_NAT))
    with Netlink(NETFILTER) as netlink:
        head = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
        found = netlink.dump(_CT_GET, head + translated, "list tracked connections", flags=DUMP)
        deletions = [_forget(data) for _, data in found if _answering(data) in wanted]
        netlink.send(*deletions)
    return len(deletions)


def _answering(data: bytes) -> bytes:
    """The packed address that answers in a tracked connection."""
    answer = attributes(attributes(data[4:]).get(2, b""))
    ips = attributes(answer.get(1, b""))
    return ips.get(1) or ips.get(3) or b""


def _forget(data: bytes) -> Message:
    """The deletion of a listed connection: its original tuple and id name it."""
    kept = [attribute(kind, value) for kind, value in _top(data[4:]) if kind & 0x3FFF in (1, 12, 18)]
    return Message(_CT_DELETE, 0, data[:4] + b"".join(kept), "forget a tracked connection", (errno.ENOENT,))


def _top(data: bytes) -> Iterable[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind, data[at + 4 : at + length]
        at += (length + 3) & ~3
