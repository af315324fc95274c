"""Where records are in etcd: /bulkhead/CLUSTER/KIND/KEY; what the store keeps besides is under kinds that begin with ~.

Keys are bytes; etcd orders and compares them as such, which is the order of SQLite too.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

from bulkhead.errors import Problem, Refused
from bulkhead.store.abilities import COMMITTED

_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as etcd has it."""

    key: bytes
    value: bytes
    created: int
    """The revision that it is there since."""
    modified: int
    lease: int

    @classmethod
    def of(cls, raw: dict[str, Any]) -> KeyValue:
        """From the gateway's JSON, which leaves out what is 0 or empty."""
        return cls(
            unpack(raw["key"]),
            unpack(raw.get("value", "")),
            int(raw.get("create_revision", 0)),
            int(raw.get("mod_revision", 0)),
            int(raw.get("lease", 0)),
        )


class Layout:
    """The keys of one cluster. Raises Refused where its name is none."""

    def __init__(self, cluster: str) -> None:
        if not _WORD.fullmatch(cluster):
            hint = "small letters, digits, - and _; at most 64"
            raise Refused([Problem(f"a cluster cannot be called {cluster!r}", hint)])
        self._root = f"/bulkhead/{cluster}/".encode()

    def record(self, kind: str, key: str) -> bytes:
        """A record's. The key is last, so that nothing in it can lead out of its kind."""
        return self._kind(kind) + key.encode()

    def records(self, kind: str, prefix: str = "") -> tuple[bytes, bytes]:
        """(first, end) of the records of a kind whose keys begin so."""
        return span(self.record(kind, prefix))

    def name(self, kind: str, raw: bytes) -> str:
        """The record's key, of what `record` made of it."""
        return raw[len(self._kind(kind)) :].decode()

    def generation(self, kind: str) -> bytes:
        """Written by whoever removes a record of a kind."""
        return self._root + b"~generation/" + kind.encode()

    def slot(self, name: str) -> bytes:
        """Of a client's commits."""
        return self._root + b"~commit/" + name.encode()

    def newest(self) -> bytes:
        """Written by every commit, and compared by none: its last change is of the newest."""
        return self._root + COMMITTED.encode() + b"/"

    def every(self) -> tuple[bytes, bytes]:
        """(first, end) of the records of all kinds and of `newest`: kinds begin with 0 to z, what the store keeps
        besides with ~, and of that COMMITTED comes first.
        """
        return self._root + b"0", span(self.newest())[1]

    def event(self, name: str) -> bytes:
        """One event's."""
        return self._root + b"~event/" + name.encode()

    def everything(self) -> tuple[bytes, bytes]:
        """(first, end) of all that there is of this cluster."""
        return span(self._root)

    def split(self, raw: bytes) -> tuple[bytes, bytes]:
        """(kind, key) of any key in `everything`."""
        kind, _, key = raw[len(self._root) :].partition(b"/")
        return kind, key

    def _kind(self, kind: str) -> bytes:
        if not _WORD.fullmatch(kind):
            raise ValueError(f"{kind!r} is no kind of records")
        return self._root + kind.encode() + b"/"


def span(prefix: bytes) -> tuple[bytes, bytes]:
    """(first, end) of all keys that begin so. UTF-8 has no byte 0xFF, so the last one can be counted up."""
    return prefix, prefix[:-1] + bytes((prefix[-1] + 1,))


def pack(data: bytes) -> str:
    """Bytes as the gateway's JSON has them."""
    return b64encode(data).decode()


def unpack(text: str) -> bytes:
    """The reverse."""
    return b64decode(text)
