"""What an instance uses, counted on the host by counters that it cannot reach, beside what it was sold."""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import timing
from bench.peers.bulkhead import Bulkhead
from bench.peers.podman import Podman
from bulkhead.host import cgroups, loop
from bulkhead.host.qmp import Qmp

MIB = 1 << 20
LOG = 3 * (10 * MIB + MIB)
"""Bytes that an instance's log may take: three files, each rotated once it has 10 MiB."""
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Sold:
    """A plan. Bytes, cores, operations/s, bytes/s, bits/s."""

    memory: int
    cpus: float
    disk: int
    iops: int
    disk_bps: int
    bandwidth: int
    pids: int

    def rates(self) -> dict[str, float]:
        """What there may be of each counter in a second."""
        link = self.bandwidth / 8
        return {
            "cpu": self.cpus,
            "reads": self.iops,
            "writes": self.iops,
            "bytes read": self.disk_bps,
            "bytes written": self.disk_bps,
            "received": link,
            "sent": link,
        }


@dataclass(frozen=True, slots=True)
class Count:
    """Counters at one moment: those of `Sold.rates`, as far as there are any, since some earlier time."""

    when: float
    counters: Mapping[str, float]

    def rates_since(self, before: Count) -> dict[str, float]:
        """Per second. A counter that has begun anew counts from there."""
        seconds = self.when - before.when
        moved = {name: (value, before.counters.get(name, 0.0)) for name, value in self.counters.items()}
        return {name: (now - was if now >= was else now) / seconds for name, (now, was) in moved.items()}


class Suspect(ABC):
    """An instance under suspicion."""

    def count(self) -> Count:
        """The counters now."""
        return Count(time.monotonic(), self.counters())

    @abstractmethod
    def counters(self) -> dict[str, float]:
        """What has been used of each thing that is sold by the second."""

    @abstractmethod
    def held(self) -> dict[str, float]:
        """What is held, or was at most, of each thing that is not, as a share of what was sold."""


class Measured(Suspect):
    """One whose size outside is known too."""

    @abstractmethod
    def disk_size(self) -> float:
        """Bytes of the block device that it has its file system on."""

    @abstractmethod
    def memory_size(self) -> float:
        """Bytes of memory that it is held to: a cgroup's limit, a guest's memory."""


def shares(suspect: Suspect, before: Count, sold: Sold) -> dict[str, float]:
    """Use since `before` as shares of the plan: 1.0 is all of it."""
    rates = suspect.count().rates_since(before)
    return {**{name: rates[name] / most for name, most in sold.rates().items() if name in rates}, **suspect.held()}


class Ours(Measured):
    """An instance of Bulkhead's on the host: a container, a chroot or a VM; its cgroups, disk, link and log."""

    def __init__(self, engine: Bulkhead, name: str, sold: Sold, *, linked: bool = True) -> None:
        self._engine, self._name, self._sold, self._linked = engine, name, sold, linked
        (row,) = json.loads(engine.output("inspect", name))
        self._bundle = engine.home / "state/instances" / str(row["id"])
        self._machine = (self._bundle / "vm").is_dir()
        self._layout = cgroups.detect()
        self._group = f"{engine.cgroup}/{row['id']}"

    def counters(self) -> dict[str, float]:
        """Of the cgroup, the block device (QEMU's own of a VM) and the link."""
        found = {"cpu": self._cpu(), **self._disk()}
        if self._linked:
            row = stats(self._engine, self._name)
            found |= {"received": float(row["received"]), "sent": float(row["sent"])}
        return found

    def held(self) -> dict[str, float]:
        """Memory at its most, processes, blocks of the disk's file, the log's files."""
        memory = self._file("memory", "memory.max_usage_in_bytes", "memory.peak")
        if self._layout.version("memory") == 1 and not self._machine:
            memory = max(memory, self._file("memory", "memory.usage_in_bytes", "") + socket_memory())
        limit = self._file("memory", "memory.limit_in_bytes", "memory.max")
        disk = (self._bundle / "disk.img").stat().st_blocks * _BLOCK
        logs = sum(path.stat().st_size for path in self._bundle.glob("log*"))
        return {
            "memory": memory / limit,
            "processes": self._file("pids", "pids.current", "pids.current")
            / self._file("pids", "pids.max", "pids.max"),
            "disk": disk / self._sold.disk,
            "log": logs / LOG,
        }

    def disk_size(self) -> float:
        """The loop device's, or what QEMU shows of it."""
        if self._machine:
            with Qmp.open(self._bundle / "vm", "qmp.sock") as monitor:
                answer: Any = monitor.execute("query-block")
            shown = [each["inserted"] for each in answer if "inserted" in each]
            # The others that can be written are places for what is plugged in later: a PiB of nothing each.
            return float(min(each["image"]["virtual-size"] for each in shown if not each["ro"]))
        attached = loop.find(self._bundle / "disk.img")
        if attached is None:
            raise OSError("its disk is not attached")
        return float(Path(f"/sys/block/loop{attached.number}/size").read_text()) * _BLOCK

    def memory_size(self) -> float:
        """Of a VM what QEMU has given its guest."""
        if self._machine:
            with Qmp.open(self._bundle / "vm", "qmp.sock") as monitor:
                answer: Any = monitor.execute("query-memory-size-summary")
            return float(answer["base-memory"])
        return self._file("memory", "memory.limit_in_bytes", "memory.max")

    def _cpu(self) -> float:
        if self._layout.version("cpuacct") == 1:
            return float((self._layout.path("cpuacct", self._group) / "cpuacct.usage").read_text()) / 1e9
        stat = (self._layout.path("cpu", self._group) / "cpu.stat").read_text()
        return int(stat.split("usage_usec ")[1].split()[0]) / 1e6

    def _disk(self) -> dict[str, float]:
        if self._machine:
            with Qmp.open(self._bundle / "vm", "qmp.sock") as monitor:
                answer: Any = monitor.execute("query-blockstats")
            found = next(each["stats"] for each in answer if "disk" in json.dumps(each))
            names = ("rd_operations", "wr_operations", "rd_bytes", "wr_bytes")
            values = [float(found[name]) for name in names]
        else:
            attached = loop.find(self._bundle / "disk.img")
            if attached is None:
                return {}
            moved = loop.transferred(attached.device)
            values = [float(each) for each in (moved.reads, moved.writes, moved.read, moved.written)]
        return dict(zip(("reads", "writes", "bytes read", "bytes written"), values, strict=True))

    def _file(self, controller: str, v1: str, v2: str) -> float:
        name = v1 if self._layout.version(controller) == 1 else v2
        text = (self._layout.path(controller, self._group) / name).read_text().strip()
        return float("inf") if text == "max" else float(text)


