"""Programs started and timed from the outside: from before they are spawned to when they have been reaped."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Peers come from Debian packages: nothing in /usr/local takes their place."""


class Unusable(Exception):
    """A contender cannot be measured here; the text says why."""


def environment(**extra: str) -> dict[str, str]:
    """The environment that every contender gets."""
    return {"PATH": SYSTEM_PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **extra}


def find(program: str, package: str) -> str:
    """Where a peer's program is. Raises Unusable when its package is not installed."""
    found = shutil.which(program, path=SYSTEM_PATH)
    if not found:
        raise Unusable(f"{program} is not installed (Debian package {package})")
    return found


def timed(argv: Sequence[str], *, env: dict[str, str] | None = None) -> float:
    """Milliseconds that a program takes to succeed. Raises Unusable with what it wrote to stderr when it fails."""
    said = os.memfd_create("stderr", os.MFD_CLOEXEC)
    try:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, said, 2),
        ]
        start = time.perf_counter()
        pid = os.posix_spawn(argv[0], list(argv), env or environment(), file_actions=actions)
        _, status = os.waitpid(pid, 0)
        took = time.perf_counter() - start
        if code := os.waitstatus_to_exitcode(status):
            text = os.pread(said, 1 << 16, 0).decode(errors="replace").strip().splitlines()
            raise Unusable(f"`{' '.join(argv)}` failed with {code}: {' / '.join(text[-3:]) or 'no message'}")
    finally:
        os.close(said)
    return took * 1000


def output(argv: Sequence[str], *, env: dict[str, str] | None = None) -> str:
    """What a program writes to stdout; untimed. Raises Unusable when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, env=env or environment(), check=False)
    if done.returncode:
        raise Unusable(f"`{' '.join(argv)}` failed with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def wait_until(ready: Callable[[], bool], *, what: str, log: Path, seconds: float = 30.0) -> None:
    """Wait for a daemon. Raises Unusable with the end of its log when it does not come up in time."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise Unusable(f"{what} did not come up within {seconds:g} s: {last_words(log)}")
        time.sleep(0.02)


def last_words(log: Path) -> str:
    """The last line of a daemon's log."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no message")
