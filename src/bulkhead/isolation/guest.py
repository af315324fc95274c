"""What the agent in a guest is asked for: a container's start without the walls that the guest's own kernel is.

Pure. The workload has every capability and an ordinary Linux: all of it ends at the hypervisor. It runs in a pid and a
mount namespace, so that it is PID 1 and its root is the image's, as in a container.
"""

from __future__ import annotations

import os
import string
import time
from dataclasses import dataclass, replace

from bulkhead.agent.frames import ExecRequest, Start, StartFlag
from bulkhead.agent.operations import RECURSIVE, Attr, Code, Operation, bind, mount, simple
from bulkhead.isolation import capabilities, inits, root, seccomp, vmm
from bulkhead.isolation.base import Bundle, Command, Limits
from bulkhead.isolation.hardening import KERNEL_FS
from bulkhead.isolation.root import Confinement, Namespace
from bulkhead.isolation.supervised import exec_flags, start_flags
from bulkhead.model import Address, Spec

STAGE = "/stage"
"""An empty directory that the guest's agent has made."""
INTERFACE = "eth0"
ENTROPY = 64
"""Bytes of the host's randomness that a guest's generator starts with."""
CONFINEMENT = Confinement(bounding=capabilities.mask(capabilities.Cap), no_new_privs=False)
ROOT_UID = 0
_SECONDS = 10**9


@dataclass(frozen=True, slots=True)
class Moment:
    """What is new at each start: the time in ns since the epoch, and randomness."""

    now: int
    entropy: bytes

    @classmethod
    def present(cls) -> Moment:
        """What is new now."""
        return cls(time.time_ns(), os.urandom(ENTROPY))


def start_request(bundle: Bundle, limits: Limits, moment: Moment) -> Start:
    """The workload's start, in one request."""
    return Start(
        flags=start_flags(bundle.spec),
        clone_flags=Namespace.PID,
        unshare_flags=_unshared(bundle.spec),
        log_files=0,
        join=tuple(limits.join),
        kill=limits.kill,
        prepare=(*_prepare(bundle, moment), *limits.prepare),
        stage=(*_stage(bundle), *_system(bundle.spec, limits)),
        inside=(*_inside(bundle), *root.program(_told(bundle.spec), _confinement(bundle.spec), container=False)),
        finish=tuple(limits.finish),
    )


def _unshared(spec: Spec) -> Namespace:
    """A system manages cgroups: the root of those that it sees is its own."""
    return Namespace.MOUNT | (Namespace.CGROUP if inits.is_system(spec) else Namespace.NONE)


def _confinement(spec: Spec) -> Confinement:
    """Everything, but that a system's halt ends its first process by an exit, as in a container."""
    return replace(CONFINEMENT, seccomp=seccomp.halting()) if inits.is_system(spec) else CONFINEMENT


def _system(spec: Spec, limits: Limits) -> list[Operation]:
    """A system's /run and its cgroups in the guest's own."""
    if not inits.is_system(spec):
        return []
    return [
        bind(limits.delegated, root.CGROUP_ROOT, attrs=KERNEL_FS),
        *inits.run_directory(spec, ROOT_UID),
    ]


def idle_request(bundle: Bundle, moment: Moment) -> Start:
    """Nothing that runs, and nothing that it could run from: the guest is there for what is put in it later."""
    return Start(
        flags=StartFlag.HOLD,
        clone_flags=Namespace.PID,
        unshare_flags=Namespace.MOUNT,
        log_files=0,
        prepare=tuple(_prepare(bundle, moment)),
        inside=(),
    )


def hold_request(bundle: Bundle, moment: Moment) -> Start:
    """The root with its mounts, and nothing that runs in it."""
    return Start(
        flags=StartFlag.HOLD,
        clone_flags=Namespace.PID,
        unshare_flags=Namespace.MOUNT,
        log_files=0,
        prepare=tuple(_prepare(bundle, moment)),
        stage=tuple(_stage(bundle)),
        inside=(simple(Code.ROOT, root.ROOT), simple(Code.PIVOT)),
    )


def resume_operations(bundle: Bundle, moment: Moment) -> list[Operation]:
    """What a saved guest is told before its workload goes on in another machine, or in the same one later."""
    return [*_prepare(bundle, moment), simple(Code.HOSTNAME, bundle.spec.hostname)]


