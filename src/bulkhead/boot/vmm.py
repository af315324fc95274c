"""The root of a hypervisor's jail: an EROFS file with QEMU, its libraries and its firmware, and nothing else.

Made from what this host has installed, once for every state of these files: the file's name says which.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bulkhead.errors import HostError, Unavailable
from bulkhead.events import Progress, Step, quiet
from bulkhead.host import processes
from bulkhead.host.workspace import locked

PROGRAM, PACKAGE = "qemu-system-x86_64", "qemu-system-x86"
IN_ROOT = f"/usr/bin/{PROGRAM}"
"""Where QEMU is in the root, wherever the host has it."""
MOUNT_POINTS = ("dev", "proc", "run")
FIRMWARE = (
    "bios-256k.bin",  # SeaBIOS: q35 and pc
    "bios-microvm.bin",
    "qboot.rom",  # q35 with a Linux kernel
    "kvmvapic.bin",
    "linuxboot_dma.bin",  # -kernel of a bzImage
    "multiboot_dma.bin",  # -kernel of a multiboot ELF file
    "pvh.bin",  # -kernel of an ELF file
    "vgabios-stdvga.bin",
    "efi-e1000.rom",
    "efi-e1000e.rom",
    "efi-virtio.rom",
)
MODULES = ("accel-tcg-x86_64.so",)
"""Parts of QEMU that Debian ships as libraries of their own; there are none where it is built in one piece."""
UEFI, UEFI_VARIABLES = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
"""Firmware for guests that boot by UEFI, and its variables, a file of each guest's own."""
_LOADER = Path("/lib64/ld-linux-x86-64.so.2")
"""Part of the platform's ABI: the same everywhere."""
_FORMAT = 1
"""Part of the key: to be raised when the way the file is made changes."""
_LIBRARY = re.compile(r"^\s+(\S+) => (/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)


Stamp = tuple[str, Path, int, int]
"""A file's path in the root, its path on the host, its size and time of change (ns)."""


@dataclass(frozen=True, slots=True)
class Vmm:
    """A hypervisor that is ready to be jailed."""

    erofs: Path
    digest: str
    """`sha256:<hex>` of what the file was made from: to know it by, as layers are known."""
    version: str
    """QEMU's, with the package's: "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"."""
    uefi: str
    """The UEFI firmware's path in the root, "" where this host has none."""
    stamps: tuple[Stamp, ...] = field(default=(), repr=False)
    """The files that it was made from, as they were."""
    variables: Path | None = None
    """On the host: the UEFI's variables as they are in a new machine, of which each guest gets a copy."""

    def is_current(self) -> bool:
        """Whether it is still what `prepare` would give. Costs a look at each file, no more."""
        try:
            return self.erofs.exists() and _stamps({inside: path for inside, path, _, _ in self.stamps}) == self.stamps
        except FileNotFoundError:
            return False


def prepare(cache: Path, *, progress: Progress = quiet) -> Vmm:
    """The root for the QEMU that is installed now; made when it is not there, in a second or two.

    Roots of other states are removed: what runs in one keeps it. Raises Unavailable without QEMU, HostError when its
    libraries or firmware are not found.
    """
    files = plan()
    stamps = _stamps(files)
    digest = hashlib.sha256(repr((_FORMAT, stamps)).encode()).hexdigest()
    directory = cache / "vmm"
    made = directory / f"{digest}.erofs"
    if not made.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(directory / "lock"):
            if not made.exists():
                progress(Step("making the jail of the hypervisor"))
                _write(files, directory, made, digest)
            for other in directory.glob("*.erofs"):
                if other != made:
                    other.unlink()
    uefi = str(UEFI) if str(UEFI) in files else ""
    return Vmm(
        erofs=made,
        digest=f"sha256:{digest}",
        version=qemu_version(),
        uefi=uefi,
        variables=UEFI_VARIABLES if uefi else None,
        stamps=stamps,
    )


def plan() -> dict[str, Path]:
    """What goes into the root: files of the host by their paths in it."""
    program = processes.require(PROGRAM, PACKAGE)
    modules = _modules(program)
    libraries = _libraries([program, *modules])
    files = {IN_ROOT: program, str(_LOADER): _LOADER}
    files |= {str(path): path for path in (*modules, *libraries, *_firmware(program))}
    if UEFI.is_file() and UEFI_VARIABLES.is_file():
        files[str(UEFI)] = UEFI
    return files


def qemu_version() -> str:
    """What QEMU says of itself. Raises Unavailable when it is not installed."""
    said = processes.run([PROGRAM, "--version"], env={}, package=PACKAGE).decode(errors="replace")
    found = re.search(r"version (.+)", said)
    if not found:
        raise HostError(f"{PROGRAM} does not tell its version: {said[:200]!r}")
    return found[1].strip()


def accelerators() -> tuple[str, ...]:
    """What QEMU is built with: "tcg", "kvm". Whether KVM works here is another question: see probe."""
    said = processes.run([PROGRAM, "-accel", "help"], env={}, package=PACKAGE).decode(errors="replace")
    return tuple(line.strip() for line in said.splitlines()[1:] if line.strip())


def _libraries(programs: Iterable[Path]) -> list[Path]:
    """Every library that the dynamic loader takes for them, at the path where it finds it."""
    found: dict[Path, None] = {}
    for program in programs:
        said = processes.run([_LOADER, "--list", program], env={}, package="libc6").decode(errors="replace")
        missing = re.findall(r"(\S+) => not found", said)
        if missing:
            raise HostError(f"{program} lacks {', '.join(missing)}", hint=f"apt install --reinstall {PACKAGE}")
        found.update(dict.fromkeys(Path(path) for _, path in _LIBRARY.findall(said)))
    return list(found)


def _firmware(program: Path) -> list[Path]:
    """Where QEMU finds each file of its firmware. Raises Unavailable naming all that it does not find."""
    said = processes.run([program, "-L", "help"], env={}, package=PACKAGE).decode(errors="replace")
    directories = [Path(os.path.normpath(line)) for line in said.splitlines() if line.startswith("/")]
    found, missing = [], []
    for name in FIRMWARE:
        path = next((directory / name for directory in directories if (directory / name).is_file()), None)
        if path:
            found.append(path)
        else:
            missing.append(name)
    if missing:
        looked = ", ".join(map(str, directories)) or "nowhere"
        raise Unavailable(
            f"QEMU's firmware {', '.join(missing)} is missing: looked in {looked}",
            hint="apt install seabios ipxe-qemu qemu-system-data",
        )
    return found


def _modules(program: Path) -> list[Path]:
    """QEMU's own loadable parts that are needed."""
    library = program.parent.parent / "lib"
    places = [library / "qemu", *sorted(library.glob("*/qemu"))]
    return [place / name for name in MODULES for place in places if (place / name).is_file()]


def _stamps(files: Mapping[str, Path]) -> tuple[Stamp, ...]:
    """What the files are like now. Their content counts by size and time, as make counts it."""
    stats = ((inside, path, path.stat()) for inside, path in sorted(files.items()))
    return tuple((inside, path, stat.st_size, stat.st_mtime_ns) for inside, path, stat in stats)


def _write(files: Mapping[str, Path], directory: Path, target: Path, digest: str) -> None:
    """Copy the files into a tree and the tree into an EROFS file. What a crash left of either is written over."""
    tree, draft = directory / "tree", directory / "draft"
    shutil.rmtree(tree, ignore_errors=True)
    try:
        for name in MOUNT_POINTS:
            _directory(tree, Path("/") / name)
        for inside, source in files.items():
            parent = _directory(tree, _without_links(Path(inside).parent, tree))
            shutil.copyfile(source, parent / Path(inside).name)
            (parent / Path(inside).name).chmod(0o755 if os.access(source, os.X_OK) else 0o644)
        uuid = f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
        argv = ["mkfs.erofs", "--quiet", "--all-root", "-T0", f"-U{uuid}", str(draft), str(tree)]
        draft.unlink(missing_ok=True)
        processes.run(argv, timeout=300, package="erofs-utils")
        draft.replace(target)
    except OSError as error:
        raise HostError(f"the jail's root could not be made: {error}", hint=f"make room below {directory}") from error
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _without_links(directory: Path, tree: Path) -> Path:
    """Where a directory is in truth. A link of the host's at the top, such as /lib, becomes a link in the tree."""
    top = Path("/") / directory.parts[1]
    if top.is_symlink():
        tree.mkdir(exist_ok=True)
        here = tree / top.relative_to("/")
        if not here.is_symlink():
            here.symlink_to(top.readlink())
    return directory.resolve()


def _directory(tree: Path, directory: Path) -> Path:
    """Make a directory of the tree that everybody may enter, whatever the umask; its path."""
    made = tree
    for part in ("", *directory.parts[1:]):
        made = made / part
        made.mkdir(exist_ok=True)
        made.chmod(0o755)
    return made
