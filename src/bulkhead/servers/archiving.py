"""The scripts by which a server's own tar sends files, and what its complaints mean."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field

_OPTIONS = (
    "--no-recursion --null --verbatim-files-from --numeric-owner --sparse --format=pax"
    " --pax-option=delete=atime,delete=ctime --xattrs --xattrs-include=security.capability"
    " --xattrs-include='user.*' --xattrs-include='system.posix_acl*'"
)
_VANISHED = re.compile(r"tar: .*: (File removed before we read it|Cannot (stat|open): No such file or directory)")
_CHANGED = re.compile(r"tar: .*: (file changed as we read it|File shrank by \d+ bytes; padding with zeros)")
_TALK = re.compile(
    r"tar: (Removing leading .*|Exiting with failure status due to previous errors|.*: socket ignored"
    r"|.*: (contains invalid sparse|Warning: Cannot (seek|llistxattrat)).*)"
)
MAX_LINES = 1000


def script(root: str) -> str:
    """What writes a tar of the files whose names are on stdin, each with "./" in front and a NUL behind it."""
    return f"LC_ALL=C; export LC_ALL; cd {shlex.quote(root)} && exec tar {_OPTIONS} -cf - -T -"


def names(paths: Iterable[bytes]) -> bytes:
    """What goes to its stdin."""
    return b"".join(b"./" + path + b"\0" for path in paths)


@dataclass(slots=True)
class Complaints:
    """What a tar has said while it ran."""

    vanished: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """What is wrong with the copy."""

    def hear(self, line: str) -> None:
        """One line of its stderr."""
        if _TALK.fullmatch(line) or not line:
            return
        told = next(
            (told for shape, told in ((_VANISHED, self.vanished), (_CHANGED, self.changed)) if shape.match(line)),
            self.failed,
        )
        if len(told) < MAX_LINES:
            told.append(line)

    def fine(self, code: int) -> bool:
        """Whether an exit code, with what was said, means a whole copy: 1 that files changed, 2 that one had gone."""
        return not self.failed and (code in (0, 1) or (code == 2 and bool(self.vanished)))


def stopping(services: Iterable[str]) -> str:
    """What stops services, says "stopped", and starts them again when its stdin ends, whatever the reason is."""
    units = " ".join(shlex.quote(service) for service in services)
    start = f"systemctl start {units}"
    return (
        f"trap '' PIPE; trap {shlex.quote(start)} EXIT; trap 'exit 1' HUP INT TERM; "
        f"systemctl stop {units} && echo stopped && cat >/dev/null"
    )
