"""node_exporter's text: two looks or more at each server."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.advise.reading import read
from bulkhead.errors import Refused
from tests.unit.advise.estates import GIB, problems_of, write


def scrape(name: str, time: float, busy: float, *, sent: float = 0.0) -> str:
    return f"""\
# HELP node_cpu_seconds_total Seconds the CPUs spent in each mode.
# TYPE node_cpu_seconds_total counter
node_cpu_seconds_total{{cpu="0",mode="idle"}} 5000
node_cpu_seconds_total{{cpu="0",mode="user"}} {busy}
node_cpu_seconds_total{{cpu="1",mode="iowait"}} 100
node_cpu_seconds_total{{cpu="1",mode="system"}} {busy}
# TYPE node_memory_MemTotal_bytes gauge
node_memory_MemTotal_bytes {8 * GIB}
node_memory_MemAvailable_bytes {6 * GIB}
node_filesystem_size_bytes{{device="/dev/sda1",fstype="ext4",mountpoint="/"}} {100 * GIB}
node_filesystem_size_bytes{{device="/dev/sda1",fstype="ext4",mountpoint="/var"}} {100 * GIB}
node_filesystem_size_bytes{{device="tmpfs",fstype="tmpfs",mountpoint="/run"}} {4 * GIB}
node_filesystem_free_bytes{{device="/dev/sda1",fstype="ext4",mountpoint="/"}} {70 * GIB}
node_network_receive_bytes_total{{device="lo"}} 1e12
node_network_receive_bytes_total{{device="eth0"}} 1000
node_network_transmit_bytes_total{{device="eth0"}} {sent}
node_network_speed_bytes{{device="eth0"}} 1.25e+08
node_cpu_scaling_frequency_max_hertz{{cpu="0"}} 3.2e+09
node_uname_info{{nodename="{name}",machine="x86_64"}} 1
node_time_seconds {time}
"""


def test_counters_become_use(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{name}.{at}.prom", scrape(name, 1000 + 60 * at, busy, sent=7500 * at))
        for name, values in (("a", (10, 40, 40)), ("b", (100, 10, 40)))
        for at, busy in enumerate(values)
    ]
    estate = read(files)
    assert estate.steps == 2 and estate.step == 60
    a, b = estate.loads
    server = estate.server("a")
    assert (server.cores, server.ghz, server.memory, server.disk, server.network) == (2, 3.2, 8 * GIB, 100 * GIB, 10**9)
    # 30 s of user and 30 s of system in a minute are one core.
    assert a.use[0].tolist() == pytest.approx([3.2, 0.0])
    assert a.use[1].tolist() == [2 * GIB] * 2 and a.use[2].tolist() == [30 * GIB] * 2
    assert a.use[3].tolist() == pytest.approx([1000.0, 1000.0])
    # It has booted in between: its counter began anew, which is no use below nothing.
    assert b.use[0].tolist() == pytest.approx([0.0, 3.2])


def test_what_is_wrong_with_it(tmp_path: Path) -> None:
    once = write(tmp_path / "a.prom", scrape("a", 1000, 1))
    with pytest.raises(Refused, match=r"a\.prom:1:1: a was looked at once"):
        read([once])
    broken = write(tmp_path / "b.prom", scrape("b", 1000, 1) + 'node_x{a="1" 5\nnode_y five\n')
    with pytest.raises(Refused) as caught:
        read([broken])
    assert [what.split(" ")[0] for what in problems_of(caught.value)] == ["b.prom:21:1:", "b.prom:22:1:"]
    lacking = write(tmp_path / "c.prom", "# HELP go_threads x\ngo_threads 5\n")
    with pytest.raises(Refused, match="it says nothing of node_time_seconds, node_cpu_seconds_total"):
        read([lacking])
    apart = [
        write(tmp_path / f"{at}.prom", scrape(name, at, 1))
        for name, at in (("a", 0), ("a", 60), ("b", 600), ("b", 660))
    ]
    with pytest.raises(Refused, match="over -540 s together"):
        read(apart)


@pytest.mark.parametrize("what", ["filesystem_free_bytes{device", "network_receive_bytes_total{device", "time_seconds"])
@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e18"])
def test_values_that_are_no_measure(tmp_path: Path, what: str, value: str) -> None:
    text = "\n".join(
        f"{line.rpartition(' ')[0]} {value}" if line.startswith(f"node_{what}") else line
        for line in scrape("a", 1000, 1).split("\n")
    )
    files = [write(tmp_path / "1.prom", text), write(tmp_path / "2.prom", scrape("a", 1060, 2))]
    with pytest.raises(Refused, match=r"1\.prom:1:1: it has a value that is negative, not a number, or beyond"):
        read(files)


def test_a_name_of_a_server_that_is_hostile(tmp_path: Path) -> None:
    name = "../../x\\n<script>"
    files = [write(tmp_path / f"{at}.prom", scrape(name, at * 60, at)) for at in (1, 2)]
    with pytest.raises(Refused, match="name"):
        read(files)
