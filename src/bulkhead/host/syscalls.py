"""System calls that Python 3.11 has no function for, as thin functions.

Each raises `CallError`, a HostError that names the call, what it was done to and the reason, and keeps the errno
for callers that can do something about it. Constants are those of the kernel's uapi headers.
"""

from __future__ import annotations

import ctypes
import errno as errnos
import fcntl
import os
import signal
import struct
from collections.abc import Iterable
from pathlib import Path

from bulkhead.errors import HostError

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_NOATIME, MS_BIND, MS_MOVE, MS_REC = 0x20, 0x400, 0x1000, 0x2000, 0x4000
MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 18, 1 << 19, 1 << 20
MNT_FORCE, MNT_DETACH = 0x1, 0x2
UMOUNT_NOFOLLOW = 0x8

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000

OPEN_TREE_CLONE = 0x1
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOUNT_ATTR_IDMAP = 0x100000

CAP_SYS_RESOURCE = 24
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
EXT4_IOC_SHUTDOWN = 0x8004587D
EXT4_IOC_RESIZE_FS = 0x40086610
EXT4_GOING_FLAGS_NOLOGFLUSH = 0x2

_SYS_SCHED_SETATTR, _SYS_SCHED_GETATTR = {"x86_64": (314, 315)}.get(os.uname().machine, (274, 275))
_SCHED_ATTR = struct.Struct("=IIQiIQQQII")
"""struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, two bounds of utilisation."""
_FAIR = (0, 3)
"""SCHED_OTHER and SCHED_BATCH."""
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_F_ADD_SEALS, _ALL_SEALS = 1033, 0xF
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_NOEXEC, _MFD_EXEC = 0x1, 0x2, 0x8, 0x10

_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


class CallError(HostError):
    """A system call failed; `errno` is its number."""

    def __init__(self, call: str, what: object, number: int, *, hint: str = "") -> None:
        super().__init__(f"{call} {what}: {errnos.errorcode.get(number, number)}: {os.strerror(number)}", hint=hint)
        self.errno = number


def _check(result: int, call: str, what: object) -> int:
    if result < 0:
        raise CallError(call, what, ctypes.get_errno())
    return result


def _bytes(path: Path | str | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def mount(source: Path | str | None, target: Path | str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). `data` is the file system's own options, `key=value,key=value`."""
    result = _libc.mount(_bytes(source), _bytes(target), kind.encode() or None, flags, data.encode() or None)
    _check(result, "mount", f"{kind} {source} at {target}".strip())


def umount2(target: Path | str, flags: int = 0) -> None:
    """umount2(2); never follows a symbolic link at the end of `target`."""
    _check(_libc.umount2(_bytes(target), flags | UMOUNT_NOFOLLOW), "umount", target)


def open_tree(path: Path | str, *, clone: bool = True, recursive: bool = False) -> int:
    """open_tree(2): a descriptor of the mount at `path`, or of a detached copy of it. The caller closes it."""
    flags = os.O_CLOEXEC | (OPEN_TREE_CLONE if clone else 0) | (AT_RECURSIVE if recursive else 0)
    result = _libc.syscall(_SYS_OPEN_TREE, ctypes.c_int(AT_FDCWD), ctypes.c_char_p(_bytes(path)), ctypes.c_uint(flags))
    return _check(result, "open_tree", path)


def move_mount(source: int | Path | str, target: Path | str) -> None:
    """move_mount(2): attach a detached mount (a descriptor), or move an attached one (a path), to `target`."""
    descriptor, path, flags = (
        (source, b"", MOVE_MOUNT_F_EMPTY_PATH) if isinstance(source, int) else (AT_FDCWD, _bytes(source), 0)
    )
    result = _libc.syscall(
        _SYS_MOVE_MOUNT,
        ctypes.c_int(descriptor),
        ctypes.c_char_p(path),
        ctypes.c_int(AT_FDCWD),
        ctypes.c_char_p(_bytes(target)),
        ctypes.c_uint(flags),
    )
    _check(result, "move_mount", f"{source} to {target}")


def mount_setattr(
    target: int | Path | str,
    *,
    set_attrs: int = 0,
    clear_attrs: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    recursive: bool = False,
) -> None:
    """mount_setattr(2) on a mount, given as a descriptor (of open_tree) or a path."""
    attributes = struct.pack("<QQQQ", set_attrs, clear_attrs, propagation, userns_fd)
    descriptor, path = (target, b"") if isinstance(target, int) else (AT_FDCWD, _bytes(target))
    flags = (AT_EMPTY_PATH if isinstance(target, int) else 0) | (AT_RECURSIVE if recursive else 0)
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR,
        ctypes.c_int(descriptor),
        ctypes.c_char_p(path),
        ctypes.c_uint(flags),
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
    )
    _check(result, "mount_setattr", target)


def unshare(flags: int) -> None:
    """unshare(2) for the calling thread."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare", hex(flags))


def setns(descriptor: int, kind: int = 0) -> None:
    """setns(2) for the calling thread: enter the namespace that `descriptor` is open on."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns", descriptor)


def ioctl(descriptor: int, request: int, argument: int | bytes = 0, *, call: str, what: object) -> int | bytes:
    """ioctl(2); `call` and `what` name the request and its object in the error."""
    try:
        return fcntl.ioctl(descriptor, request, argument)
    except OSError as error:
        raise CallError(call, what, error.errno or errnos.EIO) from error


