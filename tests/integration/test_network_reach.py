"""Who reaches whom, and who does not."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

import pytest

from bulkhead.host import namespaces
from bulkhead.model import PortMapping
from tests.integration.network_lab import (
    LOST,
    PROTOCOLS,
    ask_here,
    ask_outside,
    connector,
    ip,
    lab,
    private,
    published,
    serve,
    set_bridge_filter,
)


@private
def test_instances_of_one_network(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = host.network()
        one, other = host.box(network), host.box(network)
        other.serve()
        for protocol in PROTOCOLS:
            assert one.ask(other.address.ipv4, 80, protocol) == one.address.ipv4
            assert one.ask(other.address.ipv6, 80, protocol) == one.address.ipv6
        for address in (other.address.ipv4, other.address.ipv6, one.address.gateway4, one.address.gateway6):
            one.run("python3", "-c", PING, address)


PING = """
import socket, sys
six = ":" in sys.argv[1]
family, kind, answer = (socket.AF_INET6, 128, 129) if six else (socket.AF_INET, 8, 0)
ping = socket.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP)
ping.settimeout(3)
ping.sendto(bytes([kind]) + bytes(7) + b"x", (sys.argv[1], 0))
assert ping.recv(100)[0] == answer
"""
"""With a socket that needs no capability."""


@private
def test_outgoing_connections_carry_the_hosts_address(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        box = host.box(host.network())
        namespaces.inside(host.outside.descriptor, lambda: serve(7))
        for protocol in PROTOCOLS:
            assert box.ask(host.outside.outside4, 7, protocol) == host.outside.inside4
            assert box.ask(host.outside.outside6, 7, protocol) == host.outside.inside6


BRIDGE_FILTER = pytest.mark.parametrize("bridge_filter", ["0", "1"])
"""Whether what stays on a bridge passes the host's ip chains as well; without br_netfilter it never does."""


@BRIDGE_FILTER
@private
def test_published_ports_from_everywhere(tmp_path: Path, bridge_filter: str) -> None:
    with lab(tmp_path) as host:
        set_bridge_filter(bridge_filter)
        network = host.network()
        box, other, elsewhere = host.box(network), host.box(network), host.box(host.network("second"))
        published(host, box)
        out = host.outside
        for protocol in PROTOCOLS:
            # From outside, with the client's own address; from the host; from instances, itself among them.
            assert ask_outside(host, out.inside4, 8080, protocol) == out.outside4
            assert ask_outside(host, out.inside6, 8080, protocol) == out.outside6
            assert ask_here("127.0.0.1", 8080, protocol) == box.address.gateway4
            assert ask_here("127.0.0.9", 8080, protocol) == box.address.gateway4
            assert ask_here(out.inside4, 8080, protocol) == out.inside4
            assert ask_here(out.inside6, 8080, protocol) == out.inside6
            for client in (box, other, elsewhere):
                assert client.ask(out.inside4, 8080, protocol) == box.address.gateway4
                assert client.ask(out.inside6, 8080, protocol) == box.address.gateway6
                assert client.ask(client.address.gateway4, 8080, protocol) == box.address.gateway4
        assert ask_here("::1", 8080) == "refused"
        # Large datagrams come in pieces.
        assert ask_outside(host, out.inside4, 8080, "udp", data=bytes(5000)) == out.outside4
        assert ask_here("127.0.0.1", 8080, "udp", data=bytes(5000)) == box.address.gateway4
        host.networks.unpublish(box.id)
        assert ask_outside(host, out.inside4, 8080) == "refused"
        assert ask_here("127.0.0.1", 8080) == "refused"


@private
def test_published_through_forward_alone(tmp_path: Path) -> None:
    with lab(tmp_path, published_ports="forward") as host:
        network = host.network()
        box, other = host.box(network), host.box(network)
        published(host, box)
        out = host.outside
        for protocol in PROTOCOLS:
            assert ask_outside(host, out.inside4, 8080, protocol) == out.outside4
            assert ask_outside(host, out.inside6, 8080, protocol) == out.outside6
            assert ask_here("127.0.0.1", 8080, protocol) == box.address.gateway4
            assert ask_here(out.inside6, 8080, protocol) == out.inside6
            assert other.ask(out.inside4, 8080, protocol) == box.address.gateway4
            assert box.ask(out.inside4, 8080, protocol) == box.address.gateway4


