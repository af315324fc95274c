"""A real etcd of several members, each of which can be killed, stopped and started again. Gone when it is closed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bulkhead.store.etcd import SERVER_FLAGS, TLS
from tests.harness.abilities import require
from tests.harness.certificates import Authority
from tests.harness.leaks import LIVE
from tests.harness.namespaces import Sandbox, in_network
from tests.harness.naming import PREFIX

PATIENCE = 90.0
"""Seconds for what must happen: an election on a busy host."""
_MEMORY = Path("/dev/shm")


class Etcd:
    """Members on addresses of their own, the first one first. Without `sandbox` on this host's loopback.

    `addresses` are those of the sandbox's network to listen on; else some of 127.0.0.0/8 that nobody else has.
    """

    def __init__(
        self,
        *,
        members: int = 3,
        tls: bool = False,
        sandbox: Sandbox | None = None,
        addresses: Sequence[str] = (),
        flags: Sequence[str] = SERVER_FLAGS,
    ) -> None:
        require("etcd")
        self._own = None if sandbox else Sandbox(network="host")
        self.sandbox: Sandbox = sandbox or self._own  # type: ignore[assignment]  # one of them
        net = f"127.{secrets.randbelow(250) + 2}.{secrets.randbelow(250) + 2}"
        self.addresses = list(addresses) or [f"{net}.{number + 2}" for number in range(members)]
        if self._own:  # its members come and go while it is shared by tests
            LIVE[self._own.pid] = (PREFIX, Path("/nonexistent"))
        memory = _MEMORY if os.path.ismount(_MEMORY) else None
        self.directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-etcd-", dir=memory))
        self._scheme = "https" if tls else "http"
        self._flags = list(flags)
        self.tls: TLS | None = None
        if tls:
            authority = Authority(self.directory)
            authority.issue("member", [*self.addresses, "127.0.0.1"])  # a peer has to come from one of its names
            self.tls = TLS(authority.certificate, *authority.issue("client", []))
        self.pids = [0] * len(self.addresses)

    @property
    def endpoints(self) -> list[str]:
        """Where clients ask, the first member's first."""
        return [f"{self._scheme}://{address}:2379" for address in self.addresses]

    def start(self) -> Self:
        """Start all members and wait until they have a leader."""
        try:
            for number in range(len(self.pids)):
                self.restart(number, wait=False)
            self.wait_for_leader()
        except BaseException:
            self.close()
            raise
        return self

    def restart(self, number: int, *, wait: bool = True) -> None:
        """Start a member that was killed, with what it had; wait until it knows a leader."""
        log = self.directory / f"log-{number}"
        self.pids[number] = self.sandbox.spawn(self._argv(number), env={"PATH": "/usr/bin:/bin"}, output=log)
        if wait:
            self._until(lambda: bool(self.status(number).get("leader")), f"member {number} does not join")

    def kill(self, number: int) -> None:
        """End a member at once, as a power cut would. Idempotent."""
        pid, self.pids[number] = self.pids[number], 0
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.sandbox.wait(pid)

    def freeze(self, number: int) -> None:
        """Stop a member: it keeps its connections and says nothing."""
        os.kill(self.pids[number], signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        """Let it go on."""
        os.kill(self.pids[number], signal.SIGCONT)

    def leader(self) -> int:
        """The number of the member that leads; waits for one that a majority of those that run knows."""
        return self.wait_for_leader()

    def wait_for_leader(self, *, other_than: int = -1) -> int:
        """The number of the leader, once members that answer agree on one."""
        found: list[int] = []

        def agreed() -> bool:
            found[:] = self._leaders()
            return len(found) > len(self.pids) // 2 and len(set(found)) == 1 and found[0] not in (other_than, -1)

        self._until(agreed, "there is no leader")
        return found[0]

    def wait_for_revision(self, revision: int) -> None:
        """Until each member that runs has seen it."""

        def seen() -> bool:
            said = [self.status(number) for number, pid in enumerate(self.pids) if pid]
            return all(int(one.get("header", {}).get("revision", 0)) >= revision for one in said)

        self._until(seen, f"a member does not see revision {revision}")

    def status(self, number: int) -> dict[str, Any]:
        """What a member says of itself; empty where it does not answer."""
        url = f"{self.endpoints[number]}/v3/maintenance/status"
        context = None
        if self.tls:
            context = ssl.create_default_context(cafile=str(self.tls.authority))
            context.load_cert_chain(str(self.tls.certificate), str(self.tls.key))

        def ask() -> dict[str, Any]:
            with urllib.request.urlopen(url, data=b"{}", timeout=2, context=context) as answer:
                found = json.loads(answer.read())
            return found if isinstance(found, dict) else {}

        try:
            return ask() if self._own else in_network(f"/proc/{self.sandbox.pid}/ns/net", ask)
        except (OSError, ValueError):
            return {}

    def ctl(self, *arguments: str) -> str:
        """Run etcdctl; what it printed."""
        require("etcdctl")
        argv = ["etcdctl", f"--endpoints={','.join(self.endpoints)}", *arguments]
        if self.tls:
            argv += [f"--cacert={self.tls.authority}", f"--cert={self.tls.certificate}", f"--key={self.tls.key}"]
        enter = [] if self._own else ["nsenter", "-t", str(self.sandbox.pid), "-n", "--"]
        env = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run([*enter, *argv], check=True, capture_output=True, text=True, timeout=60, env=env).stdout

    def leases(self) -> list[int]:
        """Ids of all leases."""
        return [int(line, 16) for line in self.ctl("lease", "list").split()[3:]]

    def compact(self, revision: int) -> None:
        """Forget what was before a revision."""
        self.ctl("compact", str(revision))

    def log(self) -> str:
        """What the members have said last."""
        files = sorted(self.directory.glob("log-*"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    def close(self) -> None:
        """End it, and take away what it kept. Idempotent."""
        for number in range(len(self.pids)):
            self.kill(number)
        if self._own:
            LIVE.pop(self._own.pid, None)
            self._own.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside

    def _argv(self, number: int) -> list[str]:
        scheme, address = self._scheme, self.addresses[number]
        peers = [f"m{other}={scheme}://{where}:2380" for other, where in enumerate(self.addresses)]
        argv = ["/usr/bin/etcd", f"--name=m{number}", f"--data-dir={self.directory / f'data-{number}'}", *self._flags]
        argv += [f"--listen-client-urls={scheme}://{address}:2379", f"--listen-peer-urls={scheme}://{address}:2380"]
        argv += [f"--advertise-client-urls={scheme}://{address}:2379"]
        argv += [f"--initial-advertise-peer-urls={scheme}://{address}:2380"]
        argv += [f"--initial-cluster={','.join(peers)}", f"--initial-cluster-token={self.directory.name}"]
        if self.tls:
            pair = [str(self.directory / "member.crt"), str(self.directory / "member.key")]
            for prefix in ("", "peer-"):
                argv += [f"--{prefix}cert-file={pair[0]}", f"--{prefix}key-file={pair[1]}"]
                argv += [f"--{prefix}trusted-ca-file={self.tls.authority}", f"--{prefix}client-cert-auth"]
        return argv

    def _leaders(self) -> list[int]:
        """Of each member that answers, the number of whom it follows; -1 where it does not know."""
        said = [self.status(number) for number in range(len(self.pids)) if self.pids[number]]
        ids = {status["header"]["member_id"]: self._number(status) for status in said if status}
        return [ids.get(status.get("leader"), -1) for status in said if status]

    def _number(self, status: dict[str, Any]) -> int:
        """Which member this is: asked by its id of each in turn."""
        for number in range(len(self.pids)):
            if (
                self.pids[number]
                and self.status(number).get("header", {}).get("member_id") == (status["header"]["member_id"])
            ):
                return number
        return -1

    def _until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"etcd: {what}:\n{self.log()}")
            time.sleep(0.05)
