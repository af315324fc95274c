"""Whether KVM works on this host, found by booting a guest of a few instructions.

/dev/kvm that opens, and even creates machines, proves nothing: where virtualisation is nested badly, a guest hangs in
its firmware for ever. So a guest goes the way that every other one goes, from the firmware to the entry of PVH, says
a word at a port and resets the machine, at which QEMU ends. What came of it holds until the host boots again or
gets another QEMU.
"""

from __future__ import annotations

import json
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bulkhead.boot.vmm import PACKAGE, PROGRAM
from bulkhead.errors import HostError
from bulkhead.host import facts, processes
from bulkhead.host.workspace import locked

DEVICE = Path("/dev/kvm")
PATIENCE = 3.0
"""Seconds. Where KVM works the guest is through in less than a tenth of one."""
MARK = b"bulkhead: a guest runs\n"
RECORD = "acceleration.json"
_SLOWER = "virtual machines run under TCG, several times slower"
_LOAD = 0x100000


@dataclass(frozen=True, slots=True)
class Acceleration:
    """How guests are run here: by "kvm", or by "tcg" with the reason why not by KVM and what to do about it."""

    accelerator: str
    reason: str = ""
    hint: str = ""


def find(state: Path, *, trial: Callable[[], str] | None = None) -> Acceleration:
    """What guests are run with on this host. Takes 3 seconds at most, and only once in each boot.

    `state`: a directory for the record. `trial` is what tries KVM out and tells why it does not work, "" where it does.
    Raises Unavailable when QEMU is not installed.
    """
    program = processes.require(PROGRAM, PACKAGE)
    if not DEVICE.exists():
        hint = f"{_SLOWER}; load kvm_intel or kvm_amd, or turn virtualisation on in the firmware"
        return Acceleration("tcg", f"there is no {DEVICE}", hint)
    stat = program.stat()
    key = f"{facts.boot_id()} {program} {stat.st_size} {stat.st_mtime_ns}"
    with locked(state / f"{RECORD}.lock"):
        known = _read(state / RECORD, key)
        if known:
            return known
        reason = (trial or try_kvm)()
        hint = f"{_SLOWER}; in a virtual machine, its host must allow nested virtualisation" if reason else ""
        found = Acceleration("tcg" if reason else "kvm", reason, hint)
        draft = state / f"{RECORD}.new"
        draft.write_text(json.dumps({"key": key, **asdict(found)}))
        draft.replace(state / RECORD)
    return found


def _read(record: Path, key: str) -> Acceleration | None:
    """What was found when it was last tried, None when that was under other circumstances."""
    try:
        known = json.loads(record.read_text())
        if known.pop("key") == key:
            return Acceleration(**known)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        pass  # never tried, or the record is damaged: try
    return None


def try_kvm() -> str:
    """Boot the guest under KVM; why that does not work, "" where it does."""
    return try_guest("kvm", guest())


def try_guest(accelerator: str, elf: bytes, *, patience: float = PATIENCE) -> str:
    """Boot an ELF file that should say MARK and reset; what it did instead, "" where it did."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bulkhead-probe-") as directory:
        kernel = Path(directory) / "guest.elf"
        kernel.write_bytes(elf)
        # It ends with the thread that waits for it, since a guest that hangs keeps a core busy; QEMU may abort.
        argv = ["setpriv", "--pdeathsig", "KILL", "--", "prlimit", "--core=0", "--", *command(accelerator, kernel)]
        try:
            said = processes.run(argv, timeout=patience, env={}, package="util-linux")
        except HostError as error:
            if time.monotonic() - began >= patience:
                return f"a trial guest under {accelerator.upper()} hangs: nothing of it within {patience:g} s"
            return f"a trial guest under {accelerator.upper()} does not start: {error.what.partition(': ')[2]}"
    return "" if said == MARK else f"a trial guest under {accelerator.upper()} ended without a word"


def command(accelerator: str, kernel: Path) -> list[str]:
    """QEMU's argv for a guest that has nothing but a port to speak to."""
    return [
        PROGRAM,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", "on"),
        *("-machine", "q35", "-accel", accelerator, "-cpu", "max", "-m", "16M"),
        *("-chardev", "stdio,id=out,signal=off", "-device", "isa-debugcon,iobase=0xe9,chardev=out"),
        *("-kernel", str(kernel)),
    ]


def guest(mark: bytes = MARK) -> bytes:
    """The guest: an ELF file with an entry for PVH, in 32-bit protected mode with flat segments."""
    headers = 64 + 2 * 56
    note_size = 24
    entry = _LOAD + headers + note_size
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", entry)
    program = b"".join(
        (
            b"\xbe" + struct.pack("<I", entry + 24),  # mov esi, mark
            b"\xb9" + struct.pack("<I", len(mark)),  # mov ecx, its length
            b"\xba\xe9\0\0\0",  # mov edx, 0xe9
            b"\xf3\x6e",  # rep outsb
            b"\xb0\xfe\xe6\x64",  # mov al, 0xfe; out 0x64, al: the keyboard's controller resets the machine
            b"\xf4\xeb\xfd",  # hlt; jmp back to it
        )
    )
    assert len(program) == 24
    body = note + program + mark
    size = headers + len(body)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, _LOAD, _LOAD, size, size, 4096)
    notes = struct.pack("<IIQQQQQQ", 4, 4, headers, _LOAD + headers, _LOAD + headers, note_size, note_size, 4)
    return header + load + notes + body
