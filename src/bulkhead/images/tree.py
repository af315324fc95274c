"""A layer's files as a tree in memory. Paths of a layer are resolved here and nowhere on the host.

The rules are those of an unpack in a root of its own: names are relative to the root, a parent that is a symlink
is followed inside the tree, the last entry of a name wins. OCI whiteouts (`.wh.name`, `.wh..wh..opq`) become what
overlayfs reads: a character device 0:0, and the mark of an opaque directory.
"""

from __future__ import annotations

import stat

from bulkhead.errors import ImageError
from bulkhead.images.below import Below, Found
from bulkhead.images.bounds import Bounds
from bulkhead.images.node import Node, directory, show

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
MAX_FOLLOWED = 40
"""Symlinks followed for one path, as in Linux."""


class _Walk:
    """A path on its way through the tree: where it has come to, and what of it is left."""

    def __init__(self, root: Node, parts: list[bytes], path: bytes) -> None:
        self.path = path
        self.trail = [(b"", root)]
        """The directories from the root to here, with their names."""
        self._todo = parts[::-1]
        self._followed = 0
        self._own = len(parts)
        """So many components at the bottom of `_todo` are the path's own; those above came out of a symlink."""

    @property
    def here(self) -> Node:
        """The directory that the path has come to."""
        return self.trail[-1][1]

    @property
    def in_link(self) -> bool:
        """Whether the component that `next` returned came out of a symlink."""
        return len(self._todo) >= self._own

    def next(self) -> bytes | None:
        """The next component; None at the end. `..`, which only a symlink can hold, ends at the root."""
        while self._todo:
            self._own = min(self._own, len(self._todo))
            part = self._todo.pop()
            if part != b"..":
                return part
            del self.trail[max(1, len(self.trail) - 1) :]
        return None

    def follow(self, target: bytes) -> None:
        """Go on with a symlink's target in place of its name."""
        self._followed += 1
        if self._followed > MAX_FOLLOWED:
            raise ImageError(f"{show(self.path)} in the layer leads through more than {MAX_FOLLOWED} symlinks")
        if target.startswith(b"/"):
            del self.trail[1:]
        self._own = min(self._own, len(self._todo))
        self._todo.extend(part for part in reversed(target.split(b"/")) if part not in (b"", b"."))


