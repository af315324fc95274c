"""The kernel's same-page merging: one thread of the host, that looks for equal pages in whatever has asked for it.

It knows no groups: of all memory that was advised to be mergeable, whosever it is, equal pages become one (Linux 6.18,
mm/ksm.c: one stable tree). What was merged can be told by how long a write to it takes, so whoever is allowed to ask is
allowed to find out what others who asked have in memory.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import HostError

ROOT = Path("/sys/kernel/mm/ksm")
STOP, RUN, UNMERGE = "0", "1", "2"
_ASKED = re.compile(r"^VmFlags:.*\bmg\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Ksm:
    """The switch, and a file that remembers how it was before it was ours to turn."""

    kept: Path
    root: Path = ROOT

    def exists(self) -> bool:
        """Whether this kernel can merge."""
        return (self.root / "run").exists()

    def is_ours(self) -> bool:
        """Whether it was turned on by us."""
        return self.kept.exists()

    def is_used(self) -> bool:
        """Whether it runs, or somebody's pages are merged."""
        return self._read("run") == RUN or int(self._read("pages_shared") or 0) > 0

    def saved(self) -> int:
        """Pages that are not in memory because they are equal to others."""
        return int(self._read("pages_sharing") or 0)

    def begin(self) -> None:
        """Turn it on, remembering how it was. Idempotent. Raises HostError."""
        if not self.is_ours():
            self.kept.write_text(self._read("run"))
        self._write(RUN)

    def end(self) -> None:
        """Part what was merged, and leave the switch as it was found. Idempotent. Raises HostError."""
        if self.is_ours():
            self._write(UNMERGE)
            self._write(self.kept.read_text() or STOP)
            self.kept.unlink()

    def _read(self, name: str) -> str:
        with suppress(FileNotFoundError):
            return (self.root / name).read_text().strip()
        return ""

    def _write(self, value: str) -> None:
        try:
            (self.root / "run").write_text(value)
        except OSError as error:
            raise HostError(f"cannot write {value} to {self.root / 'run'}: {error.strerror}") from error


def has_asked(pid: int) -> bool:
    """Whether a process has memory that may be merged; False where it has gone."""
    try:
        return bool(_ASKED.search(Path(f"/proc/{pid}/smaps").read_text()))
    except (FileNotFoundError, ProcessLookupError):
        return False
