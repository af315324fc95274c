"""What an instance uses, read from its cgroups while it runs, and from the agent's reports when it has ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bulkhead.host.cgroups import Layout

_OOM = re.compile(r"^oom_kill (\d{1,20})$", re.MULTILINE | re.ASCII)
_V2_SECONDS = re.compile(r"^usage_usec (\d{1,20})$", re.MULTILINE | re.ASCII)
_PEAK = re.compile(r"\d{1,20}\n?", re.ASCII)
_INACTIVE_FILE = re.compile(r"^inactive_file (\d{1,20})$", re.MULTILINE | re.ASCII)
_LINK = re.compile(r"^ *eth0: *(\d{1,20})(?: +\d+){7} +(\d{1,20})(?: |$)", re.MULTILINE | re.ASCII)
"""Of /proc/PID/net/dev: bytes received, seven numbers more, bytes sent."""
_UPTIME = re.compile(r"(\d{1,12}\.\d\d) \d{1,15}\.\d\d\n", re.ASCII)
"""/proc/uptime: the last that a supervisor reads on its host."""
_PROCESS_IO = re.compile(r"^read_bytes: (\d{1,20})\nwrite_bytes: (\d{1,20})$", re.MULTILINE | re.ASCII)
_READ, _WRITTEN = (re.compile(rf"\b{name}=(\d{{1,20}})\b", re.ASCII) for name in ("rbytes", "wbytes"))
"""Of io.stat, which has a line for each device."""
_V1_SECONDS = re.compile(r"(?:\d{1,20} )+\n", re.ASCII)
"""cpuacct.usage_percpu: nanoseconds for each processor, with a space after each. Their sum is cpuacct.usage, which
would look like a peak; usage_all has user and system time, which add up to less."""
_INACTIVE = {1: "total_inactive_file", 2: "inactive_file"}


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes, seconds of a core, processes. Counters run since the start."""

    memory: int = 0
    """As the limit counts it, page cache included."""
    memory_working: int = 0
    """Without the page cache that the kernel can drop at once."""
    memory_peak: int = 0
    cpu_seconds: float = 0.0
    throttled_seconds: float = 0.0
    """How long it was held back by its cpu quota."""
    pids: int = 0
    oom_kills: int = 0


@dataclass(frozen=True, slots=True)
class InnerUse:
    """Of an instance within a VM, as its guest tells. Bytes."""

    usage: Usage = Usage()
    received: int = 0
    sent: int = 0
    read: int = 0
    """From its disk and its layers."""
    written: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """What the reports of a finished instance tell; None where they do not."""

    oom: bool
    memory_peak: int | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What the kernel has counted of a run so far. None where it does not tell (any more)."""

    cpu: int | None = None
    """Nanoseconds of a core."""
    memory: int | None = None
    """Bytes in use now."""
    read: int | None = None
    written: int | None = None
    reads: int | None = None
    writes: int | None = None
    """Bytes and operations of block devices."""


@dataclass(frozen=True, slots=True)
class Final:
    """The same of a run that has ended, by its supervisor's last look: see `LimitProgram.counting`."""

    counted: Counted = Counted()
    """`memory` is the most that there was at once."""
    received: int | None = None
    sent: int | None = None
    """Bytes of its link."""
    ended: float | None = None
    """Seconds since the host's boot."""


def read_counted(layout: Layout, cgroup: str, instance_id: str) -> Counted:
    """The counters of an instance's cgroups now."""
    group = f"{cgroup}/{instance_id}"
    memory, cpu, io = (_Directory(layout, name, group) for name in ("memory", "cpu", "io"))
    used = memory.text("memory.current" if memory.version == 2 else "memory.usage_in_bytes").strip()
    if cpu.version == 2:
        found = _V2_SECONDS.search(cpu.text("cpu.stat"))
        nanoseconds = int(found[1]) * 1000 if found else None
    else:
        text = _Directory(layout, "cpuacct", group).text("cpuacct.usage").strip()
        nanoseconds = int(text) if text.isdigit() else None
    disks = io.text("io.stat") if io.version == 2 else ""
    return Counted(cpu=nanoseconds, memory=int(used) if used.isdigit() else None, **_disks(disks))


def _disks(text: str) -> dict[str, int]:
    """Of io.stat; nothing where it was not read."""
    names = {"read": "rbytes", "written": "wbytes", "reads": "rios", "writes": "wios"}
    if not text:
        return {}
    return {name: sum(map(int, re.findall(rf"\b{key}=(\d{{1,20}})\b", text))) for name, key in names.items()}


