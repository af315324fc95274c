"""Starting the daemon on first use, where no service manager has it."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bulkhead.cli.output import talk
from bulkhead.cli.places import Places
from bulkhead.client import Client
from bulkhead.errors import Unavailable
from bulkhead.host.processes import start_detached

START_SECONDS = 10.0
POLL_SECONDS = 0.02
LOG = "daemon.log"
SYSTEMD = Path("/run/systemd/system")
"""Exists where systemd runs."""
UNITS = tuple(
    Path(directory, f"bulkhead.{kind}")
    for directory in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
    for kind in ("service", "socket")
)
"""Where one of these exists, systemd has the daemon of the default configuration."""


def start_daemon(client: Client, places: Places, error: Unavailable) -> None:
    """Start the daemon and wait until it answers. Raises Unavailable where it is not ours to start, or does not."""
    if os.geteuid() != 0 or os.environ.get("BULKHEAD_AUTOSTART") == "no":
        raise error
    if not places.file and SYSTEMD.is_dir() and any(unit.exists() for unit in UNITS):
        raise Unavailable(error.what, hint="systemctl start bulkhead")
    run_dir = Path(places.run_dir)
    run_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    with _alone(run_dir / "start.lock"):
        if _answers(client):
            return
        talk("starting the daemon")
        log = run_dir / LOG
        config = ["--config", places.file] if places.file else []
        process = start_detached([sys.executable, "-m", "bulkhead", *config, "serve"], log=log)
        deadline = time.monotonic() + START_SECONDS
        while not _answers(client):
            code = process.poll()
            if code is not None:
                raise Unavailable(f"the daemon ended with {code} instead of starting: {_last(log)}", hint=f"see {log}")
            if time.monotonic() > deadline:
                raise Unavailable(f"the daemon does not answer after {START_SECONDS:g} s", hint=f"see {log}")
            time.sleep(POLL_SECONDS)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Of several commands at once one starts the daemon, the others wait for it."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _answers(client: Client) -> bool:
    try:
        client.connect()
    except Unavailable:
        return False
    return True


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) or "it said nothing"
