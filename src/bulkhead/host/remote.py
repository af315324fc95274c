"""Shells elsewhere: of another host by the system's ssh, of this one, of a guest. One interface for all of them.

ssh is the user's own: its configuration, keys, agent and questions. One connection carries everything (ControlMaster).
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bulkhead.errors import HostError, Refused
from bulkhead.host import processes

_LINE, _CHUNK = 4096, 1 << 18
_HEARD = 3
"""Lines of its stderr that are told where a script fails; it may say as much as it likes."""
_KEEP = 60
"""Seconds that ssh's connection outlives a client that was killed."""
CONNECT_SECONDS = 600.0
"""Somebody may have to type a password."""
HELD_SECONDS = 30.0
_NOTHING_LENT = ("-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "ClearAllForwardings=yes")
"""The server may be hostile: whatever ssh's configuration lends to those it knows, it gets no agent, no display, no way
back. Options that are given come before these, and win.
"""


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs scripts of a POSIX shell somewhere. `before`: the argv that the script is the last word of."""

    where: str
    """In words."""
    before: tuple[str, ...]
    quoted: bool = False
    """Whether another shell reads the script first."""
    sudo: bool = False

    def argv(self, script: str) -> list[str]:
        """What runs a script."""
        words = [*(("sudo", "-n", "--") if self.sudo else ()), "sh", "-c", script]
        return [*self.before, shlex.join(words)] if self.quoted else [*self.before, *words]

    def run(self, script: str, *, stdin: bytes = b"", limit: int, timeout: float = 600.0) -> bytes:
        """What a script says, at most `limit` bytes. Raises HostError where it fails or says more."""
        deadline = time.monotonic() + timeout
        parts, size, heard = [], 0, deque[str](maxlen=_HEARD)
        with self.stream(script, stdin=stdin, on_line=heard.append) as running:
            # Who says nothing at all would be waited for without an end.
            watch = threading.Timer(timeout, running.end)
            watch.daemon = True
            watch.start()
            try:
                for chunk in running.chunks:
                    parts.append(chunk)
                    size += len(chunk)
                    if size > limit:
                        raise HostError(f"{self.where} answers with more than {limit} bytes")
                code = running.finish()
            finally:
                watch.cancel()
            if time.monotonic() > deadline:
                raise HostError(f"{self.where} takes longer than {timeout:g} s to answer")
        if code != 0:
            said = " / ".join(line for line in heard if line) or "no message"
            raise HostError(f"{self.where}: a command failed with {code}: {said}")
        return b"".join(parts)

    @contextmanager
    def stream(self, script: str, *, stdin: bytes, on_line: Callable[[str], None]) -> Iterator[Running]:
        """Run a script; its output comes in chunks. Lines of its stderr go to `on_line`, in a thread of their own."""
        with ExitStack() as stack:
            # A file, not a pipe: nobody has to feed it while its output is read.
            given = stack.enter_context(tempfile.TemporaryFile())
            given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(
                self.argv(script), stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
            assert process.stdout and process.stderr
            stack.enter_context(process.stdout)
            stack.callback(_end, process)
            listener = threading.Thread(target=_hear, args=(process.stderr, on_line), name="stderr", daemon=True)
            listener.start()
            running = Running(process, process.stdout, listener)
            yield running
            running.finish()

    @contextmanager
    def held(self, script: str, *, ready: str) -> Iterator[None]:
        """Run a script that says a line, `ready`, and ends when its stdin does: also when this process is killed.

        Raises HostError where it ends without that line.
        """
        process = subprocess.Popen(
            self.argv(script),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin and process.stdout and process.stderr
        with process.stdin, process.stdout, process.stderr:
            try:
                line = process.stdout.readline(_LINE).decode(errors="replace").strip()
                if line != ready:
                    said = process.stderr.read(_LINE).decode(errors="replace").strip()
                    raise HostError(f"{self.where}: {said or line or 'the command ended without a word'}")
                yield
            finally:
                with suppress(BrokenPipeError):
                    process.stdin.close()
                try:
                    process.wait(HELD_SECONDS)
                finally:
                    _end(process)


@dataclass(slots=True)
class Running:
    """A script that runs, and what it says on stdout."""

    _process: subprocess.Popen[bytes]
    _stdout: IO[bytes]
    _listener: threading.Thread
    chunks: Iterator[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.chunks = iter(lambda: os.read(self._stdout.fileno(), _CHUNK), b"")

    def end(self) -> None:
        """Stop it with all that it has started: what waits for its output sees the end of it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def finish(self) -> int:
        """Pass over what it still says and wait for its end, with all that it complained of; its exit code."""
        for _ in self.chunks:
            pass
        code = self._process.wait()
        self._listener.join(timeout=5)
        return code


def here() -> Shell:
    """This host."""
    return Shell("this host", ("env", f"PATH={processes.SAFE_PATH}"))


def beside(argv: Sequence[str], where: str) -> Shell:
    """Whatever a program of this host leads to, such as `bulkhead exec -i NAME`."""
    return Shell(where, tuple(argv))


@contextmanager
def ssh(target: str, options: Sequence[str]) -> Iterator[Shell]:
    """Log in to another host, as ssh's own configuration says. `options`: of its -o. Raises Refused, HostError."""
    if target.startswith("-") or not target.isprintable():
        raise Refused(f"{target!r} is no host to log in to", hint="one such as user@host, or ssh://user@host:port")
    program = processes.require("ssh", "openssh-client")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bulkhead-ssh-")))
        control = ("-o", f"ControlPath={directory / 'master'}")
        words = tuple(word for option in options for word in ("-o", option))
        base = (str(program), *words, *_NOTHING_LENT, *control)
        # In this terminal's session: ssh may ask for a password, or whether a host is the right one.
        master = ("-o", "ControlMaster=yes", "-o", f"ControlPersist={_KEEP}", "-o", "ServerAliveInterval=30")
        stack.callback(_leave, [*base, "-O", "exit", "--", target])
        code = _log_in([*base, *master, "--", target, "true"])
        if code:
            raise HostError(f"ssh {target} failed with {code}", hint=f"try: ssh {shlex.quote(target)} true")
        yield Shell(target, (*base, "-T", "--", target), quoted=True)


def _log_in(argv: Sequence[str]) -> int:
    """The exit code of a login. What ssh says goes to the user; the connection that stays holds none of our pipes."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        return process.wait(CONNECT_SECONDS)
    except BaseException:
        process.kill()
        process.wait()
        raise


def _leave(argv: Sequence[str]) -> None:
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )


def _hear(stderr: IO[bytes], on_line: Callable[[str], None]) -> None:
    with stderr:
        for raw in iter(lambda: stderr.readline(_LINE), b""):
            on_line(raw.decode(errors="replace").rstrip())


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
