"""What Bulkhead's small init of a unikernel is told: who runs what with which words. agent/src/solo.c reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead.errors import Refused

VERSION = "2"
"""Of what the init understands; an image's annotation names it."""
WRITABLE = ("/tmp", "/run", "/var/tmp")  # noqa: S108 - in a guest
"""Where every program finds memory that it may write to: the rest is read-only."""
DISK = "/disk"
"""Where the instance's disk is, if it has one."""
_MAX_SIZE, _MAX_FIELDS = 64 << 10, 2048


@dataclass(frozen=True, slots=True)
class Settings:
    """One program."""

    uid: int
    gid: int
    directory: str
    program: str
    arguments: Sequence[str]
    """With the program's own name in front."""
    environment: Sequence[str]
    writable: Sequence[str]

    def encode(self) -> bytes:
        """Texts that end in NUL; of a list its length, then as many; an empty one. Raises Refused for too much."""
        given = (self.arguments, self.environment, self.writable)
        lists = [word for words in given for word in (str(len(words)), *words)]
        fields = [str(self.uid), str(self.gid), self.directory, self.program, *lists, ""]
        if any("\0" in field for field in fields):
            raise Refused("a word of the command or the environment holds a NUL byte")
        data = b"".join(field.encode(errors="surrogateescape") + b"\0" for field in fields)
        if len(data) >= _MAX_SIZE or len(fields) > _MAX_FIELDS:
            raise Refused("the command or its environment is too large for a unikernel", hint="at most 64 KiB")
        return data


def find_user(text: str, passwd: bytes, group: bytes) -> tuple[int, int]:
    """The ids of "user[:group]", names or numbers, by the image's files. Raises Refused."""
    name, colon, group_name = text.partition(":")
    uid, gid = 0, 0
    if name:
        row = next((row for row in _rows(passwd, 4) if name in (row[0], row[2])), None)
        if row is None and not name.isdigit():
            raise Refused(f"user {name!r} is not in the image's /etc/passwd", hint="give a number")
        uid, gid = (int(row[2]), int(row[3])) if row else (int(name), 0)
    if colon:
        found = next((row for row in _rows(group, 3) if group_name in (row[0], row[2])), None)
        if found is None and not group_name.isdigit():
            raise Refused(f"group {group_name!r} is not in the image's /etc/group", hint="give a number")
        gid = int(found[2]) if found else int(group_name)
    return uid, gid


def _rows(data: bytes, least: int) -> list[list[str]]:
    rows = [line.split(":") for line in data.decode(errors="replace").splitlines()]
    return [row for row in rows if len(row) >= least and all(row[n].isdigit() for n in range(2, least))]
