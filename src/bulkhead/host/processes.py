"""Programs of the host. Nothing else in Bulkhead starts one."""

from __future__ import annotations

import fcntl
import math
import os
import resource
import select
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from bulkhead.errors import HostError, Unavailable
from bulkhead.host import syscalls

_HIGH_FD = 512
SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CONFINED = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
)
"""In front of an argv: the program ends, with all that it has started, with the thread that waits for it, and what it
mounts is never the host's. Of the package util-linux."""


def find(program: str) -> Path | None:
    """Where a program is, looked up in the system's directories alone."""
    found = shutil.which(program, path=SAFE_PATH)
    return Path(found) if found else None


def require(program: str, package: str = "") -> Path:
    """Where a program is. Raises Unavailable when it is not installed (`package` names what brings it)."""
    found = find(program)
    if found is None:
        raise Unavailable(f"{program} is not installed", hint=f"apt install {package or program}")
    return found


def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes | None = None,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    package: str = "",
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
) -> bytes:
    """Run a program to its end and return what it wrote to stdout.

    Raises Unavailable when it is not installed (`package` names what brings it), HostError with the last lines of
    its stderr when it fails or takes longer than `timeout` seconds.
    """
    program = Path(argv[0]) if Path(argv[0]).is_absolute() else require(str(argv[0]), package)
    try:
        done = subprocess.run(
            [str(program), *map(str, argv[1:])],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            env={"PATH": SAFE_PATH, "LC_ALL": "C.UTF-8", **(os.environ if env is None else env)},
            pass_fds=pass_fds,
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{argv[0]} took longer than {timeout:g} s") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-5:]
        raise HostError(f"{argv[0]} failed with {done.returncode}: {' / '.join(said) or 'no message'}")
    return done.stdout


@contextmanager
def stream(
    argv: Sequence[str | Path],
    *,
    on_line: Callable[[str], None],
    env: Mapping[str, str],
    package: str = "",
    pass_fds: Sequence[int] = (),
    grace: float = 10.0,
) -> Iterator[Iterator[bytes]]:
    """Run a program; yields what it writes to stdout, in chunks as it comes. Lines of its stderr go to `on_line`.

    The chunks end in HostError instead of an end of file when the program fails. When the caller leaves early, the
    program and its children get TERM and, after `grace` seconds, KILL; with 0 KILL at once. `env` is all of its
    environment but PATH and LC_ALL.
    """
    program = require(str(argv[0]), package)
    process = subprocess.Popen(
        [str(program), *map(str, argv[1:])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": SAFE_PATH, "LC_ALL": "C.UTF-8", **env},
        pass_fds=pass_fds,
        start_new_session=True,
    )
    with ExitStack() as stack:
        assert process.stdout is not None
        assert process.stderr is not None
        stack.enter_context(process.stderr)
        listener = _Listener(process, process.stderr, on_line, grace)
        stack.callback(listener.thread.join, 5)
        stack.enter_context(process.stdout)
        stack.callback(_end_group, process, grace)
        yield _output(process, process.stdout, str(argv[0]), listener)


class _Listener:
    """Hands on the lines of a program's stderr, in a thread. When that fails, the program is ended."""

    def __init__(
        self, process: subprocess.Popen[bytes], stderr: IO[bytes], on_line: Callable[[str], None], grace: float
    ) -> None:
        self.last: deque[str] = deque(maxlen=5)
        self.failure: Exception | None = None
        self._process = process
        self._stderr = stderr
        self._on_line = on_line
        self._grace = grace
        self.thread = threading.Thread(target=self._listen, name="stderr", daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        for raw in self._stderr:
            line = raw[:4096].decode(errors="replace").rstrip()
            if line:
                self.last.append(line)
            if self.failure is None:
                try:
                    self._on_line(line)
                except Exception as error:  # the caller's, raised again in its own thread
                    self.failure = error
                    _end_group(self._process, self._grace)


def _output(process: subprocess.Popen[bytes], stdout: IO[bytes], name: str, listener: _Listener) -> Iterator[bytes]:
    while chunk := os.read(stdout.fileno(), 1 << 20):
        yield chunk
    code = process.wait()
    listener.thread.join(timeout=5)
    if listener.failure:
        raise listener.failure
    if code:
        raise HostError(f"{name} failed with {code}: {' / '.join(listener.last) or 'no message'}")


def _end_group(process: subprocess.Popen[bytes], grace: float) -> None:
    """End what is left of a program that leads its own session. Its group's number is its own until it is reaped."""
    with suppress(ProcessLookupError):  # another thread has reaped it just now
        if process.poll() is None and grace:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def spawn(executable: str, argv: Sequence[str], *, fds: Mapping[int, int]) -> int:
    """Start a child that has the file descriptors `fds` (there: here) alone; its pid. It is never waited for here.

    Uses posix_spawn, whose cost does not grow with this process. Raises HostError when it cannot be executed.
    """
    with ExitStack() as stack:
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, stdio, os.devnull, os.O_RDWR, 0) for stdio in range(3)
        ]
        for target, source in fds.items():
            # A number above every target, so that no dup2 in the child covers the source of a later one.
            high = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)
            stack.callback(os.close, high)
            actions.append((os.POSIX_SPAWN_DUP2, high, target))
        try:
            return os.posix_spawn(
                executable,
                list(argv),
                {"PATH": SAFE_PATH},
                file_actions=actions,
                setsigmask=[],
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
        except OSError as error:
            raise HostError(f"{argv[0]} could not be executed: {error.strerror}") from error


def start_time(pid: int) -> int | None:
    """Start of a process in clock ticks after boot (field 22 of proc(5) stat); None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] == b"Z" else int(fields[19])


def parent(pid: int) -> tuple[int, int] | None:
    """The pid of a process's parent, and its own start time in clock ticks after boot; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[1]), int(fields[19])


def kill(pid: int, started: int | None, number: int = signal.SIGKILL) -> None:
    """Send a signal to the process that has this pid and start time, if it is still there."""
    if (pidfd := _open(pid, started)) is None:
        return
    try:
        syscalls.pidfd_signal(pidfd, number)
    finally:
        os.close(pidfd)


def can_write(pid: int, size: int) -> bool:
    """Whether a process may write files of `size` bytes, or `raise_file_size` can let it."""
    return _file_size(pid) >= size or syscalls.has_capability(syscalls.CAP_SYS_RESOURCE)


def raise_file_size(pid: int, size: int) -> None:
    """Let a process write files of `size` bytes. Raises HostError where this daemon may not."""
    if _file_size(pid) >= size:
        return
    try:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))
    except (OSError, ValueError) as error:
        hint = "the daemon needs CAP_SYS_RESOURCE for that"
        raise HostError(f"process {pid} cannot be allowed files of {size} bytes: {error}", hint=hint) from error