class Inner(Measured):
    """An instance within a VM, whose guest counts for it."""

    def __init__(self, engine: Bulkhead, name: str, sold: Sold) -> None:
        self._engine, self._name, self._sold = engine, name, sold

    def counters(self) -> dict[str, float]:
        """Of its cgroup in the guest, and of its disk there; its link is its VM's."""
        row = stats(self._engine, self._name)
        names = {"cpu": "cpu_seconds", "bytes read": "disk_read", "bytes written": "disk_written"}
        return {key: float(row[name]) for key, name in names.items()}

    def held(self) -> dict[str, float]:
        """Memory now, processes, what its disk's file takes on the host."""
        row = stats(self._engine, self._name)
        return {
            "memory": row["memory"] / self._sold.memory,
            "processes": row["pids"] / self._sold.pids,
            "disk": row["disk_used"] / self._sold.disk,
        }

    def disk_size(self) -> float:
        """As its guest has it."""
        return float(stats(self._engine, self._name)["disk_size"])

    def memory_size(self) -> float:
        """The limit of its cgroup in the guest."""
        return float(stats(self._engine, self._name)["memory_limit"])


def stats(engine: Bulkhead, name: str) -> dict[str, Any]:
    """One look by `bulkhead stats`."""
    row: dict[str, Any] = json.loads(engine.output("stats", "--no-stream", "--format", "json", name))[0]
    return row


class Theirs(Suspect):
    """A container of podman's: what it has cgroups for, the files in its layer, its log."""

    def __init__(self, engine: Podman, name: str, sold: Sold) -> None:
        self._sold = sold
        about = json.loads(timing.output([*engine.prefix, "inspect", name], env=engine.env))[0]
        self._upper = Path(about["GraphDriver"]["Data"]["UpperDir"])
        self._log = Path(about["HostConfig"]["LogConfig"]["Path"] or "/nonexistent")
        lines = Path(f"/proc/{about['State']['Pid']}/cgroup").read_text().splitlines()
        paths = {name: path for _, names, path in (line.split(":", 2) for line in lines) for name in names.split(",")}
        self._paths = {name: Path("/sys/fs/cgroup") / name / path.lstrip("/") for name, path in paths.items() if name}
        self._unified = Path("/sys/fs/cgroup") / paths.get("", "").lstrip("/")
        self._pid = int(about["State"]["Pid"])

    def counters(self) -> dict[str, float]:
        """Processor time, and the bytes that have passed its link."""
        link = next(line for line in Path(f"/proc/{self._pid}/net/dev").read_text().splitlines() if "eth0:" in line)
        words = link.partition(":")[2].split()
        return {"cpu": self._cpu(), "received": float(words[0]), "sent": float(words[8])}

    def held(self) -> dict[str, float]:
        """The same of what podman has a limit for, and of what it has none for."""
        files = [path.lstat() for path in _files(self._upper)]
        used = sum(each.st_blocks for each in files) * _BLOCK
        log = self._log.stat().st_size if self._log.exists() else 0
        return {
            "memory": self._memory() / self._sold.memory,
            "processes": self._file("pids", "pids.current", "pids.current") / self._sold.pids,
            "disk": used / self._sold.disk,
            "log": log / LOG,
        }

    def _cpu(self) -> float:
        if "cpuacct" in self._paths:
            return self._file("cpuacct", "cpuacct.usage", "") / 1e9
        stat = (self._unified / "cpu.stat").read_text()
        return int(stat.split("usage_usec ")[1].split()[0]) / 1e6

    def _memory(self) -> float:
        peak = self._file("memory", "memory.max_usage_in_bytes", "memory.peak")
        if "memory" not in self._paths:
            return peak
        return max(peak, self._file("memory", "memory.usage_in_bytes", "") + socket_memory())

    def _file(self, controller: str, v1: str, v2: str) -> float:
        path = self._paths[controller] / v1 if controller in self._paths else self._unified / v2
        return float(path.read_text())


def socket_memory() -> int:
    """Bytes in the buffers of all TCP sockets of the host, which cgroup v1 counts in nobody's memory."""
    line = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return int(line.split()[-1]) * 4096


def _files(top: Path) -> list[Path]:
    return [Path(directory, name) for directory, _, names in os.walk(top) for name in names]
