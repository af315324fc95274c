"""The rules: what each thing costs that can be reached, and what would raise the score.

A score starts at 100. Findings take their weight off, each group no more than its most. The weights say how much of
the way to the host a thing is: 10 and more is the host itself, 5 a good part of the way, 1 something that helps.
"""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead.audit.report import Group

MOST: dict[Group, float] = {
    "wall": 15,
    "namespaces": 30,
    "privileges": 25,
    "kernel": 25,
    "files": 20,
    "devices": 15,
    "network": 10,
}
SHARED_KERNEL = 12.0
"""Of a chroot and a container: a flaw in any call that is left is a flaw in the host's wall."""
HYPERVISOR = 3.0
"""Of what has a kernel of its own: QEMU's devices, and the processor's caches."""
BEHIND_HYPERVISOR = 0.25
"""A guest has to break QEMU first: what its jail leaves open counts a quarter."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one thing costs. `own`: where it counts in a user namespace of the instance's own alone."""

    weight: float
    title: str
    own: float | None = None
    """None: the same."""
    hint: str = ""

    def cost(self, *, has_own_users: bool) -> float:
        """The weight for an instance that has, or has not, a user namespace of its own."""
        return self.own if has_own_users and self.own is not None else self.weight


NAMESPACES: dict[str, Rule] = {
    "user": Rule(10, "root inside is root on the host"),
    "pid": Rule(6, "the host's processes are seen, and can be signalled"),
    "mnt": Rule(8, "the host's mounts are its own"),
    "net": Rule(6, "the host's network is its own: addresses, loopback services, abstract sockets"),
    "ipc": Rule(3, "the host's shared memory and message queues are its own"),
    "uts": Rule(1, "the host's name is its own"),
    "cgroup": Rule(1, "the host's whole tree of cgroups is seen"),
}

CAPABILITIES: dict[str, Rule] = {
    "CAP_SYS_ADMIN": Rule(8, "mounts, namespaces and much else can be changed", own=3),
    "CAP_SYS_MODULE": Rule(10, "kernel modules can be loaded", own=0),
    "CAP_SYS_RAWIO": Rule(10, "memory and ports of the machine can be written", own=0),
    "CAP_SYS_PTRACE": Rule(5, "processes of all users can be traced", own=1),
    "CAP_DAC_READ_SEARCH": Rule(5, "files can be opened by their handles, past every root", own=0.5),
    "CAP_MKNOD": Rule(3, "device nodes can be made", own=0),
    "CAP_NET_ADMIN": Rule(4, "the network and its packet filter can be changed", own=3),
    "CAP_NET_RAW": Rule(2, "packets can be forged", own=1),
    "CAP_BPF": Rule(4, "programs can be loaded into the kernel", own=0),
    "CAP_PERFMON": Rule(2, "the kernel can be measured", own=0),
    "CAP_SYS_BOOT": Rule(3, "the machine can be restarted", own=0),
    "CAP_SYS_TIME": Rule(2, "the clock can be set", own=0),
    "CAP_SYSLOG": Rule(1, "the kernel's log and addresses can be read", own=0),
    "CAP_SYS_RESOURCE": Rule(1, "limits can be raised", own=0),
    "CAP_MAC_ADMIN": Rule(3, "the security module can be changed", own=0),
    "CAP_AUDIT_CONTROL": Rule(1, "the audit can be switched off", own=0),
    "CAP_LINUX_IMMUTABLE": Rule(0.5, "immutable files can be made", own=0),
    "CAP_SYS_NICE": Rule(0.5, "its priority can be raised", own=0),
    "CAP_IPC_OWNER": Rule(0.5, "shared memory of all users can be used", own=0),
}

