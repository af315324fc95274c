"""What the tests of whole lives share: a small plan, waiting for a condition, images that are imported once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.heritage import Estate

PLAN = ("--memory", "64M", "--cpus", "1", "--disk", "64M")
SECONDS = 120.0
Result = TypeVar("Result")


def often(points: Sequence[str], kept: Collection[str]) -> list[object]:
    """Crash points, of which each run has those that are kept: `scripts/test thorough` has the others."""
    return [point if point in kept else pytest.param(point, marks=pytest.mark.thorough) for point in points]


def until(what: str, look: Callable[[], Result], *, seconds: float = SECONDS) -> Result:
    """The first answer of `look` that is true; fails the test when none comes."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)
    return found


def with_image(daemon: Daemon, tar: Path, name: str, *changes: str) -> Daemon:
    """The daemon, once it has an image made of `tar`. `changes` are instructions such as "CMD nginx"."""
    if name not in daemon.cli("image", "ls").stdout:
        lines = [word for change in changes for word in ("--change", change)]
        daemon.cli("image", "import", *lines, tar, name)
    return daemon


@contextmanager
def bequeathed(directory: Path) -> Iterator[tuple[Daemon, Estate]]:
    """A daemon, and what is left of it after the block: the images and templates that it had in the end."""
    with ExitStack() as stack:
        daemon = Daemon(disk_pool=0, network_pool=0)
        stack.callback(daemon.close)
        daemon.start()
        yield daemon, Estate(directory)
        daemon.clear()
        daemon.stop()
        Estate.of(daemon.config, directory)


def has_templates(daemon: Daemon, count: int) -> bool:
    """Whether so many are ready to be started from."""
    return len(list((daemon.config.cache_dir / "templates").glob("*/key.json"))) == count


def state(daemon: Daemon, name: str) -> str:
    """The instance's state, "" when there is no such instance."""
    answer = daemon.api("GET", f"/v1/instances/{name}")
    return str(answer.body["state"]) if answer.status == 200 else ""


@contextmanager
def client(
    daemon: Daemon, *arguments: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """`bulkhead ARGUMENTS` beside the test; ended in the end. A terminal is given as stdin and stdout."""
    process = subprocess.Popen(
        [str(BULKHEAD), *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        env=daemon.environment(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=SECONDS)
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
