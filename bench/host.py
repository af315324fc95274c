"""Facts about the host that a reader of the numbers needs."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def facts(scratch: Path) -> dict[str, str]:
    """Processor, memory, kernel, file system of the scratch directory, how busy the host is."""
    return {
        "processor": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores",
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / (1 << 20):.0f} GiB",
        "kernel": platform.release(),
        "system": _system(),
        "file system": file_system(scratch),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def file_system(path: Path) -> str:
    """The kind of file system that a directory is on."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if path.is_relative_to(target) and len(target) >= len(best[0]):
            best = (target, kind)
    return best[1]


def _field(file: str, key: str) -> str:
    for line in Path(file).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "0 unknown"


def _system() -> str:
    release = dict(line.partition("=")[::2] for line in Path("/etc/os-release").read_text().splitlines())
    return release.get("PRETTY_NAME", "unknown").strip('"')
