"""The container: namespaces, a user namespace of its own, cgroups, capabilities, seccomp. The kernel is shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bulkhead.agent.frames import ExecRequest, Start, StartFlag
from bulkhead.agent.launch import NETNS_NEW, NETNS_PATH
from bulkhead.agent.operations import Code, Operation, mount, simple, write
from bulkhead.config import Config
from bulkhead.errors import Problem
from bulkhead.isolation import capabilities, hardening, inits, root, seccomp
from bulkhead.isolation.base import Bundle, Command, Probe
from bulkhead.isolation.hardening import KERNEL_FS
from bulkhead.isolation.root import Confinement, Namespace
from bulkhead.isolation.rooted import Rooted
from bulkhead.isolation.supervised import Outside, exec_flags, start_flags
from bulkhead.model import UID_RANGE, Isolation, Spec

NOT_ISOLATED = (
    "the kernel: a flaw in a system call that the seccomp profile allows concerns the host",
    "the processor's caches and the memory bus: timing can be observed by neighbours",
    "with --network host: the network, abstract unix sockets and loopback services of the host included",
)
CLONED = Namespace.PID | Namespace.USER
UNSHARED = Namespace.MOUNT | Namespace.IPC | Namespace.UTS | Namespace.CGROUP
AVAILABLE_ULP = Path("/proc/sys/net/ipv4/tcp_available_ulp")
USERLESS_ULP = "mptcp"
"""The kernel's own use of the mechanism: it refuses sockets of programs."""


class ContainerDriver(Rooted):
    """Runs instances in containers under an agent each."""

    isolation = Isolation.CONTAINER

    def __init__(self, config: Config, outside: Outside, *, lxcfs: Callable[[], Path | None] = lambda: None) -> None:
        super().__init__(config, outside)
        self._lxcfs = lxcfs

    def probe(self) -> Probe:
        """Find out whether containers work here, by starting one."""
        return self.probed(NOT_ISOLATED)

    def not_isolated(self, spec: Spec) -> Sequence[str]:
        """What is shared with the host; more with a system."""
        return (*super().not_isolated(spec), *(inits.NOT_ISOLATED if inits.is_system(spec) else ()))

    def check(self, spec: Spec) -> list[Problem]:
        """Everything that a container cannot do for `spec` on this host."""
        problems = super().check(spec) + inits.problems(spec)
        protocols = upper_protocols() if spec.architecture in seccomp.I386 else []
        if protocols:
            what = f"a container of an i386 image could load {', '.join(protocols)} into a TCP connection"
            problems.append(
                Problem(
                    f"{what}: its libc makes socket calls by socketcall, whose arguments no filter sees",
                    f"unload the module (rmmod {protocols[0]}) where nothing needs it",
                )
            )
        return problems

    def start_request(self, bundle: Bundle) -> Start:
        """The whole of a container as data."""
        own_network = bundle.netns_fd is None and bundle.spec.network != "host"
        lists = Lists(bundle, self._stage, lxcfs=self._lxcfs(), own_network=own_network)
        spec, limits = bundle.spec, bundle.limits
        return Start(
            flags=start_flags(spec),
            clone_flags=CLONED,
            unshare_flags=UNSHARED,
            id_base=lists.id_base,
            id_count=UID_RANGE,
            log_size=self._config.log_size,
            log_files=self._config.log_files,
            netns=NETNS_PATH if bundle.netns_fd is not None else NETNS_NEW if own_network else "",
            join=tuple(limits.join),
            kill=limits.kill,
            prepare=tuple(limits.prepare),
            stage=tuple(lists.stage()),
            inside=(*lists.inside(), *root.program(_told(spec), self._confinement(spec), container=True)),
            finish=tuple(limits.finish),
        )

    def hold_request(self, bundle: Bundle) -> Start:
        """The root with its ids and mounts, and nothing that runs in it."""
        lists = Lists(bundle, self._stage, lxcfs=None, own_network=True)
        return Start(
            flags=StartFlag.HOLD,
            clone_flags=CLONED,
            unshare_flags=UNSHARED | Namespace.NETWORK,
            id_base=lists.id_base,
            id_count=UID_RANGE,
            join=tuple(bundle.limits.join),
            kill=bundle.limits.kill,
            prepare=tuple(bundle.limits.prepare),
            stage=(*root.stage(bundle, self._stage, id_mapped=True), *root.volumes(bundle.volumes, id_mapped=True)),
            inside=(simple(Code.ROOT, root.ROOT), simple(Code.PIVOT)),
            finish=tuple(bundle.limits.finish),
        )

    def command_request(self, spec: Spec, join: Sequence[str], command: Command) -> ExecRequest:
        """A command in every namespace and cgroup of the workload, under the same confinement."""
        network = Namespace.NONE if spec.network == "host" else Namespace.NETWORK
        return ExecRequest(
            flags=exec_flags(command),
            setns_flags=CLONED | UNSHARED | network,
            rows=command.rows,
            columns=command.columns,
            join=tuple(join),
            inside=tuple(root.command(spec, command, self._confinement(spec), container=True)),
        )

    def _confinement(self, spec: Spec) -> Confinement:
        if inits.is_system(spec):
            # Its users log in, and their sudo is to work.
            return Confinement(
                bounding=inits.BOUNDING,
                seccomp=seccomp.program(spec.architecture, init="system"),
                no_new_privs=False,
                hard_limits=self.hard_limits,
            )
        return Confinement(
            bounding=capabilities.mask(capabilities.CONTAINER),
            seccomp=seccomp.program(spec.architecture),
            hard_limits=self.hard_limits,
        )


