"""What is in secrets: a file each, in a directory that nobody but root may enter. Nothing here is encrypted.

A file is named by a random id that its record has, written once and never changed: another value is another file.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from bulkhead.errors import HostError, NotFound
from bulkhead.host import private

_ID = re.compile(r"[0-9a-f]{32}")


class SecretFiles:
    """The files below `directory`. Safe to use from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, identifier: str, value: bytes) -> None:
        """Keep a value, on the disk when this returns. After an error it may be there: `delete` it."""
        path = self._path(identifier)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        private.write(path, value)

    def read(self, identifier: str) -> bytes:
        """A value. Raises NotFound."""
        try:
            return self._path(identifier).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"the value {identifier[:12]} of a secret is not there", hint="create it anew") from None

    def delete(self, identifier: str) -> None:
        """Forget a value. Idempotent. What the disk's blocks hold is the file system's own affair."""
        self._path(identifier).unlink(missing_ok=True)

    def recover(self, known: Collection[str]) -> list[str]:
        """After a crash: remove every file that no record knows, half-written ones among them. Says which."""
        found = []
        if self._directory.exists():
            for path in self._directory.iterdir():
                if path.name not in known:
                    path.unlink()
                    found.append(f"value {path.name[:12]} of a secret without a record removed")
        return found

    def _path(self, identifier: str) -> Path:
        if not _ID.fullmatch(identifier):
            raise HostError(f"{identifier[:40]!r} is no id of a secret's value")
        return self._directory / identifier
