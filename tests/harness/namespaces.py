"""Sandboxes to run a daemon in, and a client outside of them."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from select import select
from typing import Any, TypeVar

from bulkhead.host import syscalls
from tests.harness.leaks import OWN, descendants

Result = TypeVar("Result")
END_SECONDS = 30.0
ROOT = Path(__file__).resolve().parents[2]
PATHS = (str(ROOT / "src"), str(ROOT), sysconfig.get_paths()["purelib"])


class _Loaded:
    """The one process of this run that has loaded what daemons load."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, "-IS", str(Path(__file__).with_name("loaded.py")), *PATHS]
            self._process = subprocess.Popen(
                argv, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env={"LC_ALL": "C.UTF-8"}
            )
        OWN.add(self._process.pid)
        self._guard = threading.Lock()

    def fork(self, network: str, requests: int, answers: int) -> int:
        """A sandbox's holder, which reads requests and writes answers there; its pid."""
        with self._guard:
            socket.send_fds(self._connection, [network.encode()], [requests, answers])
            return int(self._connection.recv(16))


@cache
def _loaded() -> _Loaded:
    return _Loaded()


class Sandbox:
    """A mount namespace and, unless `network` is "host", a network namespace, held by a process of their own.

    Whatever is spawned in it stays below the holder, even when its parent dies, and ends with `close`.
    """

    def __init__(self, *, network: str = "private") -> None:
        theirs, requests = os.pipe2(os.O_CLOEXEC)
        answers, theirs_too = os.pipe2(os.O_CLOEXEC)
        self._requests, self._answers = os.fdopen(requests, "wb"), os.fdopen(answers, "rb")
        try:
            self._pid = _loaded().fork(network, theirs, theirs_too)
        finally:
            os.close(theirs)
            os.close(theirs_too)
        self._descriptor = os.pidfd_open(self._pid)
        self._guard = threading.Lock()
        if not self._read().get("ready"):
            raise RuntimeError("the sandbox's holder did not start")

    @property
    def pid(self) -> int:
        """The holder: a process in the sandbox's namespaces."""
        return self._pid

    def spawn(self, argv: Sequence[str], *, env: Mapping[str, str], output: Path, kind: str = "spawn") -> int:
        """Start a program in the sandbox, what it says being appended to `output`; its pid.

        With `kind` "daemon" it is Bulkhead's own, which need not be loaded any more.
        """
        request = {"argv": list(argv), "env": dict(env), "output": str(output)}
        return int(self._ask({kind: request})["pid"])

    def status(self, pid: int) -> int | None:
        """How a spawned program ended, as in subprocess (-9: by KILL); None while it runs."""
        answer = self._ask({"status": pid})["status"]
        return None if answer is None else int(answer)

    def wait(self, pid: int, timeout: float = 30.0) -> int:
        """Wait for the end of a spawned program. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while (status := self.status(pid)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {pid} is still there after {timeout:g} s")
            time.sleep(0.01)
        return status

    def run(self, *argv: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program in the sandbox's namespaces to its end."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-n", "--wd=/", "--"]
        return subprocess.run([*enter, *argv], check=check, capture_output=True, text=True, input=stdin, timeout=60)

    def processes(self) -> list[int]:
        """Everything that runs in the sandbox, its holder aside."""
        return descendants(self.pid)

    def close(self) -> None:
        """End everything in it. Idempotent."""
        if self._requests.closed:
            return
        self._requests.close()
        try:
            if not select([self._descriptor], [], [], END_SECONDS)[0]:
                raise TimeoutError(f"the sandbox of {self._pid} does not end within {END_SECONDS:g} s")
        finally:
            os.close(self._descriptor)
            self._answers.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._guard:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._answers.readline()
        found = json.loads(line) if line else {}
        return found if isinstance(found, dict) else {}


def in_network(path: str | Path, work: Callable[[], Result]) -> Result:
    """Do something in another network namespace: in a thread that enters it and ends there.

    Sockets made there stay there, wherever they are used afterwards.
    """
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def enter() -> None:
        try:
            with Path(path).open() as namespace:
                syscalls.setns(namespace.fileno(), syscalls.CLONE_NEWNET)
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@dataclass(frozen=True, slots=True)
class Outside:
    """A host beside the sandbox: a network namespace of its own, joined to it by a veth pair.

    The sandbox's default route leads here, and nothing here knows the way to what is behind the sandbox.
    """

    descriptor: int
    inside4: str = "192.0.2.1"
    """The sandbox's address as the outside sees it: where published ports answer."""
    outside4: str = "192.0.2.2"
    inside6: str = "2001:db8:b::1"
    outside6: str = "2001:db8:b::2"

    @classmethod
    def beside(cls, sandbox: Sandbox) -> Outside:
        """Make it and join it to the sandbox."""
        made: list[int] = []

        def make() -> None:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        outside = cls(made[0])
        peer = f"/proc/{os.getpid()}/fd/{outside.descriptor}"
        # The pair of an earlier one, which the kernel takes away a little after its namespace.
        with suppress(subprocess.CalledProcessError):
            _ip(sandbox.pid, "link delete uplink")
        _ip(sandbox.pid, f"link add uplink type veth peer name uplink netns {peer}")
        _ip(sandbox.pid, f"address add {outside.inside4}/24 dev uplink")
        _ip(sandbox.pid, f"address add {outside.inside6}/64 dev uplink nodad")
        _ip(sandbox.pid, "link set uplink up")
        for command in (
            "link set lo up",
            f"address add {outside.outside4}/24 dev uplink",
            f"address add {outside.outside6}/64 dev uplink nodad",
            "link set uplink up",
        ):
            in_network(outside.path, lambda command=command: _ip(0, command))  # type: ignore[misc]
        _ip(sandbox.pid, f"route add default via {outside.outside4}")
        _ip(sandbox.pid, f"-6 route add default via {outside.outside6}")
        return outside

    @property
    def path(self) -> str:
        """The namespace as a file."""
        return f"/proc/self/fd/{self.descriptor}"

    def connect(self, host: str, port: int, *, timeout: float = 5.0) -> socket.socket:
        """A TCP connection from outside. Tries again while it is refused, up to `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return in_network(self.path, lambda: socket.create_connection((host, port), timeout=timeout))
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def udp(self, family: socket.AddressFamily = socket.AF_INET, *, timeout: float = 5.0) -> socket.socket:
        """An unbound UDP socket outside."""
        made = in_network(self.path, lambda: socket.socket(family, socket.SOCK_DGRAM))
        made.settimeout(timeout)
        return made

    def listen(self, port: int, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """A TCP server's socket outside, on every address."""

        def make() -> socket.socket:
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
            listener.listen()
            listener.settimeout(10.0)
            return listener

        return in_network(self.path, make)

    def fetch(self, port: int, path: str = "/", *, host: str = "", timeout: float = 5.0) -> tuple[int, bytes]:
        """GET from a published port of the sandbox: (status, body)."""
        connection = http.client.HTTPConnection(host or self.inside4, port, timeout=timeout)
        connection.sock = self.connect(host or self.inside4, port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def close(self) -> None:
        """Let go of the namespace, and with it of the pair. Idempotent."""
        with suppress(OSError):
            os.close(self.descriptor)


def _ip(pid: int, arguments: str) -> None:
    enter = ["nsenter", "-t", str(pid), "-n"] if pid else []
    subprocess.run([*enter, "ip", *arguments.split()], check=True, capture_output=True)
