"""One root made equal to another over the same image: from a guest's agent to one of the host's.

Both are walked as they are seen from inside, so that nothing of a file system's own bookkeeping crosses the wall. What
has the same owner, mode, size and time of change on both sides comes from the image: no program can set a time of
change, so that whatever was written since has another. The source is hostile: its names, sizes and types are checked,
it gives no more bytes than its disk holds, every directory and file that it tells of takes its place on the target's
disk, which is as large as its plan, and it has a time within which all must be there.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bulkhead.agent.files import PORTION, Entry, Files
from bulkhead.errors import AgentError

NOT_OURS = ("/dev", "/proc", "/sys")
"""What a kernel shows there is no file of the instance's."""
MAX_PATH = 4095
MAX_DROPPED = 20
"""Names of what was left out that are told."""
KEPT_ATTRIBUTES = ("user.", "security.capability", "system.posix_acl_")
"""Beginnings of names. Others belong to a kernel, such as an overlay's."""
BASE_SECONDS, SLOWEST = 900.0, 1 << 20
"""A copy may take so long, and a second more for so many bytes."""
_LEFT_OUT = {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What was done: bytes copied, and what was left out, in words."""

    copied: int
    dropped: tuple[str, ...]


def mirror(source: Files, target: Files, *, most: int, told: Callable[[int], None]) -> Mirrored:
    """Make the target's root as the source's is. `told` gets the bytes copied so far; `most`: no more are taken.

    Raises AgentError (also where the target is full), ProtocolError.
    """
    job = _Mirror(source, target, most, told, deadline=time.monotonic() + BASE_SECONDS + most / SLOWEST)
    job.run()
    return Mirrored(job.copied, tuple(job.dropped[:MAX_DROPPED]))


@dataclass(slots=True)
class _Mirror:
    source: Files
    target: Files
    most: int
    told: Callable[[int], None]
    deadline: float
    copied: int = 0
    dropped: list[str] = field(default_factory=list)
    linked: dict[Entry, str] = field(default_factory=dict)
    """The first name of each file that has several."""
    times: list[tuple[str, int]] = field(default_factory=list)
    """Of directories that were changed, the upper ones first: their own time comes last."""

    def run(self) -> None:
        """The top, then every directory below it."""
        self._attributes("/", self.source.stat("/"))
        pending = [""]
        while pending:
            pending += self._directory(pending.pop())
        for path, mtime in reversed(self.times):
            self.target.set_time(path, mtime)

    def _directory(self, path: str) -> list[str]:
        """Make what is in a directory equal; the directories in it."""
        ours = {entry.name: entry for entry in self.target.list(path or "/")}
        theirs: dict[str, Entry] = {}
        for entry in self.source.list(path or "/"):
            if entry.name in theirs:
                raise AgentError(f"the guest tells of {path}/{entry.name} twice")
            theirs[entry.name] = entry
        self._check(path)
        changed, below = False, []
        for name in sorted({*ours, *theirs}):
            inside = f"{path}/{name}"
            if inside in NOT_OURS:
                continue
            if name not in theirs:
                self._remove(inside, ours[name])
                changed = True
                continue
            changed |= self._entry(inside, theirs[name], ours.get(name))
            if stat.S_ISDIR(theirs[name].mode):
                below.append(inside)
        if changed and path:
            self.times.append((path, self.source.stat(path).mtime))
        return below

    def _check(self, path: str) -> None:
        if len(path) > MAX_PATH:
            raise AgentError(f"the guest tells of a path of more than {MAX_PATH} bytes: {path[:80]}...")
        if time.monotonic() > self.deadline:
            raise AgentError("the guest takes too long to give its files")

    def _entry(self, path: str, theirs: Entry, ours: Entry | None) -> bool:
        """Make one equal; whether that changed anything in its directory."""
        if ours and _same(theirs, ours):
            return False
        kind = stat.S_IFMT(theirs.mode)
        if ours and (stat.S_ISDIR(ours.mode) or stat.S_ISDIR(theirs.mode)) and stat.S_IFMT(ours.mode) != kind:
            self._remove(path, ours)
            ours = None
        if kind in _LEFT_OUT:
            self.dropped.append(f"{path}: {_LEFT_OUT[kind]}")
            if ours:
                self._remove(path, ours)
            return ours is not None
        owner = {"mode": stat.S_IMODE(theirs.mode), "uid": theirs.uid, "gid": theirs.gid}
        if kind == stat.S_IFDIR:
            if ours is None:
                self.target.mkdir(path, **owner)
            self._attributes(path, theirs)
            self.times.append((path, theirs.mtime))
        elif kind == stat.S_IFLNK:
            self.target.symlink(path, self.source.stat(path).target, uid=theirs.uid, gid=theirs.gid)
            self.target.set_time(path, theirs.mtime)
        elif kind == stat.S_IFIFO:
            self.target.make_pipe(path, **owner)
            self.target.set_time(path, theirs.mtime)
        else:
            self._file(path, theirs)
        return True

    def _file(self, path: str, theirs: Entry) -> None:
        if theirs.nlink > 1:
            first = self.linked.setdefault(replace(theirs, name=""), path)
            if first != path:
                self.target.link(path, first)
                return
        self.target.create(path, mode=stat.S_IMODE(theirs.mode), uid=theirs.uid, gid=theirs.gid)
        self._content(path, theirs.size)
        # After the contents: writing takes a file's capabilities off.
        self._attributes(path, theirs)
        self.target.set_time(path, theirs.mtime)

    def _content(self, path: str, size: int) -> None:
        offset = 0
        while offset < size:
            begin, end = self.source.data(path, offset)
            if not offset <= begin <= end <= size:
                raise AgentError(f"the guest tells of bytes {begin} to {end} of {path}, which has {size}")
            offset = begin
            while offset < end:
                data = self.source.read(path, offset, min(PORTION, end - offset))
                if not data:
                    raise AgentError(f"{path} became shorter while it was copied")
                self._count(path, len(data))
                self.target.write(path, offset, data)
                offset += len(data)
            if begin == end:
                break
        self.target.truncate(path, size)

    def _count(self, path: str, more: int) -> None:
        self.copied += more
        if self.copied > self.most:
            raise AgentError(f"the guest gives more than the {self.most} bytes that its disk has, last of {path}")
        self._check(path)
        self.told(self.copied)

    def _attributes(self, path: str, theirs: Entry) -> None:
        """Owner, mode and extended attributes of a file or directory."""
        found = self.source.attributes(path)
        if stat.S_ISDIR(theirs.mode):
            self.target.set_owner(path, mode=stat.S_IMODE(theirs.mode), uid=theirs.uid, gid=theirs.gid)
        for name, value in found.items():
            if name.startswith(KEPT_ATTRIBUTES):
                self.target.set_attribute(path, name, value)
            else:
                self.dropped.append(f"{path}: the attribute {name}")

    def _remove(self, path: str, entry: Entry) -> None:
        """Ours, with all that is in it: what an image had, at most."""
        if not stat.S_ISDIR(entry.mode):
            self.target.remove(path)
            return
        found, pending = [path], [path]
        while pending:
            top = pending.pop()
            for child in list(self.target.list(top)):
                inside = f"{top}/{child.name}"
                if stat.S_ISDIR(child.mode):
                    found.append(inside)
                    pending.append(inside)
                else:
                    self.target.remove(inside)
        for directory in reversed(found):
            self.target.remove(directory)


def _same(theirs: Entry, ours: Entry) -> bool:
    """Whether both are the image's; of a link the target is as well, since it cannot be changed."""
    return (theirs.mode, theirs.uid, theirs.gid, theirs.size, theirs.mtime, theirs.changed, theirs.device) == (
        ours.mode,
        ours.uid,
        ours.gid,
        ours.size,
        ours.mtime,
        ours.changed,
        ours.device,
    )
