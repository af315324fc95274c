"""ELF files, as far as is needed to boot one or to find the libraries of one. All of it may be hostile: bounded.

Format: the System V ABI, chapters 4 and 5; the note of PVH is described in Xen's include/public/elfnote.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAGIC = b"\x7fELF"
I386, AMD64 = 3, 62
"""Machines."""
HEADER = 64
"""Bytes that tell whether a file is ELF, and where the rest is."""
_LITTLE_ENDIAN = 1
_LOAD, _DYNAMIC, _INTERP, _NOTE = 1, 2, 3, 4
_NEEDED, _STRTAB, _STRSZ, _RPATH, _RUNPATH = 1, 5, 10, 15, 29
_PHYS32_ENTRY = 18
"""XEN_ELFNOTE_PHYS32_ENTRY: where PVH enters, as a 32-bit physical address."""
_MAX_SEGMENTS, _MAX_NOTES, _MAX_DYNAMIC, _MAX_STRINGS, _MAX_PATH = 256, 1 << 20, 1 << 20, 16 << 20, 4096
_MAX_NEEDED = 512

ReadAt = Callable[[int, int], bytes]
"""At most so many bytes of a file from an offset on; fewer where it ends."""


class Damaged(ValueError):
    """What is wrong with the file, in words."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header."""

    kind: int
    offset: int
    address: int
    size: int
    """Bytes in the file."""
    end: int
    """Physical address of its end in memory."""


@dataclass(frozen=True, slots=True)
class Elf:
    """A file's headers."""

    bits: int
    """32 or 64."""
    machine: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """What the dynamic loader of a program or library is told."""

    interpreter: str
    """The loader's path; "" where there is none."""
    libraries: tuple[str, ...]
    paths: tuple[str, ...]
    """Directories to look in first, with $ORIGIN as it stands there."""


def is_elf(head: bytes) -> bool:
    """Whether a file that begins so says that it is one."""
    return head.startswith(MAGIC)


def of_bytes(data: bytes) -> ReadAt:
    """A file that is in memory."""
    return lambda at, size: data[at : at + size]


def read(read_at: ReadAt) -> Elf:
    """The headers. Raises Damaged."""
    head = read_at(0, HEADER)
    if not is_elf(head) or len(head) < 52 or head[4] not in (1, 2) or head[5] != _LITTLE_ENDIAN:
        raise Damaged("it is no ELF file of a little-endian machine")
    bits = 32 * head[4]
    if bits == 64 and len(head) < HEADER:
        raise Damaged("it ends within its ELF header")
    machine = struct.unpack_from("<H", head, 18)[0]
    table = struct.unpack_from("<Q" if bits == 64 else "<I", head, 32 if bits == 64 else 28)[0]
    entry_size, count = struct.unpack_from("<HH", head, 54 if bits == 64 else 42)
    if count > _MAX_SEGMENTS or (count and entry_size != (56 if bits == 64 else 32)):
        raise Damaged(f"its {count} program headers of {entry_size} bytes are none of ELF's")
    data = read_at(table, count * entry_size)
    if len(data) < count * entry_size:
        raise Damaged("it ends within its program headers")
    return Elf(bits, machine, tuple(_segment(data, at, bits) for at in range(0, len(data), entry_size or 1)))


def _segment(data: bytes, at: int, bits: int) -> Segment:
    if bits == 64:
        kind, _, offset, address, physical, size, memory = struct.unpack_from("<IIQQQQQ", data, at)
    else:
        kind, offset, address, physical, size, memory = struct.unpack_from("<IIIIII", data, at)
    return Segment(kind, offset, address, size, physical + memory)


def end_in_memory(elf: Elf) -> int:
    """The physical address of the end of all that is loaded; 0 where nothing is."""
    return max((segment.end for segment in elf.segments if segment.kind == _LOAD), default=0)


def pvh_entry(elf: Elf, read_at: ReadAt) -> int | None:
    """The physical address at which PVH enters a kernel; None where it has no such entry."""
    for segment in elf.segments:
        if segment.kind == _NOTE and segment.size <= _MAX_NOTES:
            found = _entry_among(read_at(segment.offset, segment.size))
            if found is not None:
                return found
    return None


def _entry_among(notes: bytes) -> int | None:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name_at = at + 12
        data_at = name_at + _up(name_size)
        at = data_at + _up(size)
        is_entry = kind == _PHYS32_ENTRY and notes[name_at : name_at + name_size] == b"Xen\0"
        if is_entry and size in (4, 8) and data_at + size <= len(notes):
            return int.from_bytes(notes[data_at : data_at + size], "little")
    return None


def _up(size: int) -> int:
    return -(-size // 4) * 4


def needs(elf: Elf, read_at: ReadAt) -> Needs:
    """What a program or library is to be loaded with. Raises Damaged."""
    interpreter = ""
    for segment in elf.segments:
        if segment.kind == _INTERP:
            if segment.size > _MAX_PATH:
                raise Damaged("the path of its loader is too long")
            interpreter = _text(read_at(segment.offset, segment.size), 0)
    entries = list(_dynamic(elf, read_at))
    first = dict(reversed(entries))
    if _STRTAB not in first:
        return Needs(interpreter, (), ())
    size = min(first.get(_STRSZ, 0), _MAX_STRINGS)
    strings = read_at(_offset_of(elf, first[_STRTAB]), size)
    libraries = tuple(_text(strings, value) for tag, value in entries if tag == _NEEDED)
    if len(libraries) > _MAX_NEEDED:
        raise Damaged(f"it needs {len(libraries)} libraries, at most {_MAX_NEEDED} are allowed")
    listed = first.get(_RUNPATH, first.get(_RPATH))
    paths = _text(strings, listed).split(":") if listed is not None else []
    return Needs(interpreter, libraries, tuple(path for path in paths if path))


def _dynamic(elf: Elf, read_at: ReadAt) -> Iterator[tuple[int, int]]:
    form = struct.Struct("<QQ" if elf.bits == 64 else "<II")
    for segment in elf.segments:
        if segment.kind != _DYNAMIC:
            continue
        if segment.size > _MAX_DYNAMIC:
            raise Damaged("its table for the dynamic loader is too long")
        data = read_at(segment.offset, segment.size)
        for at in range(0, len(data) - form.size + 1, form.size):
            tag, value = form.unpack_from(data, at)
            if tag == 0:
                break
            yield tag, value


def _offset_of(elf: Elf, address: int) -> int:
    for segment in elf.segments:
        if segment.kind == _LOAD and segment.address <= address < segment.address + segment.size:
            return segment.offset + address - segment.address
    raise Damaged(f"address {address:#x} is in none of its segments")


def _text(data: bytes, at: int) -> str:
    end = data.find(b"\0", at)
    if not 0 <= at < len(data) or end < 0:
        raise Damaged("a text in it does not end")
    if end - at > _MAX_PATH:
        raise Damaged("a path in it is too long")
    try:
        return data[at:end].decode()
    except UnicodeDecodeError as error:
        raise Damaged(f"a text in it is no UTF-8: {data[at:end][:40]!r}") from error
