"""Processes inside the bench's pid namespace: finding them, their memory, ending them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path


def every() -> list[int]:
    """All processes of this pid namespace (and of those in it)."""
    return sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def named(name: str) -> list[int]:
    """Processes with this name; the kernel keeps 15 characters of it."""
    return [pid for pid in every() if name_of(pid) == name[:15]]


def name_of(pid: int) -> str:
    """A process's name, at most 15 characters; "" when it has gone."""
    return _read(pid, "comm").strip()


def command(pid: int) -> list[str]:
    """A process's arguments; empty when it has gone."""
    return _read(pid, "cmdline").split("\0")[:-1]


def parent(pid: int) -> int:
    """The parent's pid; 0 when there is none."""
    text = _read(pid, "stat")
    return int(text.rpartition(")")[2].split()[1]) if text else 0


def proportional_memory(pids: Iterable[int]) -> float:
    """MB (10^6) of memory, what is shared counted in shares (PSS)."""
    return sum(_kilobytes(pid, "smaps_rollup", "Pss:") for pid in pids) * 1024 / 1e6


def private_memory(pid: int) -> float:
    """MB (10^6) of memory that is one process's alone."""
    return sum(_kilobytes(pid, "smaps_rollup", f"Private_{kind}:") for kind in ("Clean", "Dirty")) * 1024 / 1e6


def resident_memory(pids: Iterable[int]) -> float:
    """MB (10^6) of memory, what is shared counted in full (RSS)."""
    return sum(_kilobytes(pid, "status", "VmRSS:") for pid in pids) * 1024 / 1e6


def available_memory() -> float:
    """MB (10^6) that the host could still give away."""
    text = Path("/proc/meminfo").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("MemAvailable:")) * 1024 / 1e6


def end(process: subprocess.Popen[bytes], signal: int, *, seconds: float = 30.0) -> None:
    """End a daemon: a signal first, KILL when it takes too long."""
    if process.poll() is None:
        process.send_signal(signal)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _kilobytes(pid: int, file: str, key: str) -> int:
    for line in _read(pid, file).splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def _read(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
