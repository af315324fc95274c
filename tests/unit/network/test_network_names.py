"""What dnsmasq is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.config import Config
from bulkhead.model import Network
from bulkhead.network import names
from bulkhead.network.addresses import address_of

NETWORK = Network(name="n", id="0badcafe", subnet4="10.144.3.0/24", subnet6="fd42:b01c:0:3::/64")


def test_the_hosts_file() -> None:
    text = names.hosts_file([("web", address_of(NETWORK, 3)), ("db", address_of(NETWORK, 2))])
    assert text == (
        "10.144.3.2\tdb db.bulkhead\n"
        "fd42:b01c:0:3::2\tdb db.bulkhead\n"
        "10.144.3.3\tweb web.bulkhead\n"
        "fd42:b01c:0:3::3\tweb web.bulkhead\n"
    )
    assert names.hosts_file([]) == ""


def test_the_command() -> None:
    words = names.command(Config(), NETWORK, hosts=Path("/h"), askers=Path("/a"), pid_file=Path("/p"))
    assert words[0] == "dnsmasq"
    for word in (
        "--conf-file=",
        "--pid-file=/p",
        "--interface=bh-0badcafe",
        "--bind-interfaces",
        "--no-hosts",
        "--addn-hosts=/h",
        "--local=/bulkhead/",
        "--local=/3.144.10.in-addr.arpa/",
        "--local=/3.0.0.0.0.0.0.0.c.1.0.b.2.4.d.f.ip6.arpa/",
        "--user=nobody",
    ):
        assert word in words


@pytest.mark.parametrize(
    ("subnet", "zone"),
    [
        ("10.0.0.0/8", "10.in-addr.arpa"),
        ("10.9.0.0/16", "9.10.in-addr.arpa"),
        ("10.9.8.0/25", ""),
        ("fd00::/16", "0.0.d.f.ip6.arpa"),
        ("fd00::/63", ""),
    ],
)
def test_reverse_zones(subnet: str, zone: str) -> None:
    assert names.reverse_zone(subnet) == zone