class Tree:
    """The names of one layer."""

    def __init__(self, bounds: Bounds, below: Below) -> None:
        self.root = directory()
        self._below = below
        self._asked: dict[bytes, tuple[Found | None, Node | None]] = {}
        self.names = 0
        self._bounds = bounds
        self._metadata = 0
        self._steps = 0
        self._parents: dict[bytes, Node] = {}
        # Directories by the path as it was written, so that most entries need no walk. Emptied whenever a
        # directory or symlink is replaced, since either can change what a path means.

    def put(self, path: bytes, node: Node) -> None:
        """Enter `node` at `path`. Raises ImageError where the path leaves the layer or leads through a file."""
        parent, name = self._parent(path)
        if not name:
            if not node.is_directory:
                raise ImageError(f"{show(path)} in the layer would replace the root directory")
            _update(self.root, node)
        elif name.startswith(WHITEOUT):
            self._whiteout(parent, name, node, path)
        else:
            self._enter(parent, name, node)
            if stat.S_ISLNK(node.mode) and isinstance(node.content, bytes):
                self._spend(len(node.content))
        if node.xattrs:
            self._spend(sum(len(key) + len(value) for key, value in node.xattrs))

    def link(self, path: bytes, target: bytes) -> None:
        """Enter the node of `target` at `path` as well. Raises ImageError where the layer has no such file."""
        node = self.find(target)
        if node is None or node.is_directory:
            what = "is not in the layer" if node is None else "is a directory"
            raise ImageError(f"hard link {show(path)} in the layer: its target {show(target)} {what}")
        parent, name = self._parent(path)
        if not name or name.startswith(WHITEOUT):
            raise ImageError(f"{show(path)} in the layer cannot be a hard link")
        self._enter(parent, name, node)

    def find(self, path: bytes) -> Node | None:
        """The node at `path`; a symlink at its end is not followed. None where there is none."""
        parts = self.split(path)
        if not parts:
            return self.root
        parent = self._walk(parts[:-1], path, make=False)
        return parent.entries.get(parts[-1]) if parent else None

    def leans_on(self) -> list[tuple[bytes, Found | None]]:
        """What the tree took from the layers below, by path; empty when it would be the same on any others."""
        asked = sorted(self._asked.items())
        return [(path, found) for path, (found, node) in asked if node is None or node.implied]

    def follow(self, path: bytes) -> Node | None:
        """The node at `path` with symlinks followed inside the tree; None where it leads nowhere."""
        for _ in range(MAX_FOLLOWED):
            try:
                node = self.find(path)
            except ImageError:
                return None
            if node is None or not stat.S_ISLNK(node.mode) or not isinstance(node.content, bytes):
                return node
            head = b"" if node.content.startswith(b"/") else path.rpartition(b"/")[0] + b"/"
            path = head + node.content
        return None

    def split(self, path: bytes) -> list[bytes]:
        """The components of a path, relative to the root. Raises ImageError for `..` and what is too long."""
        if len(path) > self._bounds.path:
            raise ImageError(f"a path of {len(path)} bytes in the layer, at most {self._bounds.path} are allowed")
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise ImageError(f"{show(path)} in the layer leads out of it")
        if b"\0" in path:
            raise ImageError(f"{show(path)} in the layer contains a NUL byte")
        if max(map(len, parts), default=0) > self._bounds.name:
            raise ImageError(f"{show(path)} in the layer: a name longer than {self._bounds.name} bytes")
        return parts

    def _parent(self, path: bytes) -> tuple[Node, bytes]:
        head, _, name = path.rpartition(b"/")
        known = self._parents.get(head)
        fits = len(name) <= self._bounds.name and len(path) <= self._bounds.path
        if known and fits and name not in (b"", b".", b"..") and b"\0" not in name:
            return known, name
        parts = self.split(path)
        if not parts:
            return self.root, b""
        for part in parts[:-1]:
            if part.startswith(WHITEOUT):
                raise ImageError(f"{show(path)} in the layer: {show(part)} marks a removed name, not a directory")
        parent = self._walk(parts[:-1], path, make=True)
        assert parent is not None
        if parts[-1] == name:
            self._parents[head] = parent
        return parent, parts[-1]

    def _walk(self, parts: list[bytes], path: bytes, *, make: bool) -> Node | None:
        """The directory at `parts`, symlinks followed inside the tree; what is missing is made or None."""
        walk = _Walk(self.root, parts, path)
        while (part := walk.next()) is not None:
            self._steps += 1
            if self._steps > self._bounds.steps:
                raise ImageError("the layer's paths take too long to follow: its links are made to cost time")
            child = walk.here.entries.get(part)
            if child is None or (child.is_whiteout and make):
                child = self._supply(walk, part, child, make=make)
            if child is None:
                return None
            if isinstance(child.content, bytes):
                walk.follow(child.content)
            elif child.is_directory:
                walk.trail.append((part, child))
            else:
                raise ImageError(f"{show(path)} in the layer leads through {show(part)}, which is not a directory")
        return walk.here

    def _supply(self, walk: _Walk, name: bytes, there: Node | None, *, make: bool) -> Node | None:
        """What a path goes on with where this layer has nothing, or has removed it (`there` is its whiteout)."""
        names = [part for part, _ in walk.trail[1:]] + [name]
        found = None
        if not there and not any(node.opaque for _, node in walk.trail):
            self._steps += len(names)
            found = self._below.find(names)
        if found and found.target:
            self._asked[b"/".join(names)] = (found, None)
            return Node(stat.S_IFLNK, content=found.target)
        if not make:
            return None
        node = directory()
        if found and stat.S_ISDIR(found.mode):
            node.mode, node.uid, node.gid = found.mode, found.uid, found.gid
            node.mtime, node.xattrs = found.mtime, found.xattrs
        elif walk.in_link:
            raise ImageError(f"{show(walk.path)} in the layer leads through a symlink to nowhere")
        node.implied = True
        self._enter(walk.here, name, node)
        self._asked[b"/".join(names)] = (found, node)
        return node

    def _enter(self, parent: Node, name: bytes, node: Node) -> None:
        entries = parent.entries
        there = entries.get(name)
        if there is None:
            self.names += 1
            self._spend(len(name))
            if self.names > self._bounds.entries:
                raise ImageError(f"the layer has more than {self._bounds.entries} files")
        elif there.is_directory and node.is_directory:
            _update(there, node)
            return
        else:
            if there.is_directory or stat.S_ISLNK(there.mode):
                self._parents.clear()
            if there.is_whiteout and node.is_directory:
                # "Removed, and here is a new directory" in one layer: nothing from below may show through.
                node.opaque = True
        entries[name] = node

    def _whiteout(self, parent: Node, name: bytes, node: Node, path: bytes) -> None:
        if node.is_directory:
            raise ImageError(f"{show(path)} in the layer: a mark of a removed name cannot be a directory")
        if name == OPAQUE:
            if parent is self.root:
                raise ImageError("the layer hides everything below its root; squash the image into one layer")
            parent.opaque = True
            return
        hidden = name.removeprefix(WHITEOUT)
        if hidden in (b"", b".", b"..") or hidden.startswith(WHITEOUT):
            raise ImageError(f"{show(path)} in the layer is not a whiteout that the OCI specification knows")
        there = parent.entries.get(hidden)
        if there is None:
            self._enter(parent, hidden, Node(stat.S_IFCHR, mtime=node.mtime))
        elif there.is_directory:
            # A whiteout speaks about the layers below: what this layer itself holds stays.
            there.opaque = True

    def _spend(self, size: int) -> None:
        self._metadata += size
        if self._metadata > self._bounds.metadata:
            raise ImageError(f"the layer's names and attributes are larger than {self._bounds.metadata} bytes")


def _update(there: Node, node: Node) -> None:
    """A directory entered again: new owner, mode and attributes, the same entries."""
    there.mode, there.uid, there.gid = node.mode, node.uid, node.gid
    there.mtime, there.xattrs = node.mtime, node.xattrs
    there.implied = False
