"""lxcfs: /proc files that show an instance its own limits instead of the host's. One server per daemon.

It is a FUSE file system, mounted in the daemon's mount namespace, whose server outlives the daemon: a restarted daemon
finds it again. Where it ends, containers that show its files lose them until they are started again.
"""

from __future__ import annotations

import json
import logging
import signal
import time
from contextlib import suppress
from pathlib import Path

from bulkhead.errors import BulkheadError, HostError
from bulkhead.host import mounts, processes

log = logging.getLogger(__name__)
START_SECONDS = 10.0
STOP_SECONDS = 5.0
# CPU quotas count as numbers of processors; pidfds tell a process from another that has got its pid.
OPTIONS = ("--enable-cfs", "--enable-pidfd")
# Its own log would never be rotated. The shell hands over to setsid, which forks, so that nobody here is its parent.
IN_BACKGROUND = ("sh", "-c", 'exec setsid --fork "$@" </dev/null >/dev/null 2>&1', "sh")


class Lxcfs:
    """The server of one daemon, below its run directory."""

    def __init__(self, run_dir: Path) -> None:
        self.directory = run_dir / "lxcfs"
        """Where it is mounted: the tree has proc/ and sys/ in it."""
        self._record = run_dir / "lxcfs.json"
        self._pid_file = run_dir / "lxcfs.pid"

    def ensure(self) -> Path:
        """Where it is mounted, having been started unless it runs. Raises Unavailable, HostError."""
        if not self.is_healthy():
            self.stop()
            self._start()
        return self.directory

    def try_ensure(self) -> None:
        """The same, for who can do without: what is missing then is in the daemon's log."""
        try:
            self.ensure()
        except BulkheadError as error:
            log.warning("containers see the host's memory and processors in /proc: %s (%s)", error, error.hint)

    def is_healthy(self) -> bool:
        """Whether our server lives and answers."""
        identity = self._identity()
        if identity is None or processes.start_time(identity[0]) != identity[1]:
            return False
        try:
            return (self.directory / "proc/meminfo").read_text().startswith("MemTotal")
        except OSError:
            return False

    def mounted(self) -> Path | None:
        """Where it is mounted; None where it could not be started."""
        return self.directory if (self.directory / "proc").is_dir() else None

    def stop(self) -> None:
        """End it and remove its mount. Does nothing when there is none."""
        identity = self._identity()
        if identity is not None:
            processes.kill(*identity, signal.SIGTERM)
            if not processes.wait_gone(*identity, timeout=STOP_SECONDS):
                processes.kill(*identity)
                processes.wait_gone(*identity, timeout=STOP_SECONDS)
        if self.directory.parent.exists():
            # A dead server's mount answers ENOTCONN to everything but this. Containers keep theirs busy.
            while mounts.is_mounted(self.directory):
                mounts.unmount(self.directory, lazy=True)
            with suppress(FileNotFoundError):
                self.directory.rmdir()
        for file in (self._record, self._pid_file):
            file.unlink(missing_ok=True)

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        command = ["lxcfs", "--foreground", *OPTIONS, f"--pidfile={self._pid_file}", str(self.directory)]
        processes.require("lxcfs")
        processes.run([*IN_BACKGROUND, *command])
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                self.stop()
                raise HostError(
                    f"lxcfs did not answer within {START_SECONDS:g} s",
                    hint=f"run it by hand to see why: {' '.join(command)}",
                )
            time.sleep(0.01)

    def _answers(self) -> bool:
        """Whether a server that was just started is ready; writes down which process it is."""
        try:
            pid = int(self._pid_file.read_text())
            started = processes.start_time(pid)
            if started is None or not mounts.is_mounted(self.directory):
                return False
            self._record.write_text(json.dumps({"pid": pid, "started": started}))
        except (OSError, ValueError):
            return False
        return self.is_healthy()

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = json.loads(self._record.read_text())
            return int(found["pid"]), int(found["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
