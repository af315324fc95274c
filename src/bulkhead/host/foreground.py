"""A program in this one's place: with its terminal, in namespaces of its own, gone with all that it has mounted."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from bulkhead.host import processes

ENDING = (signal.SIGTERM, signal.SIGHUP)


def run(argv: Sequence[str]) -> int:
    """Run a program to its end in mount and pid namespaces; its exit code, 128 and the number for a signal's.

    TERM and HUP end it, and so does the end of this process: the kernel then ends what it has started and unmounts, in
    order, what it has mounted. INT and QUIT are the terminal's, for the program alone.
    """
    processes.require(processes.CONFINED[0], "util-linux")
    with _signals() as ended:
        process = subprocess.Popen(
            [*processes.CONFINED, *argv], env={"PATH": processes.SAFE_PATH, "LC_ALL": "C.UTF-8", **_terminal()}
        )
        try:
            ended.append(process)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
    return 128 - code if code < 0 else code


def _terminal() -> dict[str, str]:
    return {key: os.environ[key] for key in ("TERM", "COLORTERM") if key in os.environ}


@contextmanager
def _signals() -> Iterator[list[subprocess.Popen[bytes]]]:
    """What is put into the list is killed by a signal that asks for the end."""
    running: list[subprocess.Popen[bytes]] = []

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's
        for process in running:
            process.kill()

    before = [(number, signal.signal(number, end)) for number in ENDING]
    before += [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGQUIT)]
    try:
        yield running
    finally:
        for number, handler in before:
            signal.signal(number, handler)
