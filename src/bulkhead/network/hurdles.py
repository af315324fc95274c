"""What of the host's own firewall may stand in the way of instances. Bulkhead changes nothing of it, and says so."""

from __future__ import annotations

from collections.abc import Iterable

from bulkhead.config import Config
from bulkhead.errors import Problem
from bulkhead.host.nftables import BaseChain


def hurdles(chains: Iterable[BaseChain], config: Config) -> list[Problem]:
    """Chains of others that drop what no rule of theirs lets through, and how to let instances through. Pure.

    Whether such a rule is there already is not looked into.
    """
    found = []
    bridges = f"{config.link_prefix}-"
    for chain in chains:
        if chain.policy != "drop" or chain.table == config.nft_table or chain.family not in ("ip", "ip6", "inet"):
            continue
        where = f"{chain.family} {chain.table} {chain.name}"
        if chain.hook == "forward":
            found.append(
                Problem(
                    f"the host's chain {where} forwards nothing that it has no rule for: instances do not reach the "
                    "outside, nor does anybody reach their published ports",
                    _let_forward(chain, bridges),
                )
            )
        elif chain.hook == "input":
            found.append(
                Problem(
                    f"the host's chain {where} lets nothing in that it has no rule for: neither to published ports, "
                    "nor from instances to what tells them names and addresses",
                    f'nft add rule {where} iifname "{bridges}*" meta l4proto {{ tcp, udp }} '
                    "th dport { 53, 67 } accept",
                )
            )
    return found


def _let_forward(chain: BaseChain, bridges: str) -> str:
    if (chain.table, chain.name) == ("filter", "FORWARD"):  # iptables; docker keeps a chain for rules of others
        program = "iptables" if chain.family == "ip" else "ip6tables"
        return f"{program} -I DOCKER-USER -i {bridges}+ -j ACCEPT; {program} -I DOCKER-USER -o {bridges}+ -j ACCEPT"
    where = f"{chain.family} {chain.table} {chain.name}"
    return f'nft add rule {where} iifname "{bridges}*" accept; nft add rule {where} oifname "{bridges}*" accept'