def _file_size(pid: int) -> float:
    # Not by prlimit(2): of a process in a user namespace of its own even reading takes CAP_SYS_RESOURCE.
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has ended: nothing holds it back
        return math.inf
    hard = next(line.split()[4] for line in lines if line.startswith("Max file size"))
    return math.inf if hard == "unlimited" else int(hard)


def wait_gone(pid: int, started: int, *, timeout: float) -> bool:
    """Wait for the end of a process that need not be a child; False when it is still there after `timeout` seconds."""
    if (pidfd := _open(pid, started)) is None:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(pidfd)


def is_stopped(pid: int, started: int) -> bool:
    """Whether a process with this identity is there and stopped (SIGSTOP, a debugger): it does nothing until CONT."""
    if start_time(pid) != started:
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(b")") + 2 :].split()[0] in (b"T", b"t")


def holding(directory: Path, executable: str) -> list[tuple[int, int]]:
    """(pid, start time) of every process of a program that has a directory open.

    `executable` is what /proc/PID/exe begins with. Looks through all of /proc: for when nothing else helps.
    """
    wanted, found = str(directory.resolve()), []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if not str((process / "exe").readlink()).startswith(executable):
                continue
            held = any(str(each.readlink()) == wanted for each in (process / "fd").iterdir())
        except OSError:  # it has ended, or is one of the kernel's
            continue
        started = start_time(int(process.name))
        if held and started is not None:
            found.append((int(process.name), started))
    return found


def _open(pid: int, started: int | None) -> int | None:
    """A pidfd of the process with this identity, or None when it has gone (and another may have its pid)."""
    if (pidfd := syscalls.pidfd_open(pid)) is None:
        return None
    # What the pid means is checked after the pidfd holds it, so that it cannot change in between.
    if started is None or start_time(pid) != started:
        os.close(pidfd)
        return None
    return pidfd


def start_detached(argv: Sequence[str | Path], *, log: Path) -> subprocess.Popen[bytes]:
    """Start a program that outlives this one: a session of its own, nothing on stdin, its talk appended to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )
