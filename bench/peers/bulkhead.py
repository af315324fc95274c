"""Bulkhead: its daemon with everything of its own, driven by the command line and by the API."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from struct import Struct

from bench import processes, timing
from bench.peers.base import IMAGE, SLEEP, CommandLine, ImageBuilder, Scene
from bulkhead.client import EXIT, Response
from bulkhead.errors import BulkheadError

_FRAME = Struct("<IBBBBI")
_EXIT = Struct("<II")


class Bulkhead(CommandLine, ImageBuilder):
    """Ours."""

    name = "bulkhead"

    def setup(self, scene: Scene, stack: ExitStack) -> str:
        """Start the daemon with a configuration of its own, import the image."""
        if not scene.bulkhead.exists():
            raise timing.Unusable(f"{scene.bulkhead} does not exist (scripts/setup makes it)")
        home = self.home = scene.directory("bulkhead")
        self._kernel = scene.kernel
        self.cgroup = f"{scene.name}-bulkhead"
        config = home / "config.toml"
        self._socket = Path("/run/bulkhead-bench/bulkhead.sock")
        config.write_text(_configuration(scene, home))
        given = {key: value for key, value in os.environ.items() if key.startswith("BULKHEAD_AGENT")}
        self.env = timing.environment(BULKHEAD_CONFIG=str(config), **given)
        self.prefix = (str(scene.bulkhead),)
        self._log = home / "daemon.log"
        with self._log.open("wb") as file:
            self._server = subprocess.Popen(
                [*self.prefix, "serve"], stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=self.env
            )
        stack.callback(processes.end, self._server, signal.SIGTERM)
        self.api = Api(self._socket)
        stack.callback(self.api.close)
        timing.wait_until(self._answers, what="bulkhead serve", log=self._log)
        self.import_tar(scene.archive, IMAGE)
        stack.callback(self._remove_all)
        self.run_true(network=False)
        return _commit(scene.checkout)

    def _answers(self) -> bool:
        if self._server.poll() is not None:
            raise timing.Unusable(
                f"bulkhead serve ended with {self._server.returncode}: {timing.last_words(self._log)}"
            )
        try:
            self.api.call("GET", "/v1/ping")
        except timing.Unusable:
            return False
        return True

    def _remove_all(self) -> None:
        left = timing.output([*self.prefix, "ps", "-aq"], env=self.env).split()
        if left:
            self.remove(left)

    def output(self, *arguments: str) -> str:
        """What a command prints; untimed."""
        return timing.output([*self.prefix, *arguments], env=self.env)

    def import_kernel(self) -> None:
        """The kernel that virtual machines boot. Raises Unusable where the bench was started without one."""
        if self._kernel is None:
            raise timing.Unusable("there is no kernel image")
        self.command("image", "import", str(self._kernel), "kernel/debian:latest")

    def import_tar(self, archive: Path, image: str) -> float:
        """`bulkhead image import`."""
        return self.command("image", "import", str(archive), image)

    def build(self, context: Path, *, image: str, cache: bool) -> float:
        """`bulkhead build`."""
        return self.command("build", "-t", image, *([] if cache else ["--no-cache"]), str(context))

    def remove_image(self, image: str) -> None:
        """Remove an image and what it stored."""
        self.command("image", "rm", image)

    def keepers(self) -> list[int]:
        """The agents that supervise an instance each."""
        return processes.named("bulkhead-agent")

    def daemons(self) -> list[int]:
        """The daemon, its children and the services that it has put into the background."""
        own = [self._server.pid, *processes.named("dnsmasq"), *processes.named("lxcfs")]
        keepers = set(self.keepers())
        for pid in processes.every():
            if processes.parent(pid) in own and pid not in keepers and pid not in own:
                own.append(pid)
        return own


class Api:
    """One connection to the daemon, kept for as long as the daemon keeps it, as any program would use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: socket.socket | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._kept:
            self._kept.close()
            self._kept = None

    def call(self, method: str, path: str, body: object = None) -> bytes:
        """One request; the whole answer. Raises Unusable where it is a problem or nobody answers."""
        payload = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(payload)}\r\n"
        kind = "content-type: application/json\r\n" if payload else ""
        try:
            connection = self._connection()
            connection.sendall(f"{head}{kind}\r\n".encode() + payload)
            with Response(connection) as response:
                answer = response.read()
                self._kept = response.detach()
        except (BulkheadError, OSError) as error:
            raise timing.Unusable(f"{method} {path}: {error}") from error
        if response.status >= 400:
            raise timing.Unusable(f"{method} {path} answered {response.status}: {answer[:300].decode()}")
        return answer

    def _connection(self) -> socket.socket:
        kept, self._kept = self._kept, None
        if kept and select.select([kept], [], [], 0)[0]:  # nothing is to come: the daemon has closed it, idle as it was
            kept.close()
            kept = None
        return kept or self._connected()

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        return connection

    def run_true(self, *, network: bool) -> float:
        """Milliseconds of POST /v1/run to its end: created, started, ended and removed."""
        body = {"image": IMAGE, "command": ["true"], "auto_remove": True}
        return self._timed("/v1/run", body if network else {**body, "network": "none"})

    def exec_true(self, ref: str) -> float:
        """Milliseconds of POST /v1/instances/REF/exec to its end."""
        return self._timed(f"/v1/instances/{ref}/exec", {"command": ["true"]})

    def run_detached(self, ref: str) -> None:
        """Start an instance that stays."""
        body = {"image": IMAGE, "command": list(SLEEP), "name": ref, "detach": True}
        self.call("POST", "/v1/run", body)

    def _timed(self, path: str, body: object) -> float:
        start = time.perf_counter()
        answer = self.call("POST", path, body)
        took = time.perf_counter() - start
        _demand_success(path, answer)
        return took * 1000


def _demand_success(path: str, answer: bytes) -> None:
    """The last frame must be EXIT with code 0."""
    start = 0
    while start + _FRAME.size <= len(answer):
        length, _, kind, _, _, _ = _FRAME.unpack_from(answer, start)
        end = start + _FRAME.size + length
        if kind == EXIT and end == len(answer) and _EXIT.unpack_from(answer, end - length)[0] == 0:
            return
        start = end
    raise timing.Unusable(f"{path} did not end well: {answer[-300:]!r}")


def _configuration(scene: Scene, home: Path) -> str:
    """The defaults, except for what must not meet another daemon on this host."""
    values: dict[str, object] = {
        "state_dir": str(home / "state"),
        "run_dir": "/run/bulkhead-bench",
        "cache_dir": str(home / "cache"),
        "cgroup": f"{scene.name}-bulkhead",
        "nft_table": scene.name,
        "uid_base": 1_500_000_000,
        # What a host sells is no part of what is measured: peers refuse nobody for want of room.
        "overcommit_memory": 1000.0,
        "overcommit_cpu": 1000.0,
        "overcommit_disk": 1000.0,
    }
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _commit(checkout: Path) -> str:
    """What is measured: the checkout's commit."""
    try:
        return timing.output(["/usr/bin/git", "-C", str(checkout), "describe", "--always", "--dirty"])
    except (timing.Unusable, OSError):
        return "unknown commit"
