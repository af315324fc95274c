"""Linux capabilities by name, and the sets that each level leaves to a workload's root.

Numbers: include/uapi/linux/capability.h, the same on every architecture.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Cap(IntEnum):
    """Capabilities by their bit."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    LINUX_IMMUTABLE = 9
    NET_BIND_SERVICE = 10
    NET_BROADCAST = 11
    NET_ADMIN = 12
    NET_RAW = 13
    IPC_LOCK = 14
    IPC_OWNER = 15
    SYS_MODULE = 16
    SYS_RAWIO = 17
    SYS_CHROOT = 18
    SYS_PTRACE = 19
    SYS_PACCT = 20
    SYS_ADMIN = 21
    SYS_BOOT = 22
    SYS_NICE = 23
    SYS_RESOURCE = 24
    SYS_TIME = 25
    SYS_TTY_CONFIG = 26
    MKNOD = 27
    LEASE = 28
    AUDIT_WRITE = 29
    AUDIT_CONTROL = 30
    SETFCAP = 31
    MAC_OVERRIDE = 32
    MAC_ADMIN = 33
    SYSLOG = 34
    WAKE_ALARM = 35
    BLOCK_SUSPEND = 36
    AUDIT_READ = 37
    PERFMON = 38
    BPF = 39
    CHECKPOINT_RESTORE = 40


CONTAINER: frozenset[Cap] = frozenset(
    {
        # A service's root makes its files its user's, and installs packages.
        Cap.CHOWN,
        Cap.DAC_OVERRIDE,
        Cap.FOWNER,
        Cap.FSETID,
        Cap.SETFCAP,
        # It drops to its user (nginx, postgres, gosu), with what is left of its capabilities, and ends its children.
        Cap.SETGID,
        Cap.SETUID,
        Cap.SETPCAP,
        Cap.KILL,
        # It listens below port 1024 and shuts itself in (sshd, vsftpd, postfix).
        Cap.NET_BIND_SERVICE,
        Cap.SYS_CHROOT,
    }
)
"""Podman's set. Docker's has NET_RAW (spoofing on the bridge), MKNOD and AUDIT_WRITE on top, which nothing needs here.

All of them count in the instance's own user namespace only: none gives a right over anything of the host's.
"""

SYSTEM: frozenset[Cap] = CONTAINER | frozenset(
    {
        # An init mounts file systems, gives its services mount and network namespaces of their own, names the system,
        # and loads filters of system calls for services that may still become another user. Of the kernel's checks
        # those for a device, a disk, a quota, the clock or another namespace's mounts ask the host's namespace.
        Cap.SYS_ADMIN,
        # `reboot` in a pid namespace ends its first process, and nothing else.
        Cap.SYS_BOOT,
        # The journal and the login manager look at processes and files of all users of the instance.
        Cap.SYS_PTRACE,
        Cap.DAC_READ_SEARCH,
    }
)
"""What root of a system container has, in its own user namespace only. Not among them: NET_ADMIN and NET_RAW (the
network namespace is the host's anyway, and a service's own one would open the packet filter's code), MKNOD, SYS_MODULE,
SYS_RAWIO, SYS_TIME, SYS_RESOURCE, SYSLOG, AUDIT_*, MAC_*, BPF and PERFMON, which are the host's or are not needed."""

CHROOT: frozenset[Cap] = CONTAINER | frozenset(
    {
        # Package builds and bootstraps mount, make device nodes and read what they own.
        Cap.SYS_ADMIN,
        Cap.MKNOD,
        Cap.DAC_READ_SEARCH,
        Cap.LINUX_IMMUTABLE,
        # Test suites lock memory, renice and take leases.
        Cap.IPC_LOCK,
        Cap.IPC_OWNER,
        Cap.SYS_NICE,
        Cap.LEASE,
    }
)
"""What root in a chroot keeps. It is the host's root without the rights over the running system: no modules, raw
I/O, reboot, clock, kernel log, audit, BPF, tracing of other processes, nor changes of the host's network."""


def mask(capabilities: Iterable[Cap]) -> int:
    """The set as the kernel's 64-bit mask."""
    return sum(1 << capability for capability in set(capabilities))


def names(bits: int) -> list[str]:
    """Names ("CAP_CHOWN") of the bits of a mask; bits without a name as "CAP_63"."""
    known = {capability.value: capability.name for capability in Cap}
    return [f"CAP_{known.get(bit, bit)}" for bit in range(64) if bits >> bit & 1]
