"""The packet filter as text and elements, made from data. Pure.

Three tables of one name (families ip, ip6 and bridge) hold everything. Our chains drop and translate; none of them
accepts on behalf of the host: an `accept` here ends our own chain only, and the host's chains are asked as well.

A published port is judged by the host's input chains as if a program of the host listened on it. A connection's
first packet is left alone until it has passed every other input chain; there, as the very last one, ours takes it
and sends it out of one end of a pair of links (`<prefix>out`), so that it arrives once more by the other
(`<prefix>in`), and only what arrives there is translated to the instance. From the second packet on the kernel's
connection tracking does the translation by itself. Packets of the host to its own published ports take that way
every time: they are exempt from tracking until they arrive by `<prefix>in`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bulkhead.config import Config
from bulkhead.host.links import IpAddress
from bulkhead.host.nftables import Element, field, interface, port, protocol
from bulkhead.model import Address, Network, PortMapping
from bulkhead.network.addresses import bridge_name, mac_bytes_of, mac_of

DUMMY = {"ip": "192.0.0.8", "ip6": "100::8"}
"""Next hops on the way out: addresses that nobody has (RFC 7600, RFC 6666)."""
TABLES = ("ip", "ip6", "bridge")
TO_ALL, TO_ALL_BURST = 200, 400
"""Frames to everybody, or to a group, that an instance can send: in a second, and at once after a pause."""

_FAMILY = """
table {family} {table} {{
  map ports {{ type inet_proto . {type} . inet_service : {type} . inet_service; }}
  map any_ports {{ type inet_proto . inet_service : {type} . inet_service; }}
  set claimed {{ type inet_proto . {type} . inet_service; }}
  set any_claimed {{ type inet_proto . inet_service; }}
  set subnets {{ type {type}; flags interval; }}
  set gateways {{ type {type}; }}
  set same {{ type ifname . ifname; }}
  set closed {{ type ifname; }}
  set talkers {{ type {type}; size 65535; flags dynamic; }}
  set members {{ type {type}; }}

  # Bridges of ours take packets for 127.0.0.1 (route_localnet), which only answers to published ports may be,
  # and an instance reaches its own network's gateway, not those of others.
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{prefix}-*" {ip} daddr {loopback} drop
    iifname {{ "{prefix}hop", "{prefix}hops" }} {ip} daddr {loopback} drop
    iifname "{prefix}-*" {ip} daddr @gateways fib daddr . iif type != local drop
    iifname "{prefix}-*" udp dport {{ {fleet}, {sealed} }} drop
    udp dport {fleet} fib daddr type local {ip} saddr != @members drop
    udp dport {sealed} fib daddr type local iifname != "{prefix}wg" drop
  }}

  # What hosts of a fleet send one another the kernel makes, and nobody else: neither an instance, whose packets would
  # leave with its host's address (above), nor a program, which an instance with the host's network may be.
  chain sending {{
    type filter hook output priority raw; policy accept;
    udp dport {{ {fleet}, {sealed} }} meta skuid 0-4294967294 drop
  }}

  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname @closed oifname @closed drop
    iifname "{prefix}-*" ct state new jump counted
    oifname "{prefix}wg" drop
    oifname {{ "{prefix}hop", "{prefix}hops" }} jump to_host_of_instance
    iifname {{ "{prefix}hop", "{prefix}hops" }} oifname "{prefix}-*" accept
    oifname "{prefix}-*" jump to_instance
  }}

  # To other hosts goes what they publish by this one, and what instances answer to what they have published.
  chain to_host_of_instance {{
    ct status dnat accept
    ct state established,related accept
    drop
  }}

  chain to_host {{
    type filter hook input priority filter; policy accept;
    iifname "{prefix}-*" ct state new jump counted
  }}

  # The host has one table of connections: an instance that could fill it would cut off all others.
  chain counted {{
    add @talkers {{ {ip} saddr ct count over {connections} }} drop
  }}

  chain to_instance {{
    ct status dnat accept
    iifname . oifname @same accept
    ct state established,related accept
    drop
  }}

  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname != "{prefix}-*" {ip} saddr @subnets {ip} daddr != @subnets masquerade
    oifname "{prefix}-*" ct status dnat {ip} saddr @subnets masquerade
    oifname "{prefix}-*" {ip} saddr {loopback} masquerade
    oifname {{ "{prefix}hop", "{prefix}hops" }} ct status dnat masquerade
  }}
{publishing}}}
"""

_THROUGH_INPUT = """
  chain from_host {{
    type filter hook output priority raw; policy accept;
    fib daddr type != local accept
{no_loopback}    meta l4proto . {ip} daddr . th dport @claimed notrack
    meta l4proto . th dport @any_claimed notrack
  }}

  chain after_input {{
    type filter hook input priority 2000000000; policy accept;
    ct state new,untracked jump to_published
  }}

  chain to_published {{
    fib daddr type != local return
{no_loopback}    meta l4proto . {ip} daddr . th dport @claimed goto once_more
    meta l4proto . th dport @any_claimed goto once_more
  }}

  chain once_more {{
    dup to {dummy} device "{prefix}out"
    drop
  }}

  chain published {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{prefix}in" dnat {ip} to meta l4proto . {ip} daddr . th dport map @ports
    iifname "{prefix}in" dnat {ip} to meta l4proto . th dport map @any_ports
  }}

  chain translated {{
    type filter hook prerouting priority dstnat + 10; policy accept;
    iifname "{prefix}in" ct status & dnat == 0 drop
{unmarked}  }}
"""

_THROUGH_FORWARD = """
  chain published {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type != local accept
    dnat {ip} to meta l4proto . {ip} daddr . th dport map @ports
    dnat {ip} to meta l4proto . th dport map @any_ports
  }}

  chain published_here {{
    type nat hook output priority -100; policy accept;
    fib daddr type != local accept
{no_loopback}    dnat {ip} to meta l4proto . {ip} daddr . th dport map @ports
    dnat {ip} to meta l4proto . th dport map @any_ports
  }}
