"""Files that a command writes: there whole, or as they were. A device or a pipe is written to, and never replaced."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO


@contextmanager
def written(path: str) -> Iterator[BinaryIO]:
    """What is to become the file at `path`, once the block has ended well. Raises OSError."""
    if is_no_file(path):
        with open(path, "wb") as device:  # noqa: PTH123
            yield device
        return
    draft = f"{path}.{os.getpid()}.new"
    try:
        with open(draft, "xb") as file:  # noqa: PTH123
            yield file
        os.replace(draft, path)  # noqa: PTH105
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)  # noqa: PTH108


def is_no_file(path: str) -> bool:
    """Whether a device, a pipe or a socket is there: /dev/null of a host is not to become a file."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
