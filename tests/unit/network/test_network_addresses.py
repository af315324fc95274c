"""Subnets and addresses."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.config import Config
from bulkhead.errors import Conflict, Refused
from bulkhead.model import Network
from bulkhead.network import addresses
from bulkhead.network.addresses import IpNetwork

CONFIG = Config()


def network(subnet4: str = "10.144.3.0/24", subnet6: str = "fd42:b01c:0:3::/64") -> Network:
    """A network with these subnets."""
    return Network(name="n", id="00000001", subnet4=subnet4, subnet6=subnet6)


def used(*subnets: str) -> list[tuple[IpNetwork, str]]:
    """Subnets that somebody has."""
    return [(ipaddress.ip_network(subnet), "somebody") for subnet in subnets]


def test_an_address_has_the_same_number_in_both_subnets() -> None:
    address = addresses.address_of(network(), 5)
    assert (address.ipv4, address.prefix4, address.gateway4) == ("10.144.3.5", 24, "10.144.3.1")
    assert (address.ipv6, address.prefix6, address.gateway6) == ("fd42:b01c:0:3::5", 64, "fd42:b01c:0:3::1")
    assert address.mac == "02:68:0a:90:03:05"


@pytest.mark.parametrize("prefix", ["a", "bulk"])
def test_names_of_links_fit(prefix: str) -> None:
    config = Config(link_prefix=prefix)
    names = {addresses.new_link_name(config) for _ in range(10)} | {addresses.bridge_name(config, network())}
    assert len(names) == 11
    assert max(map(len, names)) <= 15


@settings(deadline=None)
@given(st.integers(min_value=24, max_value=30), st.data())
def test_every_address_is_given_out_once(prefix: int, data: st.DataObject) -> None:
    subnet = network(f"10.144.3.0/{prefix}")
    whole = list(ipaddress.IPv4Network(subnet.subnet4).hosts())[1:]
    taken: set[str] = set()
    last = data.draw(st.integers(min_value=1, max_value=len(whole) + 1))
    for _ in whole:
        last = addresses.choose_offset(subnet, taken, last)
        ipv4 = addresses.address_of(subnet, last).ipv4
        assert ipaddress.IPv4Address(ipv4) in whole
        assert ipv4 not in taken
        taken.add(ipv4)
    with pytest.raises(Conflict, match="no free address"):
        addresses.choose_offset(subnet, taken, last)


def test_an_address_rests_before_it_is_used_again() -> None:
    assert addresses.choose_offset(network(), set(), 1) == 2
    assert addresses.choose_offset(network(), set(), 2) == 3
    assert addresses.choose_offset(network(), set(), 254) == 2


def test_the_first_free_subnets_of_the_pools() -> None:
    assert addresses.choose_subnets(CONFIG, [], None, None) == ("10.144.0.0/24", "fd42:b01c::/64")
    busy = used("10.144.0.0/23", "10.144.2.128/25", "fd42:b01c::/63", "0.0.0.0/32")
    assert addresses.choose_subnets(CONFIG, busy, None, None) == ("10.144.3.0/24", "fd42:b01c:0:2::/64")
    assert addresses.choose_subnets(CONFIG, [], "172.20.0.0/16", None) == ("172.20.0.0/16", "fd42:b01c::/64")
    small = Config(subnet_pool4="10.9.8.0/28")
    assert addresses.choose_subnets(small, [], None, None)[0] == "10.9.8.0/28"


def test_a_pool_that_is_used_up() -> None:
    with pytest.raises(Conflict, match=r"every subnet of 10\.144\.0\.0/16 overlaps") as error:
        addresses.choose_subnets(CONFIG, used("10.0.0.0/8"), None, None)
    assert "subnet_pool4" in error.value.hint


@pytest.mark.parametrize("pool", ["10.0.0.0", "fd00::/48", "nonsense", "10.0.0.1/8"])
def test_a_pool_that_is_none(pool: str) -> None:
    with pytest.raises(Refused, match="subnet_pool4"):
        addresses.choose_subnets(Config(subnet_pool4=pool), [], None, None)


@pytest.mark.parametrize(
    ("subnet4", "subnet6", "said"),
    [
        ("10.0.0.1/24", None, ["has host bits set"]),
        ("10.0.0.0/31", None, ["between /8 and /30"]),
        ("10.0.0.0/7", None, ["between /8 and /30"]),
        ("0.0.0.0/0", None, ["between /8 and /30"]),
        ("fd00::/64", None, ["is not IPv4"]),
        ("nonsense", "nonsense", ["does not appear", "does not appear"]),
        ("127.0.0.0/24", "fe80::/64", ["meaning of its own", "meaning of its own"]),
        ("224.0.0.0/24", "ff00::/64", ["meaning of its own", "meaning of its own"]),
        (None, "10.0.0.0/24", ["is not IPv6"]),
        (None, "fd00::/126", ["between /16 and /124"]),
        ("10.0.0.0/16", "fd00::/120", ["fewer addresses"]),
    ],
)
def test_subnets_that_cannot_be(subnet4: str | None, subnet6: str | None, said: list[str]) -> None:
    with pytest.raises(Refused) as error:
        addresses.choose_subnets(CONFIG, [], subnet4, subnet6)
    assert len(error.value.problems) == len(said)
    for problem, part in zip(error.value.problems, said, strict=True):
        assert part in problem.what
        assert problem.hint


def test_every_clash_is_named() -> None:
    busy = [*used("10.9.0.0/16"), *addresses.used_by([network("10.9.8.0/24", "fd09::/64")])]
    with pytest.raises(Conflict) as error:
        addresses.choose_subnets(CONFIG, busy, "10.9.8.0/25", "fd09::/96")
    assert error.value.what == (
        "subnet 10.9.8.0/25 overlaps 10.9.0.0/16 (somebody); "
        "subnet 10.9.8.0/25 overlaps 10.9.8.0/24 (network n); "
        "subnet fd09::/96 overlaps fd09::/64 (network n)"
    )
