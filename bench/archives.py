"""The root file system that every contender runs, and the archive that they import."""

from __future__ import annotations

import copy
import io
import subprocess
import tarfile
from pathlib import Path

RELEASE = "bookworm"
CACHE = Path("/var/cache/bulkhead-tests")
"""Where the tests keep root file systems: debian-*.tar is a minimal Debian."""
MARKER = "bench-marker"


def root_archive(given: Path | None, scratch: Path) -> Path:
    """A tar of a minimal Debian: the given one, one that the tests have made, or one made now (30 s)."""
    if given:
        if not given.is_file():
            raise SystemExit(f"bench: {given} is not a file")
        return given.absolute()
    kept = [path for path in CACHE.glob("debian-*.tar") if not path.name.endswith(".new.tar")]
    if kept:
        return max(kept, key=lambda path: path.stat().st_mtime)
    made = scratch / "debian.tar"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", RELEASE, str(made)], check=True)
    return made


def unpack(archive: Path, directory: Path) -> None:
    """Unpack a root file system for the contenders that run a directory."""
    directory.mkdir(parents=True)
    options = ("--preserve-permissions", "--numeric-owner", "--xattrs", "--xattrs-include=*")
    subprocess.run(["tar", "--extract", *options, f"--file={archive}", f"--directory={directory}"], check=True)


class ImportArchive:
    """A tar of `size` bytes cut from a root file system: the same members in the same order, times at 0.

    One small file in it can be changed in place, so that no two imports have the same digest and no contender can
    answer from what it already stores.
    """

    def __init__(self, path: Path, source: Path, size: int) -> None:
        self.path = path
        self._turn = 0
        with tarfile.open(source) as root, tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as cut:
            marker = tarfile.TarInfo(MARKER)
            marker.size = tarfile.BLOCKSIZE
            cut.addfile(marker, io.BytesIO(bytes(tarfile.BLOCKSIZE)))
            self._offset = cut.offset - tarfile.BLOCKSIZE
            _fill(cut, root, size)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    def renew(self) -> None:
        """Make it another archive of the same size."""
        self._turn += 1
        with self.path.open("r+b") as file:
            file.seek(self._offset)
            file.write(f"{self._turn:08}".encode())


def _fill(cut: tarfile.TarFile, root: tarfile.TarFile, size: int) -> None:
    """Copy members, sorted by name, until the archive has its size: all of the root, then all again in a directory."""
    members = sorted(root.getmembers(), key=lambda member: (member.islnk(), member.name))
    for prefix in ("", *(f"copy{number}/" for number in range(1, 100))):
        taken = set()
        for member in members:
            # Headers of long names, the end of the archive, and the last file come on top of the content.
            full = cut.offset + member.size + 16 * tarfile.BLOCKSIZE > size
            if full or (member.islnk() and member.linkname not in taken):
                continue
            taken.add(member.name)
            content = root.extractfile(member) if member.isreg() else None
            cut.addfile(_renamed(member, prefix), content)
        if not taken:
            break
    rest = size - cut.offset - 4 * tarfile.BLOCKSIZE
    if rest > 0:
        padding = tarfile.TarInfo("bench-padding")
        padding.size = rest
        cut.addfile(padding, io.BytesIO(_bytes(rest)))


def _renamed(member: tarfile.TarInfo, prefix: str) -> tarfile.TarInfo:
    other = copy.copy(member)
    other.mtime, other.pax_headers = 0, {}
    other.name = prefix + member.name
    if member.islnk():
        other.linkname = prefix + member.linkname
    return other


def _bytes(count: int) -> bytes:
    """Fixed bytes that compress about as well as programs do: text whose lines all differ."""
    lines = (f"{line:08x} {line * 2654435761 % (1 << 64):016x}\n" for line in range(count // 26 + 1))
    return "".join(lines).encode()[:count]
