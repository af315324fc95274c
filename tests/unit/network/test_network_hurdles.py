"""What is said of the host's own firewall."""

from __future__ import annotations

from bulkhead.config import Config
from bulkhead.host.nftables import BaseChain
from bulkhead.network.hurdles import hurdles


def test_chains_that_drop_by_default() -> None:
    chains = [
        BaseChain("ip", "filter", "FORWARD", "forward", "drop"),
        BaseChain("inet", "mine", "in", "input", "drop"),
        BaseChain("inet", "mine", "pass", "forward", "drop"),
        BaseChain("inet", "mine", "out", "output", "drop"),
        BaseChain("ip6", "filter", "FORWARD", "forward", "accept"),
        BaseChain("ip", "bulkhead", "forward", "forward", "drop"),
        BaseChain("bridge", "other", "forward", "forward", "drop"),
    ]
    said = hurdles(chains, Config())
    assert [each.what.split(" chain ")[1].partition(" ")[0] for each in said] == ["ip", "inet", "inet"]
    assert said[0].hint.startswith("iptables -I DOCKER-USER -i bh-+ -j ACCEPT")
    allowed = "meta l4proto { tcp, udp } th dport { 53, 67 } accept"
    assert said[1].hint == f'nft add rule inet mine in iifname "bh-*" {allowed}'
    assert 'nft add rule inet mine pass iifname "bh-*" accept' in said[2].hint