@private
def test_published_on_one_address(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        box = host.box(host.network())
        box.serve()
        out = host.outside
        ports = [
            PortMapping(host_ip="127.0.0.1", host_port=81, port=80),
            PortMapping(host_ip=out.inside6, host_port=82, port=80),
            PortMapping(host_ip="0.0.0.0", host_port=83, port=80),
        ]
        host.networks.publish(box.id, box.address, ports)
        assert ask_here("127.0.0.1", 81) == box.address.gateway4
        assert ask_outside(host, out.inside4, 81) == "refused"
        assert ask_outside(host, out.inside6, 82) == out.outside6
        assert ask_outside(host, out.inside4, 82) == "refused"
        assert ask_outside(host, out.inside4, 83) == out.outside4
        assert ask_outside(host, out.inside6, 83) == "refused"


@BRIDGE_FILTER
@private
def test_networks_are_apart(tmp_path: Path, bridge_filter: str) -> None:
    with lab(tmp_path) as host:
        set_bridge_filter(bridge_filter)
        one, other = host.box(host.network("one")), host.box(host.network("two"))
        other.serve()
        threading.Thread(target=serve, args=(99,), daemon=True).start()  # the host's own, on every address
        for protocol in PROTOCOLS:
            assert one.ask(other.address.ipv4, 80, protocol, patience=LOST) == "timeout"
            assert one.ask(other.address.ipv6, 80, protocol, patience=LOST) == "timeout"
        assert one.ask(one.address.gateway4, 99) == one.address.ipv4
        assert one.ask(other.address.gateway4, 99, patience=LOST) == "timeout"
        assert one.ask(other.address.gateway6, 99, patience=LOST) == "timeout"
        # Somebody outside who knows the way to the subnets.
        out = host.outside
        for target, via in ((other.address.ipv4, out.inside4), (other.address.ipv6, out.inside6)):
            namespaces.inside(out.descriptor, partial(ip, f"route add {target} via {via}"))
        assert ask_outside(host, other.address.ipv4, 80, patience=LOST) == "timeout"
        assert ask_outside(host, other.address.ipv6, 80, patience=LOST) == "timeout"
        assert ask_here(other.address.ipv4, 80) == other.address.gateway4


@private
def test_services_on_the_hosts_loopback_are_out_of_reach(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        box = host.box(host.network())
        serve(99)
        gateway = box.address.gateway4
        box.run("ip", "address", "del", "127.0.0.1/8", "dev", "lo")
        box.run("ip", "route", "add", "127.0.0.0/8", "via", gateway)
        # A setting that no instance can change; a machine of its own could.
        box.inside(lambda: namespaces.set_sysctls({"ipv4/conf/all/route_localnet": "1"}))
        assert box.ask("127.0.0.1", 99, patience=LOST) == "timeout"


@private
def test_the_host_forwards_nothing_that_it_did_not_before(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        far_fd, _ = namespaces.make(lambda descriptor: None)
        host.stack.callback(os.close, far_fd)
        ip(f"link add side type veth peer name far netns /proc/{os.getpid()}/fd/{far_fd}")  # an uplink more
        ip("address add 198.18.0.1/24 dev side")
        ip("link set side up")

        def address() -> None:
            for words in ("address add 198.18.0.2/24 dev far", "link set far up", "route add default via 198.18.0.1"):
                ip(words)
            serve(80)

        namespaces.inside(far_fd, address)
        assert ask_here("198.18.0.2", 80) == "198.18.0.1"
        route = f"route add 198.18.0.0/24 via {host.outside.inside4}"
        namespaces.inside(host.outside.descriptor, lambda: ip(route))
        assert ask_outside(host, "198.18.0.2", 80, patience=LOST) == "timeout"
        box = host.box(host.network())
        assert ask_outside(host, "198.18.0.2", 80, patience=LOST) == "timeout"
        assert box.ask("198.18.0.2", 80) == "198.18.0.1"


@private
def test_a_client_that_keeps_sending_reaches_the_next_instance(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = host.network()
        first, second = host.box(network), host.box(network)
        published(host, first)
        client = connector(
            lambda make: namespaces.inside(host.outside.descriptor, make), host.outside.inside4, 8080, "udp"
        )()
        with client:
            client.send(b"one")
            assert client.recv(100)
            host.networks.unpublish(first.id)
            host.networks.disconnect(first.link)
            published(host, second)
            client.settimeout(0.1)
            for _ in range(100):
                try:
                    client.send(b"two")
                    assert client.recv(100)
                    break
                except (TimeoutError, ConnectionRefusedError):
                    continue
            else:
                raise AssertionError("still sent to the instance that has gone")