def set_slice(pid: int, nanoseconds: int) -> int:
    """Ask for turns of so many nanoseconds for a thread (0: this one) and all that it will start; sched_setattr(2).

    Returns the turns that it has: 0 where the kernel knows none (before 6.12), or the thread is no ordinary one.
    """
    policy, flags, nice, *rest = _sched_attr(pid)
    if policy in _FAIR:
        bounds = rest[-2:]
        made = _SCHED_ATTR.pack(_SCHED_ATTR.size, policy, flags, nice, 0, nanoseconds, 0, 0, *bounds)
        _check(_libc.syscall(_SYS_SCHED_SETATTR, ctypes.c_int(pid), made, ctypes.c_uint(0)), "sched_setattr", pid)
    return slice_of(pid)


def slice_of(pid: int) -> int:
    """The turns of a thread in nanoseconds, as `set_slice` returns them."""
    policy, _, _, _, runtime, *_ = _sched_attr(pid)
    return runtime if policy in _FAIR else 0


def _sched_attr(pid: int) -> tuple[int, ...]:
    """What the kernel tells of a thread, from its policy on."""
    found = ctypes.create_string_buffer(_SCHED_ATTR.size)
    size, flags = ctypes.c_uint(len(found)), ctypes.c_uint(0)
    _check(_libc.syscall(_SYS_SCHED_GETATTR, ctypes.c_int(pid), found, size, flags), "sched_getattr", pid)
    return _SCHED_ATTR.unpack(found.raw)[1:]


def syncfs(path: Path) -> None:
    """syncfs(2): write everything that waits in memory for the file system that `path` is on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.syncfs(ctypes.c_int(descriptor)), "syncfs", path)
    finally:
        os.close(descriptor)


def freeze(mount_point: Path) -> None:
    """Write a file system out and keep it from being changed, until `thaw`: also if this process ends meanwhile."""
    descriptor = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ioctl(descriptor, FIFREEZE, call="FIFREEZE", what=mount_point)
    finally:
        os.close(descriptor)


def thaw(mount_point: Path) -> bool:
    """Let a file system be changed again; False where it was not frozen."""
    descriptor = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ioctl(descriptor, FITHAW, call="FITHAW", what=mount_point)
    except CallError as error:
        if error.errno == errnos.EINVAL:
            return False
        raise
    finally:
        os.close(descriptor)
    return True


def ext4_shutdown(mount_point: Path) -> None:
    """Stop an ext4 file system at once and write nothing more, not even its log: for disks that are thrown away."""
    descriptor = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = struct.pack("<I", EXT4_GOING_FLAGS_NOLOGFLUSH)
        ioctl(descriptor, EXT4_IOC_SHUTDOWN, flags, call="EXT4_IOC_SHUTDOWN", what=mount_point)
    finally:
        os.close(descriptor)


def ext4_resize(mount_point: Path, blocks: int) -> None:
    """Grow a mounted ext4 file system to `blocks` of its blocks. The kernel demands CAP_SYS_RESOURCE."""
    descriptor = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        size = struct.pack("<Q", blocks)
        ioctl(descriptor, EXT4_IOC_RESIZE_FS, size, call="EXT4_IOC_RESIZE_FS", what=mount_point)
    finally:
        os.close(descriptor)


def sealed_memfd(name: str, data: bytes) -> int:
    """A program in memory that nobody can change any more, also not through /proc. The caller closes the descriptor."""
    return _sealed(name, len(data), [(0, memoryview(data))], executable=True)


def sealed_sparse_memfd(name: str, size: int, portions: Iterable[tuple[int, memoryview]]) -> int:
    """As `sealed_memfd`, not to be executed, with `portions` at their offsets and holes between them."""
    return _sealed(name, size, portions, executable=False)


def _sealed(name: str, size: int, portions: Iterable[tuple[int, memoryview]], *, executable: bool) -> int:
    flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create(name, flags | (_MFD_EXEC if executable else _MFD_NOEXEC))
    except OSError as error:
        if error.errno != errnos.EINVAL:  # both came with Linux 6.3; before it every memfd is executable
            raise CallError("memfd_create", name, error.errno or errnos.EIO) from error
        descriptor = os.memfd_create(name, flags)
    try:
        os.ftruncate(descriptor, size)
        for offset, data in portions:
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], offset + done)
        fcntl.fcntl(descriptor, _F_ADD_SEALS, _ALL_SEALS)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise CallError("seal memfd", name, error.errno or errnos.EIO) from error
        raise
    return descriptor


def never_dump() -> None:
    """Let no core be written of this process, and nobody but the host's root look into its memory: it holds secrets."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl", "PR_SET_DUMPABLE")


def pidfd_open(pid: int) -> int | None:
    """A descriptor of a process, None when there is none with that pid. The caller closes it."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        raise CallError("pidfd_open", pid, error.errno or errnos.EIO) from error


def pidfd_signal(descriptor: int, number: int) -> bool:
    """Send a signal through a pidfd; False when the process has gone."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise CallError("pidfd_send_signal", descriptor, error.errno or errnos.EIO) from error
    return True


def has_capability(number: int) -> bool:
    """Whether this process has a capability (its number in linux/capability.h) in its effective set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False
