"""Operations: what the agent is to do, as data. Made by pure functions, read by golden tests, carried out in C.

The codes and arguments are those of docs/reference/agent-protocol.md. An argument is bytes, str or int (8 bytes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Self

Argument = bytes | str | int
MAX_OPERATIONS = 4096
MAX_LIST = 1 << 20


class Code(IntEnum):
    """Operation codes of the protocol."""

    MKDIR = 1
    RMDIR = 2
    WRITE = 3
    READ = 4
    UNLINK = 5
    KILLALL = 6
    CHOWN = 7
    STAGE = 10
    ATTACH = 11
    OVERLAY = 12
    ROOT = 13
    MOUNTDEV = 14
    MOUNT = 20
    BIND = 21
    REBIND = 22
    MASK = 23
    MKDIRS = 24
    FILE = 25
    SYMLINK = 26
    DEVICE = 27
    PIVOT = 28
    SYSCTL = 29
    HOSTNAME = 30
    CONSOLE = 31
    LOOPBACK = 32
    SECRET = 33
    CHDIR = 40
    RLIMIT = 41
    USER = 42
    CAPS = 43
    NO_NEW_PRIVS = 44
    SECCOMP = 45
    UMASK = 46
    OOM_SCORE = 47
    KEYRING = 48
    ENV = 49
    EXEC = 50
    ARGS = 51
    INHERIT = 52
    SECCOMP_FIRST = 53
    PROGRAM = 54
    MODULE = 60
    CLOCK = 61
    ENTROPY = 62
    NETIF = 63
    POWEROFF = 64
    SYNC = 65
    GROW = 66
    SERVE = 67
    MACVLAN = 68


class Attr(IntFlag):
    """MOUNT_ATTR_* of mount_setattr(2), include/uapi/linux/mount.h."""

    NONE = 0
    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    NOATIME = 0x10
    STRICTATIME = 0x20
    NOSYMFOLLOW = 0x200000


_U32, _HEADER, _INTEGER = struct.Struct("<I"), struct.Struct("<HBB"), struct.Struct("<IQ")
IDMAP = 1
RECURSIVE = 2
MISSING_OK = 4


class Hidden(bytes):
    """Bytes that are shown by nobody: not in words, not in an error, not in a traceback. `name`: what they are."""

    name: str

    def __new__(cls, name: str, data: bytes) -> Self:
        """`data`, to be spoken of as `name`."""
        made = super().__new__(cls, data)
        made.name = name
        return made

    def __repr__(self) -> str:
        return f"<{self.name}, {len(self)} bytes>"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return repr(self)

    def decode(self, *_: object, **__: object) -> str:
        """What it is, not what is in it."""
        return repr(self)


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a list. `optional`: a failure is passed over. `report`: its output is kept."""

    code: Code
    arguments: tuple[Argument, ...] = ()
    optional: bool = False
    report: bool = False

    def describe(self) -> str:
        """The step in words, for `--dry-run`, golden tests and error messages."""
        shown = " ".join(_show(argument) for argument in self.arguments)
        marks = (" (optional)" if self.optional else "") + (" (reported)" if self.report else "")
        return f"{self.code.name.lower().replace('_', ' ')} {shown}".rstrip() + marks


def _show(argument: Argument) -> str:
    if isinstance(argument, int | Hidden):
        return str(argument)
    if isinstance(argument, bytes):
        return f"<{len(argument)} bytes>" if len(argument) > 64 or not argument.isascii() else repr(argument.decode())
    return repr(argument) if " " in argument or not argument else argument


