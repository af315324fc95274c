"""What Prometheus' node_exporter says (its text format): files of one server each, looked at two times or more.

The time of a look is `node_time_seconds`, the server's name `node_uname_info`'s. Values come from counters, so
nothing has to be asked of a Prometheus: `curl -s server:9100/metrics >web.1.prom` now and again is enough.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from bulkhead.advise.ganeti import At
from bulkhead.advise.measured import Measured, Sample
from bulkhead.advise.troubles import Place, Troubles

IDLE = ("idle", "iowait", "steal")
NO_DISK = (
    "tmpfs",
    "ramfs",
    "overlay",
    "squashfs",
    "erofs",
    "nfs",
    "nfs4",
    "cifs",
    "fuse.lxcfs",
    "devtmpfs",
    "iso9660",
    "autofs",
)
NO_LINK = ("lo", "veth", "docker", "br-", "virbr", "tap", "tun", "cni", "flannel", "bond", "vlan", "dummy", "wg")
"""How names of links begin over which nothing leaves, or what leaves is counted by another as well."""
_COUNTED = (
    "node_filesystem_size_bytes",
    "node_filesystem_free_bytes",
    "node_network_receive_bytes_total",
    "node_network_transmit_bytes_total",
)
MOST_WRONG_LINES = 20
Labels = Mapping[str, str]


def is_exposition(text: str) -> bool:
    """Whether it is one: the first line is a comment about a metric, or a sample of node_exporter's or Go's."""
    first = text.lstrip()[:200]
    return first.startswith(("# HELP ", "# TYPE ", "node_", "go_"))


def read(files: Sequence[tuple[str, str]], troubles: Troubles) -> list[Measured]:
    """Servers of files (name, text), in the order of their names."""
    servers: dict[str, Measured] = {}
    for file, text in files:
        found = _metrics(text, file, troubles)
        if found is not None:
            _server(found, file, servers, troubles)
    return [servers[name] for name in sorted(servers)]


def _metrics(text: str, file: str, troubles: Troubles) -> dict[str, list[tuple[Labels, float]]] | None:
    from prometheus_client.parser import text_string_to_metric_families as parse

    found: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
    try:
        for family in parse(text):
            for sample in family.samples:
                if sample.name.startswith("node_"):
                    found[sample.name].append((sample.labels, sample.value))
    except (ValueError, KeyError, IndexError) as error:
        lines = list(_wrong_lines(text))
        for number in lines[:MOST_WRONG_LINES]:
            troubles.add(Place(file, number), "this is no line of Prometheus' text format")
        if not lines:
            troubles.add(Place(file, 1), f"this is not Prometheus' text format: {str(error)[:100]}")
        return None
    return found


def _wrong_lines(text: str) -> Iterator[int]:
    from prometheus_client.parser import text_string_to_metric_families as parse

    for number, line in enumerate(text.split("\n"), 1):
        try:
            for _ in parse(line + "\n"):
                pass
        except (ValueError, KeyError, IndexError):
            yield number


def _server(
    found: Mapping[str, list[tuple[Labels, float]]], file: str, servers: dict[str, Measured], troubles: Troubles
) -> None:
    needed = (
        "node_time_seconds",
        "node_cpu_seconds_total",
        "node_memory_MemTotal_bytes",
        "node_memory_MemAvailable_bytes",
    )
    missing = [name for name in (*needed, "node_filesystem_size_bytes") if not found.get(name)]
    if missing:
        troubles.add(Place(file, 1), f"it says nothing of {', '.join(missing)}: is it node_exporter's?")
        return
    values = [value for name in (*needed, *_COUNTED) for _, value in found.get(name, [])]
    if any(not 0 <= value < 1e18 for value in values) or found["node_time_seconds"][0][1] >= 1e11:
        troubles.add(Place(file, 1), "it has a value that is negative, not a number, or beyond all measure")
        return
    uname = found.get("node_uname_info", [])
    name = uname[0][0].get("nodename", "") if uname else file.rpartition("/")[2].split(".")[0]
    cores = len({labels.get("cpu", "") for labels, _ in found["node_cpu_seconds_total"]})
    size, used = _disks(found)
    each = servers.get(name)
    if each is None:
        memory = int(found["node_memory_MemTotal_bytes"][0][1])
        each = Measured(name, At(Place(file, 1)), cores, memory, int(size), _ghz(found), _link_rate(found))
        servers[name] = each
    busy = sum(value for labels, value in found["node_cpu_seconds_total"] if labels.get("mode") not in IDLE)
    available = found["node_memory_MemAvailable_bytes"][0][1]
    way = [_total(found, f"node_network_{way}_bytes_total") for way in ("receive", "transmit")]
    time = found["node_time_seconds"][0][1]
    if any(sample.time == time for sample in each.samples):
        troubles.add(Place(file, 1), f"{name} was looked at {time:.0f} s after 1970 in another file too")
        return
    each.samples.append(Sample(time, busy, max(0.0, each.memory - available), used, *way))


def _disks(found: Mapping[str, list[tuple[Labels, float]]]) -> tuple[float, float]:
    """Size and use of all disks; a device that is mounted twice counts once."""
    free = {_mount(labels): value for labels, value in found.get("node_filesystem_free_bytes", [])}
    sizes: dict[str, float] = {}
    used: dict[str, float] = {}
    for labels, value in found["node_filesystem_size_bytes"]:
        if labels.get("fstype") in NO_DISK:
            continue
        device = labels.get("device", "")
        if value > sizes.get(device, -1.0):
            sizes[device] = value
            used[device] = max(0.0, value - free.get(_mount(labels), 0.0))
    return sum(sizes.values()), sum(used.values())


def _mount(labels: Labels) -> tuple[str, str]:
    return labels.get("device", ""), labels.get("mountpoint", "")


def _ghz(found: Mapping[str, list[tuple[Labels, float]]]) -> float | None:
    for name in ("node_cpu_frequency_max_hertz", "node_cpu_scaling_frequency_max_hertz"):
        values = [value for _, value in found.get(name, []) if 1e8 <= value <= 1e10]
        if values:
            return round(max(values) / 1e9, 3)
    return None


def _link_rate(found: Mapping[str, list[tuple[Labels, float]]]) -> int | None:
    values = [
        value
        for labels, value in found.get("node_network_speed_bytes", [])
        if not labels.get("device", "lo").startswith(NO_LINK) and 1e4 < value < 1e12
    ]
    return int(max(values) * 8) if values else None


def _total(found: Mapping[str, list[tuple[Labels, float]]], name: str) -> float:
    return sum(value for labels, value in found.get(name, []) if not labels.get("device", "lo").startswith(NO_LINK))