def command_request(spec: Spec, limits_join: tuple[str, ...], command: Command) -> ExecRequest:
    """A command beside the workload."""
    return ExecRequest(
        flags=exec_flags(command),
        setns_flags=Namespace.PID | _unshared(spec),
        rows=command.rows,
        columns=command.columns,
        join=limits_join,
        inside=tuple(root.command(_named(spec), command, _confinement(spec), container=False)),
    )


def _named(spec: Spec) -> Spec:
    """With the host's name in the environment, as docker and podman have it."""
    return spec.model_copy(update={"env": (f"HOSTNAME={spec.hostname}", *spec.env)})


def _told(spec: Spec) -> Spec:
    """With the environment of the first process."""
    return _named(inits.environment(spec) if inits.is_system(spec) else spec)


def _prepare(bundle: Bundle, moment: Moment) -> list[Operation]:
    """Nothing that two guests may share is left of what the guest was before."""
    return [
        simple(Code.ENTROPY, moment.entropy),
        clock(moment.now),
        *(
            [network(bundle.address)]
            if bundle.address and bundle.boot and bundle.boot.tap and not bundle.boot.warm
            else []
        ),
    ]


def renewal(moment: Moment) -> list[Operation]:
    """What a guest is told that goes on elsewhere as what it was."""
    return [simple(Code.ENTROPY, moment.entropy), clock(moment.now)]


def clock(now: int) -> Operation:
    """Set the guest's clock; `now` in ns since the epoch."""
    return simple(Code.CLOCK, *divmod(now, _SECONDS))


def network(address: Address) -> Operation:
    """The guest's interface."""
    mac = bytes.fromhex(address.mac.replace(":", ""))
    addresses = (f"{address.ipv4}/{address.prefix4}", f"{address.ipv6}/{address.prefix6}")
    return simple(Code.NETIF, INTERFACE, mac, address.gateway4, address.gateway6, address.mtu, *addresses)


def device(number: int) -> str:
    """The block device of a disk: 0 is /dev/vda, 26 is /dev/vdaa."""
    first, last = divmod(number, len(string.ascii_lowercase))
    return f"/dev/vd{string.ascii_lowercase[first - 1] if first else ''}{string.ascii_lowercase[last]}"


def _stage(bundle: Bundle) -> list[Operation]:
    """The disks to an overlay, made the root; the guest's devices and kernel interfaces in it; the volumes."""
    layers = range(len(vmm.require_boot(bundle).layers))
    first_volume = 1 + len(layers)
    read_only = int(Attr.RDONLY)
    return [
        simple(Code.STAGE, STAGE),
        simple(Code.MOUNTDEV, device(0), "ext4", "disk", 0, ""),
        *([simple(Code.GROW, device(0), bundle.spec.plan.disk)] if vmm.require_boot(bundle).grow_disk else []),
        *(simple(Code.MOUNTDEV, device(1 + n), "erofs", f"l{n}", read_only, "") for n in layers),
        simple(
            Code.OVERLAY,
            ":".join(f"l{n}" for n in reversed(layers)),
            f"disk/{root.UPPER}",
            f"disk/{root.WORK}",
            root.ROOT,
            0,
        ),
        simple(Code.ROOT, root.ROOT),
        bind("/dev", "/dev", flags=RECURSIVE),
        # A system takes a /sys that it may write for the hardware's, and starts udev.
        bind("/sys", "/sys", attrs=Attr.RDONLY if inits.is_system(bundle.spec) else Attr.NONE, flags=RECURSIVE),
        *(operation for n in range(len(bundle.volumes)) for operation in _volume(bundle, n, first_volume + n)),
    ]


def _volume(bundle: Bundle, number: int, disk: int) -> list[Operation]:
    volume = bundle.volumes[number]
    attrs = Attr.NOSUID | Attr.NODEV | (Attr.RDONLY if volume.read_only else Attr.NONE)
    return [
        # A read-only disk cannot replay its journal; nobody else has it while it is the guest's.
        simple(Code.MOUNTDEV, device(disk), "ext4", f"v{number}", int(attrs), "noload" if volume.read_only else ""),
        bind(f"{STAGE}/v{number}/data", volume.target, attrs=attrs),
    ]


def _inside(bundle: Bundle) -> list[Operation]:
    return [
        simple(Code.ROOT, root.ROOT),
        mount("proc", "/proc", attrs=KERNEL_FS),
        *root.names(bundle, hostname=True),
        *root.secrets(bundle),
        simple(Code.HOSTNAME, bundle.spec.hostname),
        simple(Code.KEYRING),
        *([simple(Code.CONSOLE)] if bundle.spec.tty else []),
        simple(Code.PIVOT),
    ]
