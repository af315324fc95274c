"""Networks of a fleet on a host: what is announced, believed and told to WireGuard. Pure parts."""

from __future__ import annotations

import ipaddress

import pytest

from bulkhead.config import Config
from bulkhead.errors import Conflict
from bulkhead.model import Network
from bulkhead.network import hops, rules, wireguard
from bulkhead.network.addresses import address_at, address_of, choose_subnets
from bulkhead.network.announcing import announcement
from bulkhead.overlay import Endpoint, Overlay
from tests.integration.frames import advertisement

CONFIG = Config(link_prefix="zz", nft_table="it")
OVERLAY = Overlay(vni=0xABCDE, mtu=1450, encrypted=False)
NETWORK = Network(name="n", id="010abcde", subnet4="10.145.3.0/24", subnet6="fd42:b01d:0:3::/64", overlay=OVERLAY)
KEY = "A" * 43 + "="
TAKEN = ipaddress.ip_network("10.9.8.0/30")


def endpoint(number: int, address: str = "", **fields: object) -> Endpoint:
    made = {"host": f"{number:032x}", "number": number, "address": address or f"192.0.2.{number}", "mtu": 1500}
    return Endpoint.model_validate({**made, **fields})


def test_an_address_follows_from_its_ipv4_part() -> None:
    assert address_at(NETWORK, "10.145.3.7") == address_of(NETWORK, 7)
    assert address_at(NETWORK, "10.145.3.7").mtu == 1450
    for wrong in ("10.145.3.0", "10.145.3.1", "10.145.3.255", "10.145.4.7", "10.144.3.7"):
        with pytest.raises(Conflict, match="is no address of an instance"):
            address_at(NETWORK, wrong)


def test_a_fleet_s_networks_have_a_pool_of_their_own() -> None:
    assert choose_subnets(CONFIG, [], None, None, fleet=True) == ("10.145.0.0/24", "fd42:b01d::/64")
    assert choose_subnets(CONFIG, [], None, None) == ("10.144.0.0/24", "fd42:b01c::/64")
    with pytest.raises(Conflict) as error:
        choose_subnets(Config(fleet_subnet_pool4="10.9.8.0/30"), [(TAKEN, "somebody")], None, None, fleet=True)
    assert "fleet_subnet_pool4" in error.value.hint


def test_where_an_address_is_now() -> None:
    address = address_of(NETWORK, 7)
    arp, neighbour = announcement(address)
    assert arp == bytes.fromhex(
        "ffffffffffff 02680a910307 0806 0001 0800 06 04 0001 02680a910307 0a910307 000000000000 0a910307"
    )
    # The same as another hand has made it, but for to whom, and how it is meant: an override without a question.
    assert neighbour[:14] == bytes.fromhex("333300000001 02680a910307 86dd")
    assert neighbour[14:] == advertisement(address.ipv6, address.mac, address.ipv6)


def test_the_gateway_stays_on_its_host() -> None:
    made = rules.network_elements(CONFIG, NETWORK)[-1]
    assert (made.family, made.set, made.text) == ("bridge", "gateways", "02:68:0a:91:03:01")
    text = rules.ruleset(CONFIG)
    assert 'iifname "zzx*" ether saddr @gateways drop' in text
    assert 'oifname "zzx*" ether saddr @gateways drop' in text


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_what_hosts_send_each_other_is_theirs_alone(family: str) -> None:
    (table,) = [part for part in rules.ruleset(CONFIG).split("\ntable ") if part.startswith(f"{family} ")]
    assert 'iifname "zz-*" udp dport { 8474, 8475 } drop' in table
    assert f"udp dport 8474 fib daddr type local {family} saddr != @members drop" in table
    assert 'udp dport 8475 fib daddr type local iifname != "zzwg" drop' in table
    assert "udp dport { 8474, 8475 } meta skuid 0-4294967294 drop" in table


def test_who_is_believed() -> None:
    made = rules.member_elements([endpoint(1).ip, endpoint(2, "2001:db8::2").ip])
    assert [(each.family, each.set, each.text, each.key) for each in made] == [
        ("ip", "members", "192.0.2.1", bytes([192, 0, 2, 1])),
        ("ip6", "members", "2001:db8::2", bytes.fromhex("20010db8000000000000000000000002")),
    ]


def test_how_large_a_packet_may_be() -> None:
    assert endpoint(1).room(encrypted=False) == 1450
    assert endpoint(1).room(encrypted=True) == 1370
    assert endpoint(1, "2001:db8::1").room(encrypted=False) == 1430
    assert endpoint(1, "2001:db8::1", mtu=9000).room(encrypted=True) == 8850


def test_wireguard_takes_from_each_host_what_has_its_own_address_alone() -> None:
    others = [endpoint(2, key=KEY), endpoint(3, problem="none"), endpoint(300, "2001:db8::4", key=KEY.lower())]
    assert wireguard.configuration("SECRET", 8476, others) == (
        "[Interface]\nPrivateKey = SECRET\nListenPort = 8476\n"
        f"[Peer]\nPublicKey = {KEY}\nAllowedIPs = fd42:b01c:ffff::2/128\nEndpoint = 192.0.2.2:8476\n"
        f"[Peer]\nPublicKey = {KEY.lower()}\nAllowedIPs = fd42:b01c:ffff::12c/128\nEndpoint = [2001:db8::4]:8476\n"
    )


def test_hosts_are_reached_by_what_follows_from_their_numbers() -> None:
    assert str(hops.carrier(endpoint(7), encrypted=False)) == "192.0.2.7"
    assert str(hops.carrier(endpoint(7), encrypted=True)) == "fd42:b01c:ffff::7"
    assert [hops.port_of(CONFIG, encrypted=each) for each in (False, True)] == [8474, 8475]
