"""The jail of a hypervisor: the operations by which an agent runs QEMU where nothing of the host is.

Its root is an EROFS file with QEMU, its libraries and firmware, read-only. It is uid 0 of a user namespace of the
instance's own range, without a capability, and cannot get one. What it was given lies below /run/vm: each a mount of
one file. The directory of its sockets belongs to the host's root and to the instance's group: QEMU makes its sockets
in it, and before the guest runs the host takes the permission away, so that a guest that has broken out can make no
file anywhere.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Cell:
    """What one hypervisor's jail holds."""

    root: Path
    """Where QEMU's own file system is mounted."""
    files: Sequence[tuple[Path, str, bool]]
    """What it is given: the host's path, that in the jail, whether it can only be read."""
    kvm: bool
    tap: bool
    terminal: bool = False
    """Its stdin and output are a terminal's."""


def stage(bundle: Bundle, at: Path) -> list[Operation]:
    """The cell of a VM that runs an image's root file system."""
    boot = vmm.require_boot(bundle)
    cell = Cell(root=boot.vmm, files=_files(bundle), kvm=boot.accelerator == "kvm", tap=bool(boot.tap))
    return stage_cell(bundle, at, cell)


def stage_cell(bundle: Bundle, at: Path, cell: Cell) -> list[Operation]:
    """What the host's root does: the root, the devices that QEMU needs, the files it is given."""
    owner = uid_start(bundle)
    devices = [*DEVICES, *([KVM] if cell.kvm else []), *([TUN] if cell.tap else [])]
    return [
        simple(Code.STAGE, str(at)),
        simple(Code.ATTACH, str(cell.root), root.ROOT, int(Attr.RDONLY | Attr.NOSUID | Attr.NODEV), 0),
        simple(Code.ROOT, root.ROOT),
        mount("tmpfs", "/dev", attrs=Attr.NOSUID | Attr.NOEXEC, data=_small(owner)),
        *(simple(Code.DEVICE, name, f"/dev/{name}") for name in devices),
        *([simple(Code.SYMLINK, "pts/ptmx", "/dev/ptmx")] if cell.terminal else []),
        mount("tmpfs", "/run", attrs=NOTHING_RUNS, data=_small(owner)),
        *(_give(path, inside, read_only=read_only) for path, inside, read_only in cell.files),
        # Not id-mapped: it is to belong to the host's root, also as QEMU sees it.
        bind(bundle.directory / vmm.DIRECTORY, vmm.SOCKETS, attrs=NOTHING_RUNS),
    ]


def inside(
    argv: Sequence[str],
    *,
    largest: int,
    ram_fd: int | None = None,
    terminal: bool = False,
    inherit: Sequence[int] = (),
) -> list[Operation]:
    """What QEMU's process does up to its exec. `largest` is the size in bytes of the largest file that it writes.

    `ram_fd`: the descriptor of a template's memory. QEMU opens it by its name in a /proc that shows its own process.
    `inherit`: other descriptors that it keeps.
    """
    memory = [] if ram_fd is None else [mount("proc", "/proc", attrs=NOTHING_RUNS, data="subset=pid")]
    devpts = mount("devpts", "/dev/pts", attrs=Attr.NOSUID | Attr.NOEXEC, data="mode=0600,ptmxmode=0600")
    return [
        simple(Code.ROOT, root.ROOT),
        *memory,
        *([devpts] if terminal else []),
        simple(Code.KEYRING),
        *([simple(Code.CONSOLE)] if terminal else []),
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
        *(simple(Code.INHERIT, fd) for fd in (*([] if ram_fd is None else [ram_fd]), *inherit)),
        *root.execute(argv),
    ]


def uid_start(bundle: Bundle) -> int:
    """The host uid that QEMU runs as: the first of the instance's range."""
    if bundle.uid_start is None:
        raise ValueError(f"VM {bundle.spec.name} has no uid range")
    return bundle.uid_start


def open_sockets(bundle: Bundle, *names: str) -> None:
    """Where QEMU makes its sockets: the host's root's, and open to the instance's group until they are made."""
    directory = bundle.directory / vmm.DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    for name in names:
        (directory / name).unlink(missing_ok=True)
    os.chown(directory, 0, uid_start(bundle))
    directory.chmod(OPEN)


def seal_sockets(bundle: Bundle) -> None:
    """Before a guest runs, from when on QEMU may be its own: it can make no file any more."""
    (bundle.directory / vmm.DIRECTORY).chmod(SEALED)


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
