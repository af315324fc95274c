"""What this host has: cores, their speed, memory, its kernel. Read once."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from bulkhead.config import FLEET_DIRECTORY, FLEET_MEMBER, Config
from bulkhead.errors import HostError
from bulkhead.host import speed

_CPUS = Path("/sys/devices/system/cpu")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NODES = Path("/sys/devices/system/node/has_memory")


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Bytes, GHz."""

    cores: int
    """How many are online."""
    online: tuple[int, ...]
    """Their numbers."""
    ghz: float | None
    """What a core does when all of them are busy; None where nothing tells. Of a host of a fleet it is that of the
    reference core which does as much: its clock times `factor`.
    """
    ghz_source: str
    memory: int
    swap: int
    kernel: str
    memory_nodes: tuple[int, ...] = (0,)
    """Numbers of the NUMA nodes that have memory."""
    factor: float = 1.0
    """What is in `ghz` over the clock: work of a core in one of its cycles over that of a reference core."""
    factor_source: str = ""
    """measured, or configuration; "": neither, or why it could not be measured."""


def disk_size(directory: Path) -> int:
    """Bytes of the file system that a directory is on."""
    found = os.statvfs(directory)
    return found.f_blocks * found.f_frsize


def disk_available(directory: Path) -> int:
    """Bytes that can still be written to the file system that a directory is on."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def memory_available() -> int:
    """Bytes of this host's memory that programs could have now without swapping."""
    return parse_meminfo(Path("/proc/meminfo").read_text())["MemAvailable"]


def counts_promises() -> bool:
    """Whether this host counts memory that a program has asked for and not used (vm.overcommit_memory=2)."""
    return Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"


def most_files() -> int:
    """How many files can be open on this host at once (fs.file-max)."""
    return int(Path("/proc/sys/fs/file-max").read_text())


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Core numbers of the kernel's list format: "0-2,5" is (0, 1, 2, 5)."""
    cores: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores.extend(range(int(first), int(last or first) + 1))
    return tuple(cores)


def format_cpu_list(cores: tuple[int, ...]) -> str:
    """The kernel's list format of core numbers: (0, 1, 2, 5) is "0-2,5"."""
    parts: list[list[int]] = []
    for core in sorted(cores):
        if parts and core == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], core]
        else:
            parts.append([core])
    return ",".join("-".join(map(str, part)) for part in parts)


def parse_meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = re.findall(r"^(\w+)(?:\(\w+\))?:\s+(\d+) kB$", text, re.MULTILINE)
    return {name: int(value) * 1024 for name, value in found}


def parse_cpuinfo_ghz(text: str) -> float | None:
    """The fastest core's clock in /proc/cpuinfo: the processor's rated speed in its name, else what runs now."""
    rated = re.search(r"^model name\s*:.*@\s*(\d+(?:\.\d+)?)\s*GHz", text, re.MULTILINE | re.IGNORECASE)
    if rated:
        return float(rated[1])
    running = re.findall(r"^cpu MHz\s*:\s*(\d+(?:\.\d+)?)$", text, re.MULTILINE)
    return round(max(map(float, running)) / 1000, 3) if running else None


def _speed() -> tuple[float | None, str]:
    for name in ("base_frequency", "cpuinfo_max_freq"):
        try:
            khz = max(int(file.read_text()) for file in _CPUS.glob(f"cpu[0-9]*/cpufreq/{name}"))
        except (OSError, ValueError):
            continue
        return round(khz / 1_000_000, 3), f"cpufreq {name}"
    ghz = parse_cpuinfo_ghz(Path("/proc/cpuinfo").read_text())
    return ghz, "/proc/cpuinfo" if ghz else "unknown"


def _memory_nodes() -> tuple[int, ...]:
    try:
        return parse_cpu_list(_NODES.read_text())
    except FileNotFoundError:  # a kernel without NUMA
        return (0,)


def boot_id() -> str:
    """Which of its boots the host is in."""
    return _BOOT_ID.read_text().strip()


@cache
def _facts() -> HostFacts:
    memory = parse_meminfo(Path("/proc/meminfo").read_text())
    ghz, source = _speed()
    online = parse_cpu_list((_CPUS / "online").read_text())
    return HostFacts(
        cores=len(online),
        online=online,
        ghz=ghz,
        ghz_source=source,
        memory=memory["MemTotal"],
        swap=memory.get("SwapTotal", 0),
        kernel=os.uname().release,
        memory_nodes=_memory_nodes(),
    )


def processor() -> str:
    """What kind of processor this is and what it can do: guests that use it directly can go on where this is equal."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags")
    first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    lines = (line.partition(":") for line in first.splitlines())
    return "; ".join(value.strip() for name, _, value in lines if name.strip() in wanted)


def facts(config: Config) -> HostFacts:
    """The facts of this host, with what the configuration says of it. Cached for the life of the process."""
    found = _facts()
    if config.host_ghz is not None:
        found = replace(found, ghz=config.host_ghz, ghz_source="configuration")
    if found.ghz is None:
        return found
    factor, source = _factor(config, found.ghz)
    return replace(found, ghz=round(found.ghz * factor, 3), factor=factor, factor_source=source)


def _factor(config: Config, clock: float) -> tuple[float, str]:
    """Only a fleet has cores of several kinds: a host in none counts by its clock."""
    directory = config.state_dir / FLEET_DIRECTORY
    if config.host_factor is not None:
        return config.host_factor, "configuration"
    if not (directory / FLEET_MEMBER).exists():
        return 1.0, ""
    try:
        return speed.cached(directory, boot=boot_id(), processor=processor(), ghz=clock), "measured"
    except HostError as error:
        return 1.0, error.what
