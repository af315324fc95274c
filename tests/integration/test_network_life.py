"""Coming up, going down, and being found again after a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from bulkhead.errors import Conflict, Unavailable
from bulkhead.host import links, processes
from bulkhead.host.netlink import Netlink
from bulkhead.model import Network, PortMapping
from bulkhead.network import Networks, Running
from bulkhead.network.names import Names
from tests.integration.network_lab import (
    WEB,
    Box,
    Lab,
    ask_outside,
    eventually,
    ip,
    lab,
    nft,
    private,
    published,
    serve,
    setting,
)

FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


def state(host: Lab) -> dict[str, Any]:
    """Everything that networks could leave on a host."""
    with Netlink() as netlink:
        names = sorted(link.name for link in links.find_all(netlink))
        routes = sorted(str(route) for route, _ in links.routes(netlink) if not route.is_link_local)
    said = json.loads(subprocess.run(["nft", "-j", "list", "ruleset"], check=True, capture_output=True).stdout)
    settings = {
        str(path): path.read_text()
        for family in ("ipv4", "ipv6")
        for path in Path(f"/proc/sys/net/{family}").rglob("*")
        if path.name in ("forwarding", "ip_forward", "accept_ra", "route_localnet", "rp_filter")
    }
    run = sorted(str(path) for path in host.config.run_dir.rglob("*") if path.is_file())
    return {
        "links": names,
        "routes": routes,
        "rules": [_lasting(each) for each in said["nftables"] if "metainfo" not in each],
        "settings": settings,
        "files": run + sorted(str(path) for path in Path("/run").rglob("*")),
        "servers": [pid for pid in name_servers() if processes.start_time(pid)],
    }


def _lasting(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule, chain or set without what packets have put into it."""
    about = rule.get("set", {})
    plain = [one for one in about.get("elem", ()) if not isinstance(one, dict) or "elem" not in one]
    return {"set": {**about, "elem": plain}} if about else rule


def name_servers() -> list[int]:
    """Pids of every dnsmasq in these namespaces."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and b"dnsmasq" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@private
def test_nothing_stays(tmp_path: Path) -> None:
    for mode in ("input", "forward"):
        with lab(tmp_path / mode, published_ports=mode) as host:
            before = state(host)
            network, second = host.network(), host.network("second")
            host.networks.up(network)  # again
            box, other = host.box(network, bandwidth=10_000_000), host.box(second)
            published(host, box)
            host.networks.set_names(network, [("box", box.address)])
            assert other.ask(host.outside.inside4, 8080) == box.address.gateway4
            host.finish()
            assert state(host) == before
            host.finish()  # again
            assert state(host) == before
            # And with instances still there.
            del host.made[:], host.boxes[:]
            network = host.network()
            published(host, host.box(network))
            host.networks.down(network)
            assert state(host) == before


@private
def test_the_link_goes_with_the_last_process(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = host.network()
        box, other = host.box(network), host.box(network)
        other.serve()
        pid = box.process()
        box.close()  # as the engine does once the workload runs
        assert links.index_of(box.link)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert eventually(lambda: not links.index_of(box.link))
        host.networks.disconnect(box.link)
        host.networks.disconnect(box.link)
        # One that stays, because somebody still has the namespace, cannot send any more, and is removed.
        host.networks.disconnect(other.link)
        assert links.index_of(other.link)
        host.networks.settle(timeout=0.05)
        assert not links.index_of(other.link)


@private
def test_forwarding_is_put_back(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        setting("ipv6/conf/uplink/accept_ra", "1")
        setting("ipv4/conf/lo/forwarding", "1")
        before = state(host)
        network = host.network()
        assert [setting(name) for name in FORWARDING] == ["1", "1"]
        assert setting("ipv6/conf/uplink/accept_ra") == "2"
        # Another daemon comes while it is on, and is the last to go.
        other = Networks(
            host.config.model_copy(update={"run_dir": tmp_path / "other", "nft_table": "o", "link_prefix": "o"})
        )
        theirs = Network(name="theirs", id="000000ff", subnet4="10.1.0.0/24", subnet6="fd01::/64")
        other.up(theirs)
        host.networks.down(network)
        assert [setting(name) for name in FORWARDING] == ["1", "1"]
        other.down(theirs)
        other.close()
        assert state(host)["settings"] == before["settings"]
        # What was on before stays on, and what was changed since is left alone.
        setting("ipv4/ip_forward", "1")
        host.networks.up(network)
        setting("ipv6/conf/uplink/accept_ra", "0")
        host.networks.down(network)
        assert [setting(name) for name in FORWARDING] == ["1", "0"]
        assert setting("ipv6/conf/uplink/accept_ra") == "0"


@private
def test_a_failure_on_the_way_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lab(tmp_path) as host:
        before = state(host)
        find = processes.find
        monkeypatch.setattr(processes, "find", lambda program: None if program == "dnsmasq" else find(program))
        with pytest.raises(Unavailable, match="dnsmasq is not installed") as error:
            host.network()
        assert error.value.hint == "apt install dnsmasq-base"
        assert state(host) == before


def crash(host: Lab) -> Networks:
    """What kill -9 leaves: nothing of the process's own, everything else as it was."""
    networks = host.networks
    for connection in list(networks._pool._ready):
        os.close(connection.netns_fd)
    networks._pool._ready.clear()
    networks._publisher.close()
    host.networks = Networks(host.config)
    return networks


