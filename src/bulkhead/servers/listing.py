"""Every file of a server, as its own `find` lists them, and what is different between two such lists."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bulkhead.errors import Refused

MAX_ENTRIES, MAX_PATH = 4_000_000, 4096
MAX_BYTES = 1 << 30
"""Of a whole list: names are held in memory."""
_FORM = r"%y %m %U %G %s %T@ %C@ %i\0%l\0%p\0"
_KINDS = frozenset("fdlpscbD")
PRUNED = ("./proc", "./sys", "./dev", "./run", "./tmp", "./var/tmp")
"""Not even looked at. The directories themselves are listed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file. Sizes in bytes."""

    kind: str
    """find's letter: f, d, l, p (pipe), s (socket), c and b (devices), D (door)."""
    mode: int
    uid: int
    gid: int
    size: int
    times: str
    """Of the content's and of the node's last change, and the node's number: not the same where it was touched."""
    target: bytes = b""
    """Where a link leads."""


Listing = Mapping[bytes, Entry]
"""By path, without a slash in front."""


def script(root: str, starts: Sequence[str]) -> str:
    """What lists a root. `starts`: the file systems to look at, as "." and "./srv"."""
    pruned = " -o ".join(f"-path {shlex.quote(path)}" for path in PRUNED)
    looked = " ".join(shlex.quote(start) for start in starts)
    return (
        f"cd {shlex.quote(root)} && exec find {looked} -xdev"
        f" \\( {pruned} \\) -printf {shlex.quote(_FORM)} -prune -o -printf {shlex.quote(_FORM)}"
    )


def parse(chunks: Iterable[bytes]) -> dict[bytes, Entry]:
    """What `script` has said. Raises Refused where that is no such list, or too long."""
    found: dict[bytes, Entry] = {}
    fields: list[bytes] = []
    for field in _fields(chunks):
        fields.append(field)
        if len(fields) == 3:
            facts, target, path = fields
            fields = []
            name = _name(path)
            if name:
                found[name] = _entry(facts, target)
            if len(found) > MAX_ENTRIES:
                raise Refused(f"the server has more than {MAX_ENTRIES} files", hint="leave some out with --exclude")
    if fields:
        raise Refused("the server's list of files ends in the middle")
    return found


def _fields(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest, total = b"", 0
    for chunk in chunks:
        total += len(chunk)
        *whole, rest = (rest + chunk).split(b"\0")
        if total > MAX_BYTES or len(rest) > 2 * MAX_PATH:
            raise Refused(f"the server's list of files is longer than {MAX_BYTES} bytes, or has a name that is")
        yield from whole
    if rest:
        raise Refused("the server's list of files ends in the middle")


def _name(path: bytes) -> bytes:
    """Without the dot in front; b"" for the root itself."""
    if path == b".":
        return b""
    if not path.startswith(b"./") or len(path) > MAX_PATH or b".." in path.split(b"/"):
        raise Refused(f"the server lists a file {path[:200]!r}, which is below no root")
    return path[2:]


def _entry(facts: bytes, target: bytes) -> Entry:
    words = facts.split(b" ")
    try:
        kind, mode, uid, gid, size = words[0].decode("ascii"), int(words[1], 8), *map(int, words[2:5])
    except (ValueError, IndexError):
        raise Refused(f"the server describes a file as {facts[:80]!r}") from None
    if kind not in _KINDS or len(words) != 8 or min(mode, uid, gid, size) < 0 or len(target) > MAX_PATH:
        raise Refused(f"the server describes a file as {facts[:80]!r}")
    return Entry(kind, mode, uid, gid, size, b" ".join(words[5:]).decode("ascii", "replace"), target)


@dataclass(frozen=True, slots=True)
class Difference:
    """What has happened from one list to a later one."""

    changed: tuple[bytes, ...]
    """New or touched, each after the directory that it is in."""
    gone: tuple[bytes, ...]
    """No longer there; of a directory that has gone nothing that was in it."""


def difference(before: Listing, after: Listing) -> Difference:
    """From `before` to `after`. A directory that came in place of a file, or the other way, counts as changed."""
    changed = tuple(path for path in sorted(after) if before.get(path) != after[path])
    gone = {path for path in before if path not in after}
    return Difference(changed, tuple(sorted(path for path in gone if not _above(path, gone, after))))


def _above(path: bytes, gone: set[bytes], after: Listing) -> bool:
    """Whether taking away or replacing something above takes this away too."""
    parent = path.rpartition(b"/")[0]
    while parent:
        if parent in gone or (parent in after and after[parent].kind != "d"):
            return True
        parent = parent.rpartition(b"/")[0]
    return False