def _told(spec: Spec) -> Spec:
    """The spec with the environment of its first process."""
    return inits.environment(spec) if inits.is_system(spec) else spec


def upper_protocols() -> list[str]:
    """What TCP_ULP can bring into a connection on this host: what is loaded, since an instance's call loads nothing."""
    try:
        return [name for name in AVAILABLE_ULP.read_text().split() if name != USERLESS_ULP]
    except FileNotFoundError:
        return []


class Lists:
    """The operation lists of one container."""

    def __init__(self, bundle: Bundle, stage: Path, *, lxcfs: Path | None, own_network: bool) -> None:
        if bundle.uid_start is None:
            raise ValueError(f"container {bundle.spec.name} has no uid range")
        self.id_base = bundle.uid_start
        self._bundle = bundle
        self._stage = stage
        self._lxcfs = lxcfs
        self._own_network = own_network

    def stage(self) -> list[Operation]:
        """What the host's root does: file systems, devices, the network namespace's sysfs and sysctls."""
        bundle = self._bundle
        network: list[Operation] = []
        if self._own_network:
            # What is handed over has been set up; here too, ports below 1024 and ping are for everybody inside.
            groups = f"{self.id_base} {self.id_base + UID_RANGE - 1}"
            network = [
                simple(Code.LOOPBACK),
                write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
                write("/proc/sys/net/ipv4/ping_group_range", groups),
            ]
        return [
            *network,
            *root.stage(bundle, self._stage, id_mapped=True),
            *hardening.devices(self.id_base),
            *root.kernel(bundle.limits.join, lxcfs=self._lxcfs, delegated=bundle.limits.delegated),
            *(inits.run_directory(bundle.spec, self.id_base) if inits.is_system(bundle.spec) else ()),
            *root.volumes(bundle.volumes, id_mapped=True),
        ]

    def inside(self) -> list[Operation]:
        """What the container's first process does up to its program."""
        bundle = self._bundle
        return [
            simple(Code.ROOT, root.ROOT),
            mount("proc", "/proc", attrs=KERNEL_FS),
            *hardening.device_mounts(root.shm_size(bundle.spec), bundle.spec.plan.pids),
            mount("mqueue", "/dev/mqueue", attrs=KERNEL_FS),
            *root.names(bundle, hostname=True),
            *root.scratch(bundle.spec),
            *root.secrets(bundle),
            *(root.show_lxcfs() if self._lxcfs else []),
            *hardening.hidden(),
            simple(Code.HOSTNAME, bundle.spec.hostname),
            simple(Code.KEYRING),
            *([simple(Code.CONSOLE)] if bundle.spec.tty else []),
            simple(Code.PIVOT),
        ]
