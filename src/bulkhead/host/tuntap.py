"""Taps: links whose other end is a process that moves Ethernet frames, such as a hypervisor."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from bulkhead.host import syscalls
from bulkhead.host.syscalls import CallError

TUN = Path("/dev/net/tun")
_SETIFF, _SETPERSIST, _SETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_TAP, _NO_PI, _VNET_HDR, _ONLY_NEW = 0x0002, 0x1000, 0x4000, 0x8000


def add_tap(name: str, *, owner: int) -> None:
    """A tap in the network namespace of the calling thread, for processes of the host uid `owner`. It is down.

    It stays until it, or its namespace, is removed. Raises CallError.
    """
    try:
        descriptor = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = "modprobe tun"
        raise CallError("open", TUN, error.errno or 0, hint=hint) from error
    try:
        request = struct.pack("16sH22x", name.encode(), _TAP | _NO_PI | _VNET_HDR | _ONLY_NEW)
        syscalls.ioctl(descriptor, _SETIFF, request, call="TUNSETIFF", what=name)
        # The call takes an int, in which uids of the upper half are negative numbers.
        syscalls.ioctl(descriptor, _SETOWNER, ctypes.c_int(owner).value, call="TUNSETOWNER", what=name)
        syscalls.ioctl(descriptor, _SETPERSIST, 1, call="TUNSETPERSIST", what=name)
    finally:
        os.close(descriptor)