FEATURES: tuple[tuple[str, tuple[str, ...], Rule], ...] = (
    (
        "userns",
        ("userns_unshare", "userns_clone", "userns_clone3"),
        Rule(6, "user namespaces can be made, which open much of the kernel to anybody"),
    ),
    ("mounts", ("mount_new", "mount_clone"), Rule(3, "file systems can be mounted")),
    ("setns", ("setns",), Rule(1, "other namespaces can be joined")),
    ("bpf", ("bpf_map", "bpf_program"), Rule(4, "programs can be loaded into the kernel (bpf)")),
    ("io_uring", ("io_uring",), Rule(3, "io_uring can be used")),
    ("userfaultfd", ("userfaultfd",), Rule(2, "faults of the kernel's can be held up (userfaultfd)")),
    ("keys", ("add_key", "keyctl"), Rule(1.5, "the kernel's keyrings can be used")),
    ("perf", ("perf_kernel", "perf_user"), Rule(2, "performance events can be counted")),
    ("handles", ("open_by_handle",), Rule(8, "files can be opened by their handles, past the root")),
    ("vm_reads", ("process_vm",), Rule(0.5, "memory can be read across processes")),
    ("no_random", ("no_random",), Rule(0.5, "address randomisation can be switched off")),
    ("ldt", ("modify_ldt",), Rule(0.5, "segments can be written (modify_ldt)")),
    ("iopl", ("iopl",), Rule(8, "the machine's ports can be used")),
    ("log", ("kernel_log",), Rule(2, "the kernel's log can be read")),
    ("fanotify", ("fanotify",), Rule(1, "files of all users can be watched")),
    ("realtime", ("realtime",), Rule(1, "a processor can be taken for good (real time)")),
    ("raw_socket", ("raw_socket",), Rule(1, "raw sockets can be opened")),
    ("tiocsti", ("tiocsti",), Rule(1, "input can be put into a terminal (TIOCSTI)")),
    ("watch_queue", ("watch_queue",), Rule(0.5, "watch queues can be made")),
    ("line_discipline", ("tiocsetd",), Rule(0.5, "line disciplines can be put on a terminal (TIOCSETD)")),
    ("x32", ("x32",), Rule(1, "calls of x32 are carried out")),
)
"""Features by the attempts of which one has to have been carried out."""

GRANTED: tuple[tuple[str, str, Rule], ...] = (
    ("mount_change", "mount_change", Rule(1, "mounts can be changed")),
    ("clock_set", "clock_set", Rule(4, "the host's clock can be set")),
    ("module_load", "module_load", Rule(10, "kernel modules can be loaded")),
    ("swap", "swap", Rule(3, "the host's swap can be changed")),
    ("accounting", "accounting", Rule(1, "process accounting can be changed")),
    ("dccp", "dccp", Rule(0.5, "DCCP gets to the kernel")),
    ("tcp_ulp", "tcp_ulp", Rule(1, "protocols can be put on top of TCP connections (TLS and the like)")),
)
"""Features whose attempts are wrong on purpose: whatever but EPERM, ENOSYS or a signal means the permission was there.
"""

NO_FILTER = Rule(8, "no filter of system calls")
NEW_PRIVILEGES = Rule(2, "set-id programs give privileges (no_new_privs is off)", own=0.5)
AMBIENT = Rule(1, "capabilities stay with programs that it starts (ambient)")
WIDE = 320
"""Calls beyond which each twenty more cost a point."""
COMPAT = Rule(0.5, "calls of i386 are carried out: a second door to the same kernel")
USUAL_FAMILIES = frozenset({0, 1, 2, 10, 16})
FAMILY_NAMES = {
    0: "unspec",
    1: "unix",
    2: "inet",
    3: "ax25",
    4: "ipx",
    5: "appletalk",
    9: "x25",
    10: "inet6",
    15: "key",
    16: "netlink",
    17: "packet",
    21: "rds",
    24: "pppox",
    26: "llc",
    29: "can",
    30: "tipc",
    31: "bluetooth",
    36: "ieee802154",
    38: "alg",
    39: "nfc",
    40: "vsock",
    41: "kcm",
    42: "qipcrtr",
    43: "smc",
    44: "xdp",
    45: "mctp",
}
FAMILIES = Rule(2, "families of sockets beyond unix, inet and netlink get to the kernel")

