"""What the host's own firewall says counts for published ports as well."""

from __future__ import annotations

from pathlib import Path

from tests.integration.network_lab import LOST, PATIENCE, PROTOCOLS, ask_here, ask_outside, lab, nft, private, published


def host_rules(chain: str, rule: str) -> str:
    """A firewall of the host's, of one rule. (Its table is replaced.)"""
    return f"""
        table inet firewall {{ }}
        delete table inet firewall
        table inet firewall {{
            chain it {{
                type filter hook {chain} priority filter; policy accept;
                {rule}
            }}
        }}
    """


@private
def test_the_hosts_firewall_judges_published_ports(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        box = host.box(host.network())
        published(host, box)
        out = host.outside

        def everything(patience: float = LOST) -> set[str]:
            outcomes = set()
            for protocol in PROTOCOLS:
                for address, client in ((out.inside4, out.outside4), (out.inside6, out.outside6)):
                    said = ask_outside(host, address, 8080, protocol, patience=patience)
                    outcomes.add(said.replace(client, "fine"))
                said = ask_here("127.0.0.1", 8080, protocol, patience=patience)
                outcomes.add(said.replace(box.address.gateway4, "fine"))
            return outcomes

        # What a program of the host on port 8080 would be judged by.
        nft(host_rules("input", "meta l4proto { tcp, udp } th dport 8080 drop"))
        assert everything() == {"timeout"}
        nft(host_rules("input", "iifname uplink meta l4proto { tcp, udp } th dport 8080 drop"))
        assert ask_outside(host, out.inside4, 8080, patience=LOST) == "timeout"
        assert ask_here("127.0.0.1", 8080) == box.address.gateway4
        nft(host_rules("input", f"ip saddr {out.outside4} reject with icmp port-unreachable"))
        assert ask_outside(host, out.inside4, 8080) == "refused"
        # What a router would judge it by.
        nft(host_rules("forward", f'oifname "{host.config.link_prefix}-*" meta l4proto {{ tcp, udp }} drop'))
        assert everything() == {"timeout"}
        nft(host_rules("forward", f"ip daddr {box.address.ipv4} th dport 80 drop"))
        assert ask_outside(host, out.inside4, 8080, patience=LOST) == "timeout"
        # A strict but ordinary firewall that lets the port in.
        nft(
            host_rules(
                "input",
                """ct state established,related accept
                iif lo accept
                ct state invalid drop
                icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
                meta l4proto { tcp, udp } th dport 8080 accept
                drop""",
            )
        )
        assert everything(PATIENCE) == {"fine"}


@private
def test_a_firewall_in_the_way_is_named(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        box = host.box(host.network())
        published(host, box)
        assert host.networks.hurdles() == []
        nft("table inet firewall { chain it { type filter hook forward priority filter; policy drop; }; }")
        assert ask_outside(host, host.outside.inside4, 8080, patience=LOST) == "timeout"
        [problem] = host.networks.hurdles()
        assert "inet firewall it" in problem.what
        for command in problem.hint.split("; "):
            nft(command.removeprefix("nft "))
        assert ask_outside(host, host.outside.inside4, 8080) == host.outside.outside4
