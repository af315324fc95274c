"""Reading an instance's log: files in the CRI format that the agent writes and rotates.

The text in them comes from the workload; the frame around it (time, stream, F or P) from the agent.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry. `when` in seconds since the epoch; `partial`: the line goes on in the next entry."""

    when: float
    stamp: str
    stream: str
    text: bytes
    partial: bool


def parse(raw: bytes) -> LogLine | None:
    """One line of the file; None when it is not in the format (cut off by a full disk)."""
    fields = raw.rstrip(b"\n").split(b" ", 3)
    if len(fields) < 4 or fields[1] not in (b"stdout", b"stderr") or fields[2] not in (b"F", b"P"):
        return None
    stamp = fields[0].decode(errors="replace")
    try:
        # fromisoformat takes microseconds; the file has nanoseconds.
        whole, _, fraction = stamp.rstrip("Z").partition(".")
        when = datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}")
    except ValueError:
        return None
    return LogLine(when, stamp, fields[1].decode(), fields[3], fields[2] == b"P")


def files(bundle: Path) -> list[Path]:
    """The log's files that exist, the oldest first."""
    rotated = sorted(bundle.glob("log.[0-9]*"), key=lambda path: -int(path.suffix[1:]))
    return [*rotated, *([bundle / "log"] if (bundle / "log").exists() else [])]


def read(
    bundle: Path,
    *,
    since: float = 0.0,
    until: float = float("inf"),
    tail: int | None = None,
    follow: Callable[[], bool] | None = None,
) -> Iterator[LogLine]:
    """Entries in order, the last `tail` lines of them; then, while `follow()` is true, what is added."""
    opened: list[BinaryIO] = []
    try:
        for path in files(bundle):
            try:
                opened.append(path.open("rb"))
            except FileNotFoundError:
                continue
        wanted = (line for line in _all(opened) if since <= line.when <= until)
        yield from wanted if tail is None else _last(wanted, tail)
        if follow:
            newest = opened.pop() if opened else None
            yield from (line for line in _follow(bundle, newest, follow) if line.when >= since)
    finally:
        for file in opened:
            file.close()


def _all(opened: list[BinaryIO]) -> Iterator[LogLine]:
    for file in opened:
        for raw in iter(file.readline, b""):
            if not raw.endswith(b"\n"):
                file.seek(-len(raw), os.SEEK_CUR)
                break
            line = parse(raw)
            if line:
                yield line


def _last(lines: Iterator[LogLine], count: int) -> Iterator[LogLine]:
    """The last `count` whole lines: an entry marked partial belongs to the one that ends it."""
    kept: deque[list[LogLine]] = deque(maxlen=count)
    current: list[LogLine] = []
    for line in lines:
        current.append(line)
        if not line.partial:
            kept.append(current)
            current = []
    if current:
        kept.append(current)
    for group in kept:
        yield from group


def _follow(bundle: Path, file: BinaryIO | None, follow: Callable[[], bool]) -> Iterator[LogLine]:
    """What is written from now on, over rotations, until `follow()` says that nothing more will come."""
    path = bundle / "log"
    try:
        while True:
            more = follow()
            if file is None and path.exists():
                file = path.open("rb")
            if file is not None:
                yield from _all([file])
                if _rotated(path, file):
                    yield from _all([file])
                    file.close()
                    file = None
                    continue
            if not more:
                return
            time.sleep(POLL_SECONDS)
    finally:
        if file is not None:
            file.close()


def _rotated(path: Path, file: BinaryIO) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
