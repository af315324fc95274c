"""The chroot: a private root file system and mount namespace under the plan's limits; nothing else is isolated."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bulkhead.agent.frames import ExecRequest, Start, StartFlag
from bulkhead.agent.operations import Code, mount, simple
from bulkhead.errors import Problem
from bulkhead.isolation import capabilities, hardening, root
from bulkhead.isolation.base import Bundle, Command, Probe
from bulkhead.isolation.hardening import KERNEL_FS
from bulkhead.isolation.root import Confinement, Namespace
from bulkhead.isolation.rooted import Rooted
from bulkhead.isolation.supervised import common_problems, exec_flags, start_flags
from bulkhead.model import Isolation, Spec

NOT_ISOLATED = (
    "the network: addresses, ports and abstract unix sockets are the host's",
    "processes: all of the host's are seen, and root inside can signal them",
    "users: root inside is the host's root, with fewer capabilities",
    "IPC: System V shared memory and POSIX message queues are the host's",
    "the host name, the clock and the kernel; no system call is denied",
    "root inside can mount, and with a disk's number reach the host's disks: only run what the host's root may run",
)
HOST_OWNER = 0


class ChrootDriver(Rooted):
    """Runs instances in chroots under an agent each."""

    isolation = Isolation.CHROOT

    def probe(self) -> Probe:
        """Find out whether chroots work here, by starting one."""
        return self.probed(NOT_ISOLATED)

    def check(self, spec: Spec) -> list[Problem]:
        """Everything that a chroot cannot do for `spec`: it has the host's network, and its name."""
        problems = common_problems(spec)
        hint = "use --isolation container"
        if spec.init != "none":
            problems.append(Problem("a chroot has no first process of its own, so no system runs in it", hint))
        if spec.ports:
            ports = ", ".join(str(port.port) for port in spec.ports)
            problems.append(
                Problem(f"a chroot publishes no ports ({ports}): what listens in it listens on the host itself", hint)
            )
        if spec.plan.bandwidth is not None:
            problems.append(Problem("a chroot's bandwidth cannot be limited: it has the host's network", hint))
        if spec.network != "host":
            problems.append(Problem(f"a chroot has the host's network, not {spec.network!r}", hint))
        if spec.hostname not in ("", os.uname().nodename, spec.name, spec.id[:12]):
            problems.append(Problem(f"a chroot has the host's name, it cannot be {spec.hostname!r}", hint))
        return problems

    def start_request(self, bundle: Bundle) -> Start:
        """The whole of a chroot as data."""
        spec, limits = bundle.spec, bundle.limits
        return Start(
            flags=start_flags(spec),
            unshare_flags=Namespace.MOUNT,
            log_size=self._config.log_size,
            log_files=self._config.log_files,
            join=tuple(limits.join),
            kill=limits.kill,
            prepare=tuple(limits.prepare),
            stage=(
                *root.stage(bundle, self._stage, id_mapped=False),
                *hardening.devices(HOST_OWNER),
                *root.kernel(limits.join),
                *root.volumes(bundle.volumes, id_mapped=False),
            ),
            inside=(
                simple(Code.ROOT, root.ROOT),
                mount("proc", "/proc", attrs=KERNEL_FS),
                *hardening.device_mounts(root.shm_size(spec), spec.plan.pids),
                *root.names(bundle, hostname=False),
                *root.scratch(bundle.spec),
                *root.secrets(bundle),
                *hardening.hidden(),
                simple(Code.KEYRING),
                *([simple(Code.CONSOLE)] if spec.tty else []),
                simple(Code.PIVOT),
                *root.program(spec, self._confinement(), container=False),
            ),
            finish=tuple(limits.finish),
        )

    def hold_request(self, bundle: Bundle) -> Start:
        """The root with its mounts, and nothing that runs in it."""
        return Start(
            flags=StartFlag.HOLD,
            unshare_flags=Namespace.MOUNT,
            join=tuple(bundle.limits.join),
            kill=bundle.limits.kill,
            prepare=tuple(bundle.limits.prepare),
            stage=(*root.stage(bundle, self._stage, id_mapped=False), *root.volumes(bundle.volumes, id_mapped=False)),
            inside=(simple(Code.ROOT, root.ROOT), simple(Code.PIVOT)),
            finish=tuple(bundle.limits.finish),
        )

    def command_request(self, spec: Spec, join: Sequence[str], command: Command) -> ExecRequest:
        """A command in the chroot and the cgroups of the workload."""
        return ExecRequest(
            flags=exec_flags(command),
            setns_flags=Namespace.MOUNT,
            rows=command.rows,
            columns=command.columns,
            join=tuple(join),
            inside=tuple(root.command(spec, command, self._confinement(), container=False)),
        )

    def _confinement(self) -> Confinement:
        # Package builds use sudo and the like: new privileges stay possible, within the bounding set.
        bounding = capabilities.mask(capabilities.CHROOT)
        return Confinement(bounding=bounding, no_new_privs=False, hard_limits=self.hard_limits)
