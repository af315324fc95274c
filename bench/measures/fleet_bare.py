"""QEMU alone migrating: the guest of a fleet's machine, without jail, daemon or fleet, between the same two hosts."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.peers.qemu import ADDRESS, HERE, TAP, Agent, Monitor, copy
from bench.timing import Unusable, environment, find
from bulkhead.agent.frames import Type, start_payload
from bulkhead.isolation.base import Boot, Bundle, NoLimits
from bulkhead.isolation.guest import Moment, start_request
from bulkhead.model import Spec
from tests.harness.fleet import Fleet, Host
from tests.harness.namespaces import in_network

CLIENT = f"{ADDRESS.gateway4}/24"
BRIDGE, PORT = "bare", 4444
SECONDS = 120.0


@dataclass(slots=True)
class _Side:
    """A QEMU on one of the hosts."""

    host: Host
    monitor: Monitor
    process: subprocess.Popen[bytes]
    directory: Path

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


class Pair:
    """A guest that goes between the first two hosts of a fleet; its clients are where etcd is.

    It has the files of the machine whose hypervisor is `pid`, but one disk for both ends, so that none has to be sent.
    """

    def __init__(self, fleet: Fleet, pid: int, spec: str, directory: Path, undo: ExitStack) -> None:
        self._directory, self._undo = directory, undo
        self._hosts = fleet.hosts[:2]
        self._program = find("qemu-system-x86_64", "qemu-system-x86")
        for name in ("kernel", "initrd", "disk", "layers/0"):
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(Path(f"/proc/{pid}/root{HERE}/{name}"), target)
        self._words = _booting(
            Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[1:-1],
            Spec.model_validate_json(spec).plan.memory,
        )
        self.address = ADDRESS.ipv4
        self._number = 0
        self._network(fleet)
        self._at = self._start(self._hosts[0])
        undo.callback(self._end)
        self._begin(spec)

    def move(self, *, rate: int, downtime: float) -> tuple[float, int]:
        """To the other host, at most `rate` bytes per second: milliseconds, and bytes of memory that were no zeros."""
        source = self._at
        there = self._hosts[self._hosts[0] is source.host]
        target = self._start(there, "-incoming", "defer")
        try:
            target.monitor("migrate-incoming", uri=f"tcp:{there.address}:{PORT}")
            limits = {"max-bandwidth": rate, "downtime-limit": round(downtime * 1000)}
            source.monitor("migrate-set-parameters", **limits)
            began = time.perf_counter()
            source.monitor("migrate", uri=f"tcp:{there.address}:{PORT}")
            size = self._wait(source.monitor)
            took = (time.perf_counter() - began) * 1e3
        except BaseException:
            target.end()
            raise
        self._at = target
        source.end()
        return took, size

    def _end(self) -> None:
        self._at.end()

    def _wait(self, monitor: Monitor) -> int:
        deadline = time.monotonic() + SECONDS
        while True:
            state = monitor("query-migrate")
            assert isinstance(state, dict)
            if state.get("status") == "completed":
                return int(state["ram"]["normal-bytes"])
            if state.get("status") == "failed" or time.monotonic() > deadline:
                raise Unusable(f"QEMU alone does not migrate: {state.get('error-desc', state.get('status'))}")
            time.sleep(0.002)

    def _network(self, fleet: Fleet) -> None:
        """A bridge on each host and one between them, with links of their own."""
        switch = fleet.switch.run
        switch("ip", "link", "add", BRIDGE, "type", "bridge")
        switch("ip", "address", "add", CLIENT, "dev", BRIDGE)
        switch("ip", "link", "set", BRIDGE, "up")
        self._undo.callback(switch, "ip", "link", "delete", BRIDGE)
        for number, host in enumerate(self._hosts):
            run, port = host.daemon.sandbox.run, f"bareport{number}"
            switch("ip", "link", "add", port, "type", "veth", "peer", "name", "bareup")
            switch("ip", "link", "set", "bareup", "netns", str(host.daemon.sandbox.pid))
            switch("ip", "link", "set", port, "master", BRIDGE, "up")
            self._undo.callback(switch, "ip", "link", "delete", port)
            run("ip", "link", "add", BRIDGE, "type", "bridge")
            self._undo.callback(run, "ip", "link", "delete", BRIDGE)
            run("ip", "link", "set", "bareup", "master", BRIDGE, "up")
            run("ip", "link", "set", BRIDGE, "up")

    def _start(self, host: Host, *more: str) -> _Side:
        self._number += 1
        directory = self._directory / f"end{self._number}"
        directory.mkdir()
        words = [word.replace(f"{HERE}/sockets/", f"{directory}/") for word in self._words]
        words = [word.replace(f"{HERE}/", f"{self._directory}/") for word in words]
        if more:
            words.remove("-S")  # it runs as soon as it has come
        space = f"/proc/{host.daemon.sandbox.pid}/ns/net"

        def spawn() -> subprocess.Popen[bytes]:
            command = [self._program, *words, *more]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment())

        process = in_network(space, spawn)
        try:
            monitor = Monitor(directory / "qmp.sock")
            host.daemon.sandbox.run("ip", "link", "set", TAP, "master", BRIDGE, "up")
        except BaseException:
            process.kill()
            process.wait()
            raise
        return _Side(host, monitor, process, directory)

    def _begin(self, spec: str) -> None:
        here = self._directory
        files = Boot(here, here, here, Path("disk"), (Path("layer"),), "tcg", tap=TAP)
        bundle = Bundle(here, Spec.model_validate_json(spec), address=ADDRESS, boot=files)
        self._at.monitor("cont")
        with Agent(self._at.directory / "agent.sock") as agent:
            agent.ask(Type.INFO)
            agent.ask(Type.START, start_payload(start_request(bundle, NoLimits(), Moment.present())))


LESS = 8 << 10
"""Bytes of memory that are left out. QEMU before 9.0 looks for changed memory in words of 64 pages where its size is a
multiple of that, and forgets to tell TCG's processors: what they change next is lost, and a guest under load is broken
after its first move. Where the size is none it looks page by page, and tells them."""


def _booting(words: list[str], memory: int) -> list[str]:
    """The command line of the same machine that boots, and is from no template."""
    words = [word.replace(f"{memory}B", f"{memory - LESS}B") for word in words]
    if "-incoming" in words:
        at = words.index("-incoming")
        del words[at : at + 2]
    words = [
        re.sub(r"^memory-backend-file,id=ram,.*?size=(\w+).*", r"memory-backend-ram,id=ram,size=\1", word)
        for word in words
    ]
    return [re.sub(r"^tap,id=([^,]*),ifname=[^,]*", rf"tap,id=\1,ifname={TAP}", word) for word in words]
