"""The jail of a hypervisor: the operations by which an agent runs QEMU where nothing of the host is.

Its root is an EROFS file with QEMU, its libraries and firmware, read-only. It is uid 0 of a user namespace of the
instance's own range, without a capability, and cannot get one. What it was given lies below /run/vm: each a mount of
one file. The directory of its sockets belongs to the host's root and to the instance's group: QEMU makes its sockets
in it, and before the guest runs the host takes the permission away, so that a guest that has broken out can make no
file anywhere.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path

from bulkhead.agent.operations import IDMAP, Attr, Code, Operation, bind, mount, simple
from bulkhead.isolation import root, vmm
from bulkhead.isolation.base import Bundle
from bulkhead.isolation.root import Namespace

CLONED = Namespace.PID | Namespace.USER
UNSHARED = Namespace.MOUNT | Namespace.IPC | Namespace.UTS | Namespace.CGROUP
OPEN_FILES = 1024
DEVICES = ("null", "urandom")
KVM, TUN = "kvm", "net/tun"
NOTHING_RUNS = Attr.NOSUID | Attr.NODEV | Attr.NOEXEC
ENVIRONMENT = ("PATH=/usr/bin", "LC_ALL=C")
SEALED, OPEN = 0o750, 0o770
"""Modes of the sockets' directory: as the guest runs, and while QEMU makes them."""


def stage(bundle: Bundle, at: Path) -> list[Operation]:
    """What the host's root does: the root, the devices that QEMU needs, the files it is given."""
    boot = vmm.require_boot(bundle)
    owner = uid_start(bundle)
    devices = [*DEVICES, *([KVM] if boot.accelerator == "kvm" else []), *([TUN] if boot.tap else [])]
    return [
        simple(Code.STAGE, str(at)),
        simple(Code.ATTACH, str(boot.vmm), root.ROOT, int(Attr.RDONLY | Attr.NOSUID | Attr.NODEV), 0),
        simple(Code.ROOT, root.ROOT),
        mount("tmpfs", "/dev", attrs=Attr.NOSUID | Attr.NOEXEC, data=_small(owner)),
        *(simple(Code.DEVICE, name, f"/dev/{name}") for name in devices),
        mount("tmpfs", "/run", attrs=NOTHING_RUNS, data=_small(owner)),
        *(_give(path, inside, read_only=read_only) for path, inside, read_only in _files(bundle)),
        # Not id-mapped: it is to belong to the host's root, also as QEMU sees it.
        bind(bundle.directory / vmm.DIRECTORY, vmm.SOCKETS, attrs=NOTHING_RUNS),
    ]


def inside(argv: Sequence[str], *, largest: int, ram_fd: int | None = None) -> list[Operation]:
    """What QEMU's process does up to its exec. `largest` is the size in bytes of the largest file that it writes.

    `ram_fd`: the descriptor of a template's memory. QEMU opens it by its name in a /proc that shows its own process.
    """
    memory = [] if ram_fd is None else [mount("proc", "/proc", attrs=NOTHING_RUNS, data="subset=pid")]
    return [
        simple(Code.ROOT, root.ROOT),
        *memory,
        simple(Code.KEYRING),
        simple(Code.PIVOT),
        simple(Code.OOM_SCORE, 0, optional=True),
        # A disk cannot be made larger than it is, and nothing larger than a disk can be made.
        simple(Code.RLIMIT, resource.RLIMIT_FSIZE, largest, largest),
        simple(Code.RLIMIT, resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
        simple(Code.RLIMIT, resource.RLIMIT_CORE, 0, 0),
        simple(Code.ENV, *ENVIRONMENT),
        simple(Code.CHDIR, "/", 0),
        simple(Code.CAPS, 0, 0, 0, 0, 0),
        simple(Code.NO_NEW_PRIVS),
        *([] if ram_fd is None else [simple(Code.INHERIT, ram_fd)]),
        *root.execute(argv),
    ]


def uid_start(bundle: Bundle) -> int:
    """The host uid that QEMU runs as: the first of the instance's range."""
    if bundle.uid_start is None:
        raise ValueError(f"VM {bundle.spec.name} has no uid range")
    return bundle.uid_start


def _small(owner: int) -> str:
    return f"mode=0755,uid={owner},gid={owner},size=64k,nr_inodes=256"


def _files(bundle: Bundle) -> list[tuple[Path, str, bool]]:
    boot = vmm.require_boot(bundle)
    given = [(drive.source, drive.inside, drive.read_only) for drive in vmm.drives(bundle)]
    memory = [(boot.ram, vmm.RAM, False)] if boot.ram else []
    return [(boot.kernel, vmm.KERNEL, True), (boot.initrd, vmm.INITRD, True), *memory, *given]


def _give(path: Path, inside: str, *, read_only: bool) -> Operation:
    """One file of the host's root's, which QEMU finds to be its own."""
    attrs = NOTHING_RUNS | (Attr.RDONLY if read_only else Attr.NONE)
    return bind(path, inside, attrs=attrs, flags=IDMAP)
