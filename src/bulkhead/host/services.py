"""Helper programs that run for long: started once, found again after the daemon's restart, ended by their pid.

The program puts itself into the background and writes its pid file; beside it lies the process's start time, so
that a pid which has gone to somebody else is never signalled.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import HostError
from bulkhead.host import processes, syscalls

_PATIENCE = 5.0
"""Seconds that a program has to end after TERM, and again after KILL."""


@dataclass(frozen=True, slots=True)
class Service:
    """One helper program, known by its pid file."""

    pid_file: Path

    @property
    def _identity_file(self) -> Path:
        return self.pid_file.with_suffix(".started")

    def start(
        self, argv: Sequence[str | Path], *, package: str = "", program: str = "", env: Mapping[str, str] = {}
    ) -> None:
        """Start the program, which goes to the background once it serves. It must be told of the pid file, by its
        arguments or its environment. `program`: its name, where `argv` begins with what starts it.

        Raises Unavailable when it is not installed, HostError with its words when it does not come up.
        """
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self._clear()
        self._end_strays(program or Path(argv[0]).name)
        processes.run(argv, package=package, timeout=20.0, env=env)
        pid = self._wait_for_pid() if program else self._pid()
        started = processes.start_time(pid) if pid else None
        if not pid or started is None:
            raise HostError(f"{argv[0]} ended right after its start", hint="see the system's log")
        self._identity_file.write_text(f"{pid} {started}\n")

    def _wait_for_pid(self) -> int | None:
        """Of what is in the background before it has written it down."""
        deadline = time.monotonic() + _PATIENCE
        while (pid := self._pid()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return pid

    def running(self) -> int | None:
        """Its pid, None when it does not run."""
        return self._identity()[0]

    def signal(self, number: int) -> bool:
        """Send a signal; False when it does not run."""
        pid, started = self._identity()
        if pid is None:
            return False
        descriptor = syscalls.pidfd_open(pid)
        if descriptor is None:
            return False
        try:
            return processes.start_time(pid) == started and syscalls.pidfd_signal(descriptor, number)
        finally:
            os.close(descriptor)

    def stop(self) -> bool:
        """End it and remove its files; False when it did not run. Idempotent."""
        pid, started = self._identity()
        if pid is not None and started is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                self.signal(number)
                if processes.wait_gone(pid, started, timeout=_PATIENCE):
                    break
            else:
                raise HostError(f"process {pid} of {self.pid_file} cannot be ended")
        self._clear()
        return pid is not None

    def _end_strays(self, program: str) -> None:
        """End what a crash has left between a start and the pid file: it holds the addresses that are wanted."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or not self._is_ours(int(entry.name), program):
                continue
            pid, started = int(entry.name), processes.start_time(int(entry.name))
            descriptor = syscalls.pidfd_open(pid)
            if descriptor is None or started is None:
                continue
            try:
                # Once more: what is open now is what was looked at, or has gone.
                if self._is_ours(pid, program) and syscalls.pidfd_signal(descriptor, signal.SIGKILL):
                    processes.wait_gone(pid, started, timeout=_PATIENCE)
            finally:
                os.close(descriptor)

    def _clear(self) -> None:
        self.pid_file.unlink(missing_ok=True)
        self._identity_file.unlink(missing_ok=True)

    def _identity(self) -> tuple[int | None, int | None]:
        """Pid and start time while it runs. After a crash between start and record the command line has to do."""
        pid = self._pid()
        now = processes.start_time(pid) if pid else None
        if pid is None or now is None:
            return None, None
        try:
            known = self._identity_file.read_text().split() == [str(pid), str(now)]
        except FileNotFoundError:
            known = self._mentioned_by(pid)
        return (pid, now) if known else (None, None)

    def _is_ours(self, pid: int, program: str) -> bool:
        """Whether a process is this program, told of our pid file."""
        try:
            first = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
        except OSError:
            return False
        return os.fsdecode(first).rpartition("/")[2] == program and self._mentioned_by(pid)

    def _mentioned_by(self, pid: int) -> bool:
        told = os.fsencode(self.pid_file)
        try:
            return any(told in Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            return False

    def _pid(self) -> int | None:
        try:
            return int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
