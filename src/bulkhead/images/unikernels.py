"""Images of the kind "unikernel": a kernel with its application, in the layers of an ordinary OCI image.

Annotations say where: those of Unikraft's kraft (org.unikraft.kernel.*) or of urunc (com.urunc.unikernel.*), in the
manifest or among the config's labels. Files that are imported become images with the same annotations.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bulkhead.errors import ImageError
from bulkhead.images import bootable
from bulkhead.images.archive import open_file
from bulkhead.images.below import Below
from bulkhead.images.config import Layer, Unikernel
from bulkhead.images.reader import file_chunks

KERNEL = ("org.unikraft.kernel.image", "com.urunc.unikernel.binary")
INITRD = ("org.unikraft.kernel.initrd", "com.urunc.unikernel.initrd")
CMDLINE = ("org.unikraft.kernel.cmdline", "com.urunc.unikernel.cmdline")
TYPE = "com.urunc.unikernel.unikernelType"
HYPERVISOR = "com.urunc.unikernel.hypervisor"
OURS = "org.bulkhead.unikernel.init"
"""Of the images that Bulkhead makes: the version of what its small init understands."""
TYPES = ("linux", "unikraft", "mirage", "rumprun", "other")
"""How a kernel's command line is written; what urunc calls otherwise is "other"."""
KERNEL_PATH, INITRD_PATH = "/unikernel/kernel", "/unikernel/initrd"
"""Where the two files are in images that are made here."""
MAX_CMDLINE = 2048
"""Linux takes no longer one on x86 (COMMAND_LINE_SIZE)."""
_MAX_PATH = 1024


def said(annotations: Mapping[str, str], labels: Mapping[str, str]) -> Unikernel | None:
    """What an image says of its kernel; None where it is no unikernel. Raises ImageError with all that is wrong."""
    given = {**labels, **annotations}
    kernel = _first(given, KERNEL)
    if not kernel:
        return None
    initrd, cmdline, problems = _first(given, INITRD), _first(given, CMDLINE), []
    for what, path in (("kernel", kernel), ("initrd", initrd)):
        problems += _path_problems(what, path)
    problems += cmdline_problems(cmdline)
    if given.get(HYPERVISOR, "qemu") != "qemu":
        problems.append(f"it is made for the hypervisor {given[HYPERVISOR][:40]!r}, not for QEMU")
    if problems:
        raise ImageError(f"the unikernel's annotations are wrong: {'; '.join(problems)}")
    return Unikernel(kernel=kernel, initrd=initrd, cmdline=cmdline, type=_type_of(given), own=given.get(OURS, ""))


def _first(given: Mapping[str, str], keys: Sequence[str]) -> str:
    return next((given[key] for key in keys if given.get(key)), "")


def _type_of(given: Mapping[str, str]) -> str:
    named = given.get(TYPE, "").lower()
    if named:
        return named if named in TYPES else "other"
    return "unikraft" if KERNEL[0] in given else "other"


def _path_problems(what: str, path: str) -> list[str]:
    if not path:
        return []
    if len(path) > _MAX_PATH or not path.isprintable():
        return [f"the path of its {what} is too long, or no text"]
    if not path.startswith("/") or {"..", "."} & set(path.split("/")):
        return [f"the path of its {what}, {path[:80]!r}, is not absolute, or leads elsewhere"]
    return []


def cmdline_problems(cmdline: str) -> list[str]:
    """What is wrong with a kernel's command line."""
    if len(cmdline.encode()) > MAX_CMDLINE:
        return [f"the command line has {len(cmdline.encode())} bytes, at most {MAX_CMDLINE} are allowed"]
    return [] if not cmdline or cmdline.isprintable() else ["the command line is not one line of text"]


def check(unikernel: Unikernel, files: Sequence[int]) -> str:
    """Look at the kernel in the layers' EROFS files, the highest first. Its form; ImageError where it does not boot."""
    merged = Below(files)
    parts = components(unikernel.kernel)
    size = _size(merged, unikernel.kernel, "kernel")
    if unikernel.initrd and _size(merged, unikernel.initrd, "initrd") > bootable.MAX_SIZE:
        raise ImageError(f"the initrd {unikernel.initrd} is larger than {bootable.MAX_SIZE} bytes")
    return bootable.examine(lambda at, most: merged.read_at(parts, at, most), size, f"the kernel {unikernel.kernel}")


def components(path: str) -> tuple[bytes, ...]:
    """A path's components, from the root."""
    return tuple(part.encode() for part in path.split("/") if part)


def _size(merged: Below, path: str, what: str) -> int:
    found = merged.find(components(path))
    if found is None:
        raise ImageError(f"the image has no {path}, which is to be its {what}")
    if not stat.S_ISREG(found.mode):
        raise ImageError(f"{path}, which is to be the image's {what}, is no regular file")
    return found.size


def layer_of(layers: Sequence[Layer], path: str) -> Layer:
    """The layer whose file is at a path: the highest that has it. Raises ImageError where none has."""
    with ExitStack() as stack:
        for number in reversed(range(len(layers))):
            merged = Below([open_file(layer.erofs, stack) for layer in (layers[number],)])
            if merged.find(components(path)):
                return layers[number]
    raise ImageError(f"the image has no {path}")


def check_layers(unikernel: Unikernel, layers: Sequence[Layer]) -> str:
    """The same for an image of the store."""
    with ExitStack() as stack:
        return check(unikernel, [open_file(layer.erofs, stack) for layer in reversed(layers)])


def annotated(cmdline: str, *, type_: str, initrd: bool, own: str = "") -> dict[str, str]:
    """What a manifest says of a unikernel that is made here, in both vocabularies."""
    pairs = [(KERNEL, KERNEL_PATH), (INITRD, INITRD_PATH if initrd else ""), (CMDLINE, cmdline)]
    made = {key: value for keys, value in pairs for key in keys if value}
    return {**made, TYPE: type_, HYPERVISOR: "qemu", **({OURS: own} if own else {})}


def archive(kernel: Path, initrd: Path | None, stack: ExitStack) -> Iterator[bytes]:
    """A tar of the two files, where `annotated` says that they are."""
    given = [(KERNEL_PATH, kernel), *([(INITRD_PATH, initrd)] if initrd else [])]
    yield _header("unikernel/", 0, 0o755, b"5")
    for path, file in given:
        fd, size = open_file(file, stack), file.stat().st_size
        yield _header(path.lstrip("/"), size, 0o644, b"0")
        yield from file_chunks(fd)
        yield bytes(-size % 512)
    yield bytes(1024)


def _header(name: str, size: int, mode: int, kind: bytes) -> bytes:
    """A header in tar's ustar format. The same files always give the same layer."""
    head = bytearray(512)
    fields = ((0, name.encode()), (100, b"%07o" % mode), (108, b"%07o" % 0), (116, b"%07o" % 0))
    for at, text in (*fields, (124, b"%011o" % size), (136, b"%011o" % 0), (148, b" " * 8), (156, kind)):
        head[at : at + len(text)] = text
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)