def encode(operations: Sequence[Operation]) -> bytes:
    """The list as the agent reads it. ValueError where it is larger than the protocol allows."""
    # One flat loop: a start has 130 operations with 300 arguments, and is waited for.
    parts = [_U32.pack(len(operations))]
    add = parts.append
    for operation in operations:
        arguments = operation.arguments
        if len(arguments) > 255:
            raise ValueError(f"{operation.code.name} has {len(arguments)} arguments, at most 255 fit")
        add(_HEADER.pack(operation.code, operation.optional | operation.report << 1, len(arguments)))
        for argument in arguments:
            if isinstance(argument, int):
                add(_INTEGER.pack(8, argument & 0xFFFFFFFFFFFFFFFF))
                continue
            data = argument.encode("utf-8", "surrogateescape") if isinstance(argument, str) else argument
            add(_U32.pack(len(data)))
            add(data)
    encoded = b"".join(parts)
    if len(operations) > MAX_OPERATIONS or len(encoded) > MAX_LIST:
        raise ValueError(f"{len(operations)} operations of {len(encoded)} bytes are more than the agent takes")
    return encoded


def mkdir(path: Path | str, mode: int = 0o755) -> Operation:
    """Make a directory on the host; an existing one is fine."""
    return Operation(Code.MKDIR, (str(path), mode))


def rmdir(path: Path | str, *, optional: bool = False) -> Operation:
    """Remove an empty directory (a cgroup) on the host; a missing one is fine."""
    return Operation(Code.RMDIR, (str(path),), optional=optional)


def chown(path: Path | str, owner: int) -> Operation:
    """Give a file or directory (of a cgroup) on the host to a uid and the gid of the same number."""
    return Operation(Code.CHOWN, (str(path), owner, owner))


def write(path: Path | str, data: str, *, optional: bool = False) -> Operation:
    """Write to an existing file on the host in one call, as cgroup files want it."""
    return Operation(Code.WRITE, (str(path), data), optional=optional)


def read(path: Path | str, *, optional: bool = True) -> Operation:
    """Read a file on the host into the reports."""
    return Operation(Code.READ, (str(path),), optional=optional, report=True)


def mount(
    kind: str, target: str, *, source: str = "", attrs: Attr = Attr.NONE, data: str = "", optional: bool = False
) -> Operation:
    """Mount a new file system at a path inside the root. `data` is `key=value,key=value`."""
    return Operation(Code.MOUNT, (kind, source or kind, target, int(attrs), data), optional=optional)


def bind(
    source: Path | str, target: str, *, attrs: Attr = Attr.NONE, flags: int = 0, optional: bool = False
) -> Operation:
    """Attach a directory or file of the host at a path inside the root."""
    return Operation(Code.BIND, (str(source), target, int(attrs), flags), optional=optional)


def mountdev(
    device: str, kind: str, name: str, *, attrs: Attr = Attr.NONE, data: str = "", optional: bool = False
) -> Operation:
    """Mount a block device (of a guest) under a name on the stage. `data` is `key=value,key=value`."""
    return Operation(Code.MOUNTDEV, (device, kind, name, int(attrs), data), optional=optional)


def clock(nanoseconds: int) -> Operation:
    """Set a guest's clock; `nanoseconds` as of time.time_ns()."""
    return Operation(Code.CLOCK, divmod(nanoseconds, 10**9))


def netif(
    name: str,
    *,
    mac: bytes = b"",
    addresses: Sequence[str] = (),
    gateway4: str = "",
    gateway6: str = "",
    mtu: int = 0,
) -> Operation:
    """Set up and bring up a guest's interface. `mac`: 6 bytes; `addresses`: `10.0.0.2/24`; empty or 0: leave it."""
    return Operation(Code.NETIF, (name, mac, gateway4, gateway6, mtu, *addresses))


def macvlan(name: str, parent: str, mac: bytes) -> Operation:
    """Make an interface in an instance's new network namespace on top of one of the guest's. `mac`: 6 bytes."""
    return Operation(Code.MACVLAN, (name, parent, mac))


def simple(code: Code, *arguments: Argument, optional: bool = False) -> Operation:
    """Any operation that needs no more than its arguments."""
    return Operation(code, arguments, optional=optional)


def describe(operations: Iterable[Operation]) -> str:
    """A list in words, a line each."""
    return "\n".join(operation.describe() for operation in operations)