"""

_UNMARKED = """    # The copy was marked "do not fragment"; a datagram that needed no permission before needs none now.
    iifname "{prefix}in" meta l4proto udp ip frag-off set 0
"""

_NO_LOOPBACK6 = "    ip6 daddr ::1 return\n"
"""The kernel takes packets of ::1 from lo alone: a connection to it is refused rather than lost."""

_BRIDGE = """
table bridge {table} {{
  set senders4 {{ type ifname . ether_addr . ipv4_addr; }}
  set senders6 {{ type ifname . ether_addr . ipv6_addr; }}
  set targets6 {{ typeof meta iifname . ether saddr . @th,64,128; }}
  set askers {{ type ifname . ether_addr; }}
  set loud {{ type ifname; size 65535; flags dynamic,timeout; timeout 1m; }}
  set gateways {{ type ether_addr; }}

  # What comes from an instance carries its own addresses, and claims no others in ARP and neighbour discovery.
  chain guard {{
    type filter hook prerouting priority -300; policy accept;
    iifname "{prefix}v*" meta pkttype {{ broadcast, multicast }} jump to_all
    iifname "{prefix}v*" jump from_instance
    iifname "{prefix}x*" ether saddr @gateways drop
  }}

  # Every host of a fleet is the gateway for its own instances: what that says stays on the host.
  chain to_hosts {{
    type filter hook postrouting priority -300; policy accept;
    oifname "{prefix}x*" ether saddr @gateways drop
  }}

  # What goes to all costs all of them: it is for finding others, and that takes little.
  chain to_all {{
    update @loud {{ iifname limit rate over {per_second}/second burst {burst} packets }} drop
  }}

  # Nobody but the host answers a DHCP client. A system that does not know its address yet asks for it, as nobody.
  chain from_instance {{
    udp dport {{ 68, 546 }} drop
    ether type ip iifname . ether saddr . ip saddr @senders4 accept
    ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 iifname . ether saddr @askers accept
    ether type ip6 iifname . ether saddr . ip6 saddr @senders6 jump neighbours
    ether type arp arp htype 1 iifname . arp saddr ether . arp saddr ip @senders4 jump resolution
    drop
  }}

  chain neighbours {{
    icmpv6 type {{ nd-router-advert, nd-redirect, router-renumbering }} drop
    icmpv6 type nd-neighbor-advert iifname . ether saddr . @th,64,128 @targets6 accept
    icmpv6 type nd-neighbor-advert drop
    accept
  }}

  chain resolution {{
    iifname . ether saddr . arp saddr ip @senders4 accept
    drop
  }}

  # What is asked as nobody is the host's to hear, and nobody else's. Before the bridge's own filter (priority 0), which
  # goes on behind itself where the host has it.
  chain between {{
    type filter hook forward priority -200; policy accept;
    iifname "{prefix}v*" ether type ip ip saddr 0.0.0.0 drop
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Published:
    """The ports of one instance."""

    instance_id: str
    address: Address
    ports: tuple[PortMapping, ...]
    elsewhere: bool = False
    """It runs on another host of the fleet."""


def ruleset(config: Config) -> str:
    """The tables with empty sets, in place of what is there under these names."""
    words: dict[str, object] = {"table": config.nft_table, "prefix": config.link_prefix}
    words |= {"connections": config.connections, "per_second": TO_ALL, "burst": TO_ALL_BURST}
    words |= {"fleet": config.fleet_port, "sealed": config.fleet_port + 1}
    template = _THROUGH_INPUT if config.published_ports == "input" else _THROUGH_FORWARD
    parts = [f"add table {family} {config.nft_table}\ndelete table {family} {config.nft_table}\n" for family in TABLES]
    for family, kind, loopback in (("ip", "ipv4_addr", "127.0.0.0/8"), ("ip6", "ipv6_addr", "::1")):
        own = {**words, "family": family, "ip": family, "type": kind, "loopback": loopback, "dummy": DUMMY[family]}
        own["no_loopback"] = _NO_LOOPBACK6 if family == "ip6" else ""
        own["unmarked"] = _UNMARKED.format(**own) if family == "ip" else ""
        parts.append(_FAMILY.format(**own, publishing=template.format(**own)))
    parts.append(_BRIDGE.format(**words))
    return "".join(parts)


def no_ruleset(config: Config) -> str:
    """Take the tables away, whether they are there or not."""
    table = config.nft_table
    return "".join(f"add table {family} {table}\ndelete table {family} {table}\n" for family in TABLES)


def network_elements(config: Config, network: Network) -> list[Element]:
    """What the sets hold about a network."""
    bridge = f'"{bridge_name(config, network)}"'
    found = []
    for family, subnet in (("ip", network.subnet4), ("ip6", network.subnet6)):
        parsed = ipaddress.ip_network(subnet)
        found += [
            Element(family, "subnets", str(parsed)),
            Element(family, "gateways", str(parsed[1])),
            Element(family, "same", f"{bridge} . {bridge}"),
        ]
    if network.overlay:
        found.append(Element("bridge", "gateways", mac_of(str(ipaddress.ip_network(network.subnet4)[1]))))
    return found


def member_elements(hosts: Iterable[IpAddress]) -> list[Element]:
    """The other hosts of the fleet, whose packets are taken."""
    return [Element("ip" if host.version == 4 else "ip6", "members", str(host), host.packed) for host in hosts]


def closed_elements(closed: Mapping[Literal["ip", "ip6"], Iterable[str]]) -> list[Element]:
    """The links between which the host keeps not forwarding, as it did not before it had networks."""
    return [Element(family, "closed", f'"{link}"') for family, links in closed.items() for link in links]


def sender_elements(link: str, address: Address) -> list[Element]:
    """What the instance behind a link may send as."""
    mac = mac_bytes_of(address.ipv4)
    start, start_text = interface(link) + field(mac), f'"{link}" . {mac.hex(":")}'
    ipv4, ipv6 = ipaddress.IPv4Address(address.ipv4), ipaddress.IPv6Address(address.ipv6)
    return [
        Element("bridge", "senders4", f"{start_text} . {ipv4}", start + ipv4.packed),
        Element("bridge", "senders6", f"{start_text} . {ipv6}", start + ipv6.packed),
        Element("bridge", "targets6", f"{start_text} . 0x{ipv6.packed.hex()}", start + ipv6.packed),
    ]


def asker_elements(link: str, address: Address) -> list[Element]:
    """That the system behind a link may ask for its address."""
    mac = mac_bytes_of(address.ipv4)
    return [Element("bridge", "askers", f'"{link}" . {mac.hex(":")}', interface(link) + field(mac))]


def port_elements(published: Published) -> list[Element]:
    """Where the ports of an instance lead."""
    return [element for mapping in published.ports for element in _mapping(mapping, published.address)]


def families_of(mapping: PortMapping) -> Sequence[str]:
    """The address families that a port is published in."""
    if not mapping.host_ip:
        return ("ip", "ip6")
    return ("ip",) if ipaddress.ip_address(mapping.host_ip).version == 4 else ("ip6",)


def is_any(mapping: PortMapping) -> bool:
    """Whether a port is published on every address of the host (of a family)."""
    return not mapping.host_ip or ipaddress.ip_address(mapping.host_ip).is_unspecified


def describe(mapping: PortMapping) -> str:
    """ "8080/tcp", "127.0.0.1:53/udp", "[::1]:53/udp"."""
    ip = f"[{mapping.host_ip}]" if ":" in mapping.host_ip else mapping.host_ip
    return f"{ip}:{mapping.host_port}/{mapping.protocol}" if ip else f"{mapping.host_port}/{mapping.protocol}"


def _mapping(mapping: PortMapping, address: Address) -> Iterator[Element]:
    for family in families_of(mapping):
        inside = ipaddress.ip_address(address.ipv4 if family == "ip" else address.ipv6)
        data, data_text = inside.packed + port(mapping.port), f"{inside} . {mapping.port}"
        if is_any(mapping):
            key = protocol(mapping.protocol) + port(mapping.host_port)
            text, sets = f"{mapping.protocol} . {mapping.host_port}", ("any_ports", "any_claimed")
        else:
            host = ipaddress.ip_address(mapping.host_ip)
            key = protocol(mapping.protocol) + host.packed + port(mapping.host_port)
            text, sets = f"{mapping.protocol} . {host} . {mapping.host_port}", ("ports", "claimed")
        yield Element(family, sets[0], f"{text} : {data_text}", key, data)
        yield Element(family, sets[1], text, key)
