"""A real proxy (tinyproxy) in a daemon's sandbox, which alone knows a name of a registry there."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from tests.harness.abilities import require
from tests.harness.namespaces import Sandbox, in_network

NAME = "registry.test"
USER, PASSWORD = "ali", "sesame"


class TinyProxy:
    """Listens on the sandbox's loopback, wants a login, and finds NAME there."""

    def __init__(self, sandbox: Sandbox, directory: Path, *, port: int = 3128) -> None:
        require("tinyproxy", "unshare")
        self.sandbox, self.port, self.pid = sandbox, port, 0
        self.url = f"http://{USER}:{PASSWORD}@127.0.0.1:{port}"
        directory.mkdir(parents=True)
        self.log_file = directory / "log"
        self._hosts, self._settings = directory / "hosts", directory / "tinyproxy.conf"
        self._hosts.write_text(f"127.0.0.1 localhost {NAME}\n")
        lines = (f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "LogLevel Connect", "MaxClients 32")
        # No ConnectPort: it joins with every port.
        self._settings.write_text("\n".join((*lines, f"BasicAuth {USER} {PASSWORD}", "")))

    def start(self) -> TinyProxy:
        """Start it and wait until it listens."""
        script = 'mount --bind "$1" /etc/hosts && exec tinyproxy -d -c "$2"'
        argv = ["/usr/bin/unshare", "-m", "sh", "-c", script, "sh", str(self._hosts), str(self._settings)]
        self.pid = self.sandbox.spawn(argv, env={"PATH": "/usr/sbin:/usr/bin:/bin"}, output=self.log_file)
        deadline = time.monotonic() + 30
        while not self._listens():
            if time.monotonic() > deadline or self.sandbox.status(self.pid) is not None:
                raise AssertionError(f"the proxy does not start:\n{self.log()}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """End it. Idempotent."""
        pid, self.pid = self.pid, 0
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.sandbox.wait(pid)

    def log(self) -> str:
        """What it has said so far: a line for each request, with the host that was asked for."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def _listens(self) -> bool:
        def connect() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            return False

        return in_network(f"/proc/{self.sandbox.pid}/ns/net", connect)
