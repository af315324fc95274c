"""Files that nobody but root reads, and that others see whole or not at all."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

DRAFT = ".new"
"""What the name of one that is being written ends in."""


def create(path: Path) -> int:
    """A new file, open for writing. Raises FileExistsError: what stands there is neither opened nor followed."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def write(path: Path, data: bytes) -> None:
    """Put a file at `path`, in the place of what is there: on the disk for good when this returns.

    One writer at a time. After a crash what was there before is there, and a draft that the next writer removes.
    """
    draft = path.with_name(path.name + DRAFT)
    draft.unlink(missing_ok=True)
    with ExitStack() as undo:
        descriptor = create(draft)
        undo.callback(draft.unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        undo.pop_all()
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
