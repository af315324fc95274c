"""What a guest that is kept warm rehearses its start with: a layer that holds nothing but a program that ends at once.

It stands in the place of an image's layers. The program is a page, so that little code of a process is left in the
guest's memory: where TCG has translated code of a page, every write to that page is slow until all of it has gone.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from bulkhead.errors import HostError
from bulkhead.host import processes
from bulkhead.host.workspace import locked

PROGRAM = "/true"
_FILE = "rehearsal.erofs"
_BASE = 0x400000
_EXIT_0 = bytes.fromhex("b83c000000 31ff 0f05")
"""mov $60, %eax; xor %edi, %edi; syscall."""


def layer(cache: Path) -> Path:
    """The layer's file, made when it is not there. Raises Unavailable without mkfs.erofs, HostError."""
    made = cache / _FILE
    if made.exists():
        return made
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    tree, draft = cache / "rehearsal", cache / f"{_FILE}.new"
    with locked(cache / "rehearsal.lock"):
        try:
            shutil.rmtree(tree, ignore_errors=True)
            draft.unlink(missing_ok=True)
            for name in ("dev", "etc", "proc", "sys"):
                (tree / name).mkdir(parents=True)
            program = tree / PROGRAM.lstrip("/")
            program.write_bytes(executable())
            program.chmod(0o755)
            processes.run(
                ["mkfs.erofs", "--quiet", "--all-root", "-T0", draft, tree], timeout=60, package="erofs-utils"
            )
            draft.replace(made)
        except OSError as error:
            raise HostError(f"the layer for rehearsals could not be made: {error}") from error
        finally:
            shutil.rmtree(tree, ignore_errors=True)
    return made


def executable() -> bytes:
    """A static ELF program for x86-64 that ends with 0."""
    header, segment = 64, 56
    size = header + segment + len(_EXIT_0)
    entry = _BASE + header + segment
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, entry, header, 0, 0, header, segment, 1, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return head + load + _EXIT_0