def interpret_final(reports: Sequence[str]) -> Final:
    """What a supervisor has read on this host when a run had ended; nothing of what a guest says, which comes after."""
    counted, links, ended = dict[str, int](), list[int](), None
    first = True
    for report in reports:
        if first and _PEAK.fullmatch(report):
            links.append(int(report))
            continue
        first = False
        if found := _UPTIME.fullmatch(report):
            ended = float(found[1])
            break
        if found := _V2_SECONDS.search(report):
            counted["cpu"] = int(found[1]) * 1000
        elif _V1_SECONDS.fullmatch(report):
            counted["cpu"] = sum(map(int, report.split()))
        elif found := _PROCESS_IO.search(report):
            counted |= {"read": int(found[1]), "written": int(found[2])}
        elif "rbytes=" in report:
            counted |= _disks(report)
        elif _PEAK.fullmatch(report):
            counted["memory"] = int(report)
    if ended is None:
        return Final()
    received, sent = links if len(links) == 2 else (None, None)
    return Final(Counted(**counted), received, sent, ended)


def read_usage(layout: Layout, cgroup: str, instance_id: str) -> Usage:
    """What an instance uses now; zeros when it has no cgroups (it does not run)."""
    return read_group(layout, f"{cgroup}/{instance_id}")


def read_group(layout: Layout, group: str) -> Usage:
    """What a cgroup with all below it uses now; zeros where there is none."""
    memory, pids, cpu = (_Directory(layout, name, group) for name in ("memory", "pids", "cpu"))
    if memory.version == 2:
        used, peak, events = memory.number("memory.current"), memory.number("memory.peak"), memory.text("memory.events")
    else:
        used, peak = memory.number("memory.usage_in_bytes"), memory.number("memory.max_usage_in_bytes")
        events = memory.text("memory.oom_control")
    inactive = _field(memory.text("memory.stat"), _INACTIVE[memory.version or 2])
    stat = cpu.text("cpu.stat")
    if cpu.version == 2:
        seconds, throttled = _field(stat, "usage_usec") / 1e6, _field(stat, "throttled_usec") / 1e6
    else:
        seconds = _Directory(layout, "cpuacct", group).number("cpuacct.usage") / 1e9
        throttled = _field(stat, "throttled_time") / 1e9
    return Usage(
        memory=used,
        memory_working=max(0, used - inactive),
        memory_peak=max(peak, used),
        cpu_seconds=seconds,
        throttled_seconds=throttled,
        pids=pids.number("pids.current"),
        oom_kills=_field(events, "oom_kill"),
    )


def interpret_reports(reports: Sequence[str]) -> Ended:
    """What a program's finish list has read. Told apart by content, since a read that failed leaves no report.

    Those of a VM come from its guest, which may have written anything: a number too long to be one counts as none.
    """
    oom, peak, seconds = False, None, None
    for report in reports:
        if found := _OOM.search(report):
            oom = oom or int(found[1]) > 0
        elif found := _V2_SECONDS.search(report):
            seconds = int(found[1]) / 1e6
        elif _V1_SECONDS.fullmatch(report):
            seconds = sum(map(int, report.split())) / 1e9
        elif _PEAK.fullmatch(report):
            peak = int(report)
    return Ended(oom, peak, seconds)


def parse_use(reports: Sequence[str]) -> Usage:
    """The memory in what was read of memory.current and memory.stat: of a guest's, where they may hold anything."""
    used, inactive = 0, 0
    for report in reports:
        if _PEAK.fullmatch(report):
            used = int(report)
        elif found := _INACTIVE_FILE.search(report):
            inactive = int(found[1])
    return Usage(memory=used, memory_working=max(0, used - inactive))


def parse_inner_use(reports: Sequence[str]) -> InnerUse:
    """What `inner_use` has read. A guest may have written anything: what makes no sense counts as nothing."""
    current, stat, peak, events, cpu, pids, disks, links = [*reports, *("",) * 8][:8]
    used = _number(current)
    usage = Usage(
        memory=used,
        memory_working=max(0, used - _field(stat, "inactive_file")),
        memory_peak=max(_number(peak), used),
        cpu_seconds=_field(cpu, "usage_usec") / 1e6,
        throttled_seconds=_field(cpu, "throttled_usec") / 1e6,
        pids=_number(pids),
        oom_kills=_field(events, "oom_kill"),
    )
    link = _LINK.search(links)
    return InnerUse(
        usage,
        received=int(link[1]) if link else 0,
        sent=int(link[2]) if link else 0,
        read=sum(int(each) for each in _READ.findall(disks)),
        written=sum(int(each) for each in _WRITTEN.findall(disks)),
    )


def _number(text: str) -> int:
    return int(text) if _PEAK.fullmatch(text) else 0


def _field(text: str, name: str) -> int:
    found = re.search(rf"^{name} (\d{{1,20}})$", text, re.MULTILINE | re.ASCII)
    return int(found[1]) if found else 0


class _Directory:
    """A cgroup's directory whose files read as nothing where they, or it, are missing."""

    def __init__(self, layout: Layout, controller: str, group: str) -> None:
        self.version = layout.version(controller)
        self._path = layout.path(controller, group) if self.version else Path("/nonexistent")

    def text(self, name: str) -> str:
        try:
            return (self._path / name).read_text()
        except OSError:  # ENOENT: not running, or an older kernel; ENODEV: it ended while we read
            return ""

    def number(self, name: str) -> int:
        text = self.text(name).strip()
        return int(text) if text.isdigit() else 0
