"""The packet filter's text and elements."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from bulkhead.config import Config
from bulkhead.host.nftables import Element, elements
from bulkhead.model import Network, PortMapping
from bulkhead.network import ports, rules
from bulkhead.network.addresses import address_of

CONFIG = Config(link_prefix="zz", nft_table="it")
NETWORK = Network(name="n", id="0badcafe", subnet4="10.144.3.0/24", subnet6="fd42:b01c:0:3::/64")
ADDRESS = address_of(NETWORK, 5)


def mapping(
    ip: str = "", host_port: int = 8080, protocol: Literal["tcp", "udp"] = "tcp", port: int = 80
) -> PortMapping:
    """A published port."""
    return PortMapping(host_ip=ip, host_port=host_port, protocol=protocol, port=port)


@pytest.mark.parametrize("mode", ["input", "forward"])
def test_only_our_tables_are_named_and_nothing_is_accepted_for_the_host(mode: Literal["input", "forward"]) -> None:
    text = rules.ruleset(CONFIG.model_copy(update={"published_ports": mode}))
    for line in text.splitlines():
        if line.startswith(("table", "add table", "delete table")):
            assert line.removesuffix(" {").split()[-1] == "it"
    assert "{" + "{" not in text
    assert ("zzout" in text) == (mode == "input")
    assert "bh" not in text.replace("neighbours", "")
    # Base chains let pass what they do not drop: whether it comes in is for the host's chains to say.
    assert text.count("policy accept;") == text.count("type filter hook") + text.count("type nat hook")


def test_ports_on_every_address() -> None:
    published = rules.Published("1" * 32, ADDRESS, (mapping(),))
    assert [(each.family, each.set, each.text) for each in rules.port_elements(published)] == [
        ("ip", "any_ports", "tcp . 8080 : 10.144.3.5 . 80"),
        ("ip", "any_claimed", "tcp . 8080"),
        ("ip6", "any_ports", "tcp . 8080 : fd42:b01c:0:3::5 . 80"),
        ("ip6", "any_claimed", "tcp . 8080"),
    ]
    first = rules.port_elements(published)[0]
    assert first.key == bytes([6, 0, 0, 0]) + bytes([0x1F, 0x90, 0, 0])
    assert first.data == bytes([10, 144, 3, 5]) + bytes([0, 80, 0, 0])


def test_ports_on_one_address() -> None:
    mappings = (mapping("127.0.0.1", 53, "udp", 5353), mapping("::1"), mapping("0.0.0.0"), mapping("::", 9))
    published = rules.Published("1" * 32, ADDRESS, mappings)
    assert [(each.family, each.set, each.text) for each in rules.port_elements(published)] == [
        ("ip", "ports", "udp . 127.0.0.1 . 53 : 10.144.3.5 . 5353"),
        ("ip", "claimed", "udp . 127.0.0.1 . 53"),
        ("ip6", "ports", "tcp . ::1 . 8080 : fd42:b01c:0:3::5 . 80"),
        ("ip6", "claimed", "tcp . ::1 . 8080"),
        ("ip", "any_ports", "tcp . 8080 : 10.144.3.5 . 80"),
        ("ip", "any_claimed", "tcp . 8080"),
        ("ip6", "any_ports", "tcp . 9 : fd42:b01c:0:3::5 . 80"),
        ("ip6", "any_claimed", "tcp . 9"),
    ]


def test_what_an_instance_may_send_as() -> None:
    made = rules.sender_elements("zzv00000001", ADDRESS)
    assert [(each.set, each.text) for each in made] == [
        ("senders4", '"zzv00000001" . 02:68:0a:90:03:05 . 10.144.3.5'),
        ("senders6", '"zzv00000001" . 02:68:0a:90:03:05 . fd42:b01c:0:3::5'),
        ("targets6", '"zzv00000001" . 02:68:0a:90:03:05 . 0xfd42b01c000000030000000000000005'),
    ]
    assert made[0].key == b"zzv00000001".ljust(16, b"\0") + bytes.fromhex("02680a900305 0000 0a900305")


def test_of_a_network_and_of_links_that_stay_apart() -> None:
    assert [each.text for each in rules.network_elements(CONFIG, NETWORK)] == [
        "10.144.3.0/24",
        "10.144.3.1",
        '"zz-0badcafe" . "zz-0badcafe"',
        "fd42:b01c:0:3::/64",
        "fd42:b01c:0:3::1",
        '"zz-0badcafe" . "zz-0badcafe"',
    ]
    closed = rules.closed_elements({"ip": ("eth0", "eth1"), "ip6": ()})
    assert "".join(each.script("add", "it") for each in closed) == (
        'add element ip it closed { "eth0" }\nadd element ip it closed { "eth1" }\n'
    )


def test_elements_are_read_back_as_they_are_written() -> None:
    said: list[dict[str, Any]] = [
        {
            "set": {
                "family": "ip",
                "name": "s",
                "type": "ipv4_addr",
                "elem": [{"prefix": {"addr": "10.0.0.0", "len": 8}}],
            }
        },
        {"set": {"family": "ip", "name": "empty", "type": "ifname"}},
        {"set": {"family": "ip", "name": "l", "type": ["ifname", "ifname"], "elem": [{"concat": ["a", "b"]}]}},
        {
            "map": {
                "family": "ip",
                "name": "m",
                "type": ["inet_proto", "inet_service"],
                "map": "ipv4_addr . inet_service",
                "elem": [[{"concat": ["tcp", 80]}, {"concat": ["10.0.0.1", 81]}]],
            }
        },
    ]
    assert elements(said) == {
        Element("ip", "s", "10.0.0.0/8"),
        Element("ip", "l", '"a" . "b"'),
        Element("ip", "m", "tcp . 80 : 10.0.0.1 . 81"),
    }


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (mapping(), mapping(), True),
        (mapping(), mapping(protocol="udp"), False),
        (mapping(), mapping(host_port=81), False),
        (mapping(), mapping("127.0.0.1"), True),
        (mapping("0.0.0.0"), mapping("::1"), False),
        (mapping("::"), mapping("0.0.0.0"), False),
        (mapping("::"), mapping("::1"), True),
        (mapping("127.0.0.1"), mapping("127.0.0.2"), False),
        (mapping("::1"), mapping("0:0::1"), True),
    ],
)
def test_ports_that_overlap(one: PortMapping, other: PortMapping, clash: bool) -> None:
    assert ports.overlap(one, other) == ports.overlap(other, one) == clash


def test_ports_that_cannot_be_are_all_named() -> None:
    said = ports.problems([mapping("nonsense"), mapping("224.0.0.1"), mapping("1.2.3")], {}, CONFIG)
    assert [each.what for each in said] == [
        "port nonsense:8080/tcp: 'nonsense' is not an IP address",
        "port 224.0.0.1:8080/tcp: 224.0.0.1 is a multicast address",
        "port 1.2.3:8080/tcp: '1.2.3' is not an IP address",
    ]
    said = ports.problems([mapping(port=80), mapping("2001:db8::1", port=81), mapping(protocol="udp")], {}, CONFIG)
    assert [each.what for each in said] == ["port [2001:db8::1]:8080/tcp is asked for twice: to 80 and to 81"]


def test_addresses_that_nothing_can_be_published_on() -> None:
    wanted = [mapping(ip) for ip in ("::1", "0:0::1", "::ffff:127.0.0.1", "ff02::1", "224.0.0.1", "x")]
    found = list(ports.malformed([*wanted, mapping(), mapping("::"), mapping("127.0.0.1"), mapping("2001:db8::1")]))
    assert len(found) == len(wanted)
    assert all(each.hint for each in found)
    assert "-p 127.0.0.1:8080:80" in found[0].hint
    assert found[2].hint == "127.0.0.1"


def test_what_rules_put_into_sets_is_nobodys_leftover() -> None:
    """Sets that the packet path fills are read past: they are no elements of ours to be removed."""
    counted = {"val": "10.144.3.5", "ct count": {"val": 8192, "inv": True}}
    sets = [
        {"set": {"family": "ip", "name": "talkers", "type": "ipv4_addr", "elem": [{"elem": counted}]}},
        {"set": {"family": "ip", "name": "gateways", "type": "ipv4_addr", "elem": ["10.144.3.1"]}},
    ]
    assert elements(sets) == {Element("ip", "gateways", "10.144.3.1")}


def test_connections_are_counted_by_who_opens_them() -> None:
    """Both those through the host and those to it, in the same set."""
    text = rules.ruleset(CONFIG.model_copy(update={"connections": 77}))
    assert text.count("ct count over 77") == 2
    assert text.count('iifname "zz-*" ct state new jump counted') == 4