HOST_PATH = Rule(4, "a directory of the host's can be written", hint="mount it with :ro, or use a volume")
HOST_PATH_READ = Rule(0.5, "a directory of the host's can be read")
TRIGGERS: dict[str, Rule] = {
    "/proc/sys/kernel/core_pattern": Rule(10, "the program that the kernel starts for a crash can be chosen"),
    "/proc/sys/kernel/modprobe": Rule(10, "the program that the kernel loads modules by can be chosen"),
    "/proc/sys/kernel/hotplug": Rule(10, "the program that the kernel starts for devices can be chosen"),
    "/proc/sys/fs/binfmt_misc/register": Rule(10, "interpreters of programs can be registered"),
    "/sys/kernel/uevent_helper": Rule(10, "the program that the kernel starts for devices can be chosen"),
    "/proc/sysrq-trigger": Rule(8, "the machine can be crashed or restarted (sysrq)"),
    "/proc/sys/kernel/sysrq": Rule(2, "the sysrq keys can be switched on"),
    "/sys/power/state": Rule(4, "the machine can be suspended"),
    "/dev/mem": Rule(10, "the machine's memory can be written"),
}
TELLING: dict[str, Rule] = {
    "/proc/kcore": Rule(8, "the kernel's memory can be read"),
    "/proc/kallsyms": Rule(2, "the kernel's addresses can be read"),
    "/proc/iomem": Rule(1, "physical addresses can be read"),
    "/proc/keys": Rule(1, "keys of all users are listed"),
    "/proc/timer_list": Rule(0.5, "timers of all users are listed"),
    "/proc/sched_debug": Rule(0.5, "processes of all users are listed"),
    "/proc/interrupts": Rule(0.5, "what is pressed and sent can be counted"),
    "/proc/slabinfo": Rule(1, "the kernel's heap can be watched"),
    "/proc/vmallocinfo": Rule(1, "the kernel's allocations can be watched"),
    "/dev/kmsg": Rule(2, "the kernel's log can be read"),
    "/sys/firmware/acpi/tables": Rule(1, "tables of the firmware can be read"),
    "/sys/firmware/dmi/tables/DMI": Rule(1, "serial numbers of the machine can be read"),
    "/sys/firmware/efi/efivars": Rule(1, "variables of the firmware can be read"),
    "/sys/kernel/debug": Rule(3, "debugfs can be read"),
    "/sys/kernel/tracing": Rule(3, "tracefs can be read"),
    "/sys/fs/bpf": Rule(1, "pinned programs of the kernel are listed"),
    "/sys/class/powercap/intel-rapl:0/energy_uj": Rule(2, "what the processor draws can be measured (PLATYPUS)"),
    "/proc/acpi": Rule(0.5, "the firmware's files in /proc can be read"),
}
RELEASE_AGENT = Rule(10, "the program that the kernel starts for an empty cgroup can be chosen (release_agent)")
SYSCTLS = Rule(5, "settings of the kernel can be opened for writing")
SYSFS = Rule(4, "files of /sys can be opened for writing")
OWN_SETTINGS = ("/proc/sys/net/", "/proc/sys/user/")
"""Settings of the network namespace and the user namespace."""

HARMLESS = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (5, 1)})
"""null, zero, full, random, urandom, tty, ptmx, and the console that is a terminal of the instance's own."""
DEVICES: dict[tuple[int, int], Rule] = {
    (1, 1): Rule(10, "the machine's memory can be opened (mem)"),
    (1, 2): Rule(10, "the kernel's memory can be opened (kmem)"),
    (1, 11): Rule(2, "the kernel's log can be opened (kmsg)"),
    (10, 200): Rule(2, "network interfaces can be made (net/tun)"),
    (10, 229): Rule(1, "file systems can be served (fuse)"),
    (10, 232): Rule(2, "virtual machines can be made (kvm)"),
    (10, 237): Rule(4, "loop devices can be made (loop-control)"),
}
BLOCK_DEVICE = Rule(8, "a disk can be opened past its file system")
OTHER_DEVICE = Rule(1, "a device can be opened")
NODE_MADE = Rule(1, "device nodes can be made")
NODE_OPENED = Rule(10, "a device node that it has made can be opened")

REACHES_SAME = Rule(1, "instances of its own network answer", hint="a network of its own: --network")
REACHES_OTHERS = Rule(5, "instances of other networks answer")
REACHES_TENANTS = Rule(8, "instances of other tenants answer")
REACHES_HOST = Rule(0.5, "addresses of the host answer", hint="drop what comes from bh-* in the host's input chain")