def running(host: Lab, *numbers: int) -> dict[str, Running]:
    """What the store would say of these boxes: 0 is published, 1 has 10 Mbit/s."""
    found: dict[str, Running] = {}
    for number in numbers:
        box = host.boxes[number]
        found[box.id] = (box.address, WEB if number == 0 else (), 10_000_000 if number == 1 else None)
    return found


@private
def test_recovery_changes_nothing_where_nothing_is_wrong(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = host.network()
        box, other = host.box(network), host.box(network, bandwidth=10_000_000)
        published(host, box)
        before = state(host)
        crash(host)
        assert host.networks.recover(host.made, running(host, 0, 1)) == []
        assert state(host) == before
        assert ask_outside(host, host.outside.inside4, 8080) == host.outside.outside4
        # It knows what is there: a third gets another address, the port is taken, and all can be given back.
        third = host.box(network)
        assert len({each.address.ipv4 for each in (box, other, third)}) == 3
        with pytest.raises(Conflict, match=f"8080/tcp is taken by instance {box.id[:12]}"):
            host.networks.publish(third.id, third.address, WEB)
        host.networks.unpublish(box.id)
        host.networks.publish(third.id, third.address, WEB)
        host.finish()


@private
def test_recovery_after_a_crash(tmp_path: Path) -> None:
    with lab(tmp_path, network_pool=3) as host:
        before = state(host)
        network, second = host.network(), host.network("second")
        stays, limited, gone = host.box(network), host.box(network, bandwidth=10_000_000), host.box(network)
        published(host, stays)
        limited.serve()
        host.networks.publish(gone.id, gone.address, [PortMapping(host_port=9090, port=80)])
        host.networks.prefill(network)
        assert host.networks.wait_ready()
        crash(host)
        # And then somebody tidies up.
        nft("flush ruleset")
        [first, _] = sorted(name_servers())
        os.kill(first, signal.SIGKILL)
        ip(f"link delete {host.config.link_prefix}-{network.id}")
        ip(f"link delete {host.config.link_prefix}out")
        ip("link add bhvdeadbeef type veth peer name elsewhere")
        with Netlink() as netlink:
            netlink.send(links.clear_rate(links.index_of(limited.link), "it"))
        said = "\n".join(host.networks.recover([network], running(host, 0, 1)))
        for part in (
            "packet filter bulkhead loaded",
            "bridge of network default made again",
            "name server of network default started again",
            f"link {gone.link} of {gone.id} removed",
            "link bhvdeadbeef of no instance removed",
            f"link {stays.link} attached to network default again",
            f"bandwidth of link {limited.link} set again",
            f"bridge bh-{second.id} of no network removed",
            f"name server of network {second.id} ended",
        ):
            assert part in said, said
        assert eventually(lambda: ask_outside(host, host.outside.inside4, 8080) == host.outside.outside4)
        assert ask_outside(host, host.outside.inside4, 9090) == "refused"
        assert stays.ask(limited.address.ipv4) == stays.address.ipv4
        assert host.networks.recover([network], running(host, 0, 1)) == []
        host.finish()
        assert state(host) == before


@private
def test_recovery_of_single_things(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = host.network()
        box, lost = host.box(network), host.box(network)
        published(host, box)
        crash(host)
        nft("delete element ip bulkhead any_claimed { tcp . 8080 }\nadd element ip bulkhead any_claimed { tcp . 1 }")
        ip(f"link delete {lost.link}")
        said = host.networks.recover(host.made, running(host, 0, 1))
        assert said == [
            "packet filter: 4 leftover elements removed",
            "packet filter: ip any_claimed tcp . 8080 put back",
            f"instance {lost.id[:12]} has lost its link: it must be started again",
        ]
        assert ask_outside(host, host.outside.inside4, 8080) == host.outside.outside4
        # Without networks and instances, nothing is needed.
        crash(host)
        host.networks.recover([], {})
        assert not [name for name in state(host)["links"] if name.startswith(host.config.link_prefix)]


@private
def test_rules_that_somebody_removed_come_back_with_the_next_start(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = host.network()
        box = host.box(network)
        published(host, box)
        nft("flush ruleset")
        other = host.box(network)
        other.serve()
        assert box.ask(other.address.ipv4) == box.address.ipv4
        assert ask_outside(host, host.outside.inside4, 8080) == host.outside.outside4


@private
def test_the_pool(tmp_path: Path) -> None:
    with lab(tmp_path, network_pool=3) as host:
        before = state(host)
        network = host.network()
        host.networks.prefill(network)
        assert host.networks.wait_ready()
        assert len(host.networks._pool) == 3
        boxes = [host.box(network) for _ in range(8)]
        assert len({box.address.ipv4 for box in boxes}) == 8
        boxes[0].serve()
        for box in boxes[1:]:
            assert box.ask(boxes[0].address.ipv4) == box.address.ipv4
        with Netlink() as netlink:
            found = links.find(netlink, boxes[0].link)
        assert found and found.alias == f"bulkhead/bulkhead/{boxes[0].id}"
        # What is taken elsewhere is not given out, though it is ready.
        assert host.networks.wait_ready()
        ready = {connection.address.ipv4 for connection in host.networks._pool._ready}
        connection = host.networks.connect(network, instance_id="f" * 32, taken=ready, bandwidth=None)
        os.close(connection.netns_fd)
        assert connection.address.ipv4 not in ready
        host.networks.disconnect(connection.link)
        # It fills up again after the rules have been removed, and is drained with the network.
        nft("flush ruleset")
        for box in boxes:
            host.networks.disconnect(box.link)
        assert host.networks.wait_ready()
        host.finish()
        assert state(host) == before


@private
def test_many_at_once(tmp_path: Path) -> None:
    with lab(tmp_path, network_pool=3) as host:
        before = state(host)
        network = host.network()
        host.networks.prefill(network)
        seen: list[str] = []
        errors: list[BaseException] = []

        def starts(worker: int) -> None:
            try:
                for turn in range(6):
                    owner = f"{worker:016x}{turn:016x}"
                    connection = host.networks.connect(network, instance_id=owner, taken=(), bandwidth=None)
                    seen.append(connection.address.ipv4)
                    port = PortMapping(host_port=9000 + worker, port=80)
                    host.networks.publish(owner, connection.address, [port])
                    host.networks.set_names(network, [(f"n{worker}", connection.address)])
                    os.close(connection.netns_fd)
                    host.networks.unpublish(owner)
                    host.networks.disconnect(connection.link)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=starts, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(set(seen)) == 48
        host.networks.settle()
        host.finish()
        assert state(host) == before


@private
def test_what_is_given_back_at_the_end(tmp_path: Path) -> None:
    with lab(tmp_path, network_pool=3) as host:
        before = state(host)
        network, second = host.network(), host.network("second")
        host.networks.prefill(network)
        assert host.networks.wait_ready()
        box = host.box(second)
        host.networks.close()
        left = [name for name in state(host)["links"] if name.startswith("bh")]
        assert left == sorted([f"bh-{second.id}", "bhin", "bhout", box.link])
        host.networks = Networks(host.config)
        assert host.networks.recover(host.made, running(host, 0)) != []  # it was not published
        assert host.networks.recover(host.made, running(host, 0)) == []
        host.networks.unpublish(box.id)
        host.networks.disconnect(box.link)
        box.close()
        host.networks.close()
        assert state(host) == before
        host.networks = Networks(host.config)


@private
def test_a_full_subnet(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = Network(name="tiny", id="0000000a", subnet4="10.9.0.0/29", subnet6="fd09::/64")
        host.networks.up(network)
        host.made.append(network)
        boxes = [host.box(network) for _ in range(5)]
        with pytest.raises(Conflict, match=r"no free address: all 5 of 10\.9\.0\.0/29 are in use"):
            host.box(network)
        # An address that is given back can be used at once, whatever the kernel still has of its link.
        host.networks.disconnect(boxes[2].link)
        again = host.networks.connect(network, instance_id="e" * 32, taken=(), bandwidth=None)
        assert again.address == boxes[2].address
        # And giving the old one back once more does nothing to the new one.
        host.networks.disconnect(boxes[2].link)
        host.networks.settle(timeout=0.01)
        again_box = Box("e" * 32, again)
        boxes[0].serve()
        assert again_box.ask(boxes[0].address.ipv4) == again.address.ipv4
        assert links.index_of(again.link)
        os.close(again.netns_fd)


@private
def test_ports_that_are_taken(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = host.network()
        one, other = host.box(network), host.box(network)
        serve(7000)  # the host's own
        host.networks.publish(one.id, one.address, [PortMapping(host_port=7001, port=80)])
        asked = [
            PortMapping(host_port=7000, port=80),
            PortMapping(host_port=7000, port=80, protocol="udp"),
            PortMapping(host_ip="127.0.0.1", host_port=7001, port=80),
            PortMapping(host_port=7002, port=80),
            PortMapping(host_ip="203.0.113.7", host_port=7003, port=80),
        ]
        said = [problem.what for problem in host.networks.check_ports(asked)]
        who = Path("/proc/self/comm").read_text().strip()
        assert said == [
            f"port 7000/tcp is taken by {who} (pid {os.getpid()})",
            f"port 7000/udp is taken by {who} (pid {os.getpid()})",
            f"port 127.0.0.1:7001/tcp is taken by instance {one.id[:12]}",
            "port 203.0.113.7:7003/tcp cannot be published: "
            "port 7003/tcp of 203.0.113.7 cannot be used: it is not an address of this host",
        ]
        before = state(host)
        with pytest.raises(Conflict, match="7000/tcp is taken"):
            host.networks.publish(other.id, other.address, asked)
        assert state(host) == before
        assert host.networks.check_ports([asked[3]]) == []
        # A published port is kept from the host's programs too.
        with pytest.raises(OSError, match="in use"):
            serve(7001)
        host.networks.unpublish(one.id)
        serve(7001)


@private
def test_strict_reverse_path_filtering_is_refused(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        setting("ipv4/conf/all/rp_filter", "1")
        [problem] = host.networks.check_ports(WEB[:1])
        assert "rp_filter is 1" in problem.what
        assert "published_ports" in problem.hint


@private
def test_bandwidth(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = host.network()
        box = host.box(network, bandwidth=80_000_000)
        pid = box.process()

        def rates() -> list[list[tuple[str, int]]]:
            def of(name: str) -> list[tuple[str, int]]:
                with Netlink() as netlink:
                    return [each for each in links.queues(netlink, links.index_of(name)) if each[0] == "tbf"]

            return [of(box.link), box.inside(lambda: of("eth0"))]

        assert rates() == [[("tbf", 10_000_000)]] * 2
        host.networks.shape(box.link, pid, 100_000_000_000)  # more than 32 bits
        assert rates() == [[("tbf", 12_500_000_000)]] * 2
        host.networks.shape(box.link, pid, None)
        host.networks.shape(box.link, pid, None)
        assert rates() == [[], []]
        received, sent = host.networks.traffic(box.link)
        box.serve()
        assert host.networks.traffic("bhv00000000") == (0, 0)
        other = host.box(network)
        other.ask(box.address.ipv4, 80, data=bytes(1000))
        after = host.networks.traffic(box.link)
        assert after[0] >= received + 1000
        assert after[1] > sent


@private
def test_subnets_that_the_host_needs_are_left_alone(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        ip("route add 10.144.0.0/23 dev uplink")
        ip("route add fd42:b01c::/63 dev uplink")
        assert host.networks.choose_subnets([], None, None) == ("10.144.2.0/24", "fd42:b01c:0:2::/64")
        with pytest.raises(Conflict, match=r"10\.144\.1\.0/24 overlaps 10\.144\.0\.0/23 \(a route .* through uplink\)"):
            host.networks.choose_subnets([], "10.144.1.0/24", None)
        with pytest.raises(Conflict, match=r"overlaps 192\.0\.2\.0/24"):
            host.networks.choose_subnets([], "192.0.0.0/16", None)


@private
def test_names_are_served_as_nobody(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = host.network()
        names = Names(host.config)
        assert names.served() == [network.id]
        [pid] = name_servers()
        status = Path(f"/proc/{pid}/status").read_text()
        # What dnsmasq keeps where it serves DHCP: net_admin (neighbours of its clients) and net_raw (pings), no more.
        assert "CapEff:\t0000000000003000" in status
        assert "Uid:\t65534" in status
