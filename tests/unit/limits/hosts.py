"""Hosts to make limits for: facts and layouts that no test reads from this machine."""

from __future__ import annotations

from pathlib import Path

from bulkhead.host.cgroups import Layout
from bulkhead.host.facts import HostFacts

ROOT = Path("/sys/fs/cgroup")
FACTS = HostFacts(
    cores=4,
    online=(0, 1, 2, 3),
    ghz=2.5,
    ghz_source="cpufreq base_frequency",
    memory=16 << 30,
    swap=4 << 30,
    kernel="6.18.0",
    memory_nodes=(0, 1),
)
_NAMES = ("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids")
_V1_ABILITIES = frozenset({"memory.swap", "memory.peak", "cpu.quota", "blkio.throttle"})

V1 = Layout(
    "v1",
    {name: ROOT / ("cpu,cpuacct" if name.startswith("cpu") and name != "cpuset" else name) for name in _NAMES},
    abilities=_V1_ABILITIES,
)
HYBRID = Layout(
    "hybrid",
    {name: ROOT / name for name in _NAMES},
    unified=ROOT / "unified",
    v2=frozenset({"hugetlb"}),
    abilities=_V1_ABILITIES,
)
V2 = Layout(
    "v2",
    unified=ROOT,
    v2=frozenset({"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"}),
    abilities=frozenset({"memory.swap", "memory.peak", "cpu.quota", "io.max"}),
)
LAYOUTS = {"v1": V1, "hybrid": HYBRID, "v2": V2}
