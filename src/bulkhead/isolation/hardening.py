"""What every root gets, and what is kept from it: devices, mounts of the kernel's, masked and read-only paths, limits.

Pure data and small pure functions; `root` puts them together.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence

from bulkhead.agent.operations import MISSING_OK, RECURSIVE, Attr, Code, Operation, mount, simple
from bulkhead.host import syscalls
from bulkhead.isolation.capabilities import Cap

KERNEL_FS = Attr.NOSUID | Attr.NODEV | Attr.NOEXEC
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)
LEAST_TERMINALS, MOST_TERMINALS = 16, 256
TTY_GROUP = 5
"""The group "tty" of Debian and of every distribution that follows the LSB."""

MASKED = (
    # Kernel memory, keys and timers of all users.
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/latency_stats",
    "/proc/sched_debug",
    # Hardware: what is pressed, how warm it is, how much power it draws (side channels; PLATYPUS, CVE-2020-8694).
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""Docker's list."""

READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""Docker's list."""

LXCFS_PROC = ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime")
"""Files of lxcfs that take the place of those in /proc."""
LXCFS_CPU = "/sys/devices/system/cpu"
"""Its list of processors."""

RESERVED_TARGETS = ("/proc", "/sys", "/dev")
"""Directories in which nothing can be mounted by a user: they are made anew at each start."""

NO_LIMIT = resource.RLIM_INFINITY
RLIMITS: dict[int, tuple[int, int]] = {
    resource.RLIMIT_CORE: (0, NO_LIMIT),
    resource.RLIMIT_NOFILE: (65536, 524288),
    resource.RLIMIT_MEMLOCK: (8 << 20, 8 << 20),
    resource.RLIMIT_NPROC: (NO_LIMIT, NO_LIMIT),
    resource.RLIMIT_STACK: (8 << 20, NO_LIMIT),
    resource.RLIMIT_RTPRIO: (0, 0),
    resource.RLIMIT_NICE: (0, 0),
}
"""Fixed, so that an instance does not depend on how the daemon was started. Processes are limited by the plan."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UMASK = 0o022


def devices(owner: int) -> list[Operation]:
    """/dev, for the stage: a tmpfs of `owner`'s (host uid and gid) with the harmless nodes of the host's and links."""
    data = f"mode=0755,uid={owner},gid={owner},size=64k"
    return [
        mount("tmpfs", "/dev", attrs=Attr.NOSUID | Attr.NOEXEC, data=data),
        *(simple(Code.DEVICE, name, f"/dev/{name}") for name in DEVICES),
        *(simple(Code.SYMLINK, target, path) for target, path in DEVICE_LINKS),
    ]


def most_terminals(processes: int) -> int:
    """How many terminals an instance of so many processes can have open: one for every fourth.

    A kernel has 3,072 for all (kernel.pty.max less kernel.pty.reserve), and lets one /dev/pts have them all.
    """
    return min(MOST_TERMINALS, max(LEAST_TERMINALS, processes // 4))


def device_mounts(shm_size: int, processes: int) -> list[Operation]:
    """What is mounted below /dev from inside: terminals and shared memory of `shm_size` bytes."""
    terminals = f"mode=0620,gid={TTY_GROUP},ptmxmode=0666,max={most_terminals(processes)}"
    return [
        mount("devpts", "/dev/pts", attrs=Attr.NOSUID | Attr.NOEXEC, data=terminals),
        mount("tmpfs", "/dev/shm", attrs=KERNEL_FS, data=f"mode=1777,size={shm_size}"),  # noqa: S108
    ]


def hidden() -> list[Operation]:
    """The masked and the read-only paths."""
    attrs = int(Attr.RDONLY | KERNEL_FS)
    return [
        *(simple(Code.REBIND, path, path, attrs, RECURSIVE | MISSING_OK) for path in READ_ONLY),
        *(simple(Code.MASK, path) for path in MASKED),
    ]


def host_rlimits() -> dict[int, int]:
    """This process's hard limits where it may not raise them; none where it may."""
    if syscalls.has_capability(Cap.SYS_RESOURCE):
        return {}
    return {which: resource.getrlimit(which)[1] for which in RLIMITS}


def rlimits(hard_limits: Mapping[int, int]) -> list[Operation]:
    """The default limits, cut down to the host's hard limits."""

    def cut(value: int, which: int) -> int:
        most = hard_limits.get(which, NO_LIMIT)
        return most if value == NO_LIMIT else value if most == NO_LIMIT else min(value, most)

    return [simple(Code.RLIMIT, which, cut(soft, which), cut(hard, which)) for which, (soft, hard) in RLIMITS.items()]


def environment(given: Sequence[str], *, hostname: str = "", container: bool = False, tty: bool = False) -> list[str]:
    """The default environment with `given` put over it; later settings win. HOME is the agent's to add."""
    defaults = {"PATH": PATH}
    if container:
        defaults |= {"HOSTNAME": hostname, "container": "bulkhead"}
    if tty:
        defaults["TERM"] = "xterm"
    for entry in given:
        key, _, value = entry.partition("=")
        defaults[key] = value
    return [f"{key}={value}" for key, value in defaults.items()]
