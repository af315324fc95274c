"""A fleet in one call: a real etcd of three members and hosts with a daemon each, joined by links that can be cut.

Every host is a sandbox of its own, and so is the switch between them, where etcd runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness.abilities import require
from tests.harness.daemon import Daemon
from tests.harness.etcd import Etcd
from tests.harness.leaks import LIVE
from tests.harness.namespaces import Sandbox
from tests.harness.naming import PREFIX
from tests.harness.shaping import Link

NET = "10.99.0"
PATIENCE = 120.0
"""Seconds for what must happen, on a busy host."""
_SWITCH, _LINK = "switch", "fleet"
NAMES = ("alpha", "beta", "gamma", "delta", "epsilon")


class Host:
    """One host: its daemon, and its link to the others."""

    def __init__(self, fleet: Fleet, number: int, settings: Mapping[str, Any]) -> None:
        self._fleet, self._port = fleet, f"port{number}"
        self.name, self.address = NAMES[number], f"{NET}.{number + 11}"
        self.daemon = Daemon(**settings)

    def plug(self) -> None:
        """Give it its link."""
        switch, sandbox = self._fleet.switch, self.daemon.sandbox
        switch.run("ip", "link", "add", self._port, "type", "veth", "peer", "name", _LINK)
        switch.run("ip", "link", "set", _LINK, "netns", str(sandbox.pid))
        switch.run("ip", "link", "set", self._port, "master", _SWITCH, "up")
        sandbox.run("ip", "address", "add", f"{self.address}/24", "dev", _LINK)
        sandbox.run("ip", "link", "set", _LINK, "up")

    def unplug(self) -> None:
        """Take its link away."""
        self._fleet.switch.run("ip", "link", "delete", self._port, check=False)

    def cut(self) -> None:
        """Its link carries nothing any more; nobody is told."""
        self._fleet.switch.run("ip", "link", "set", self._port, "nomaster")

    def mend(self) -> None:
        """Its link carries again."""
        self._fleet.switch.run("ip", "link", "set", self._port, "master", _SWITCH)

    @contextmanager
    def slowed(self, *, delay: float = 0.0, rate: float | None = None) -> Iterator[Link]:
        """Its link is slow: `delay` seconds in each direction, at most `rate` bytes per second."""
        run, near, far = self._fleet.switch.run, f"near-{self._port}", f"far-{self._port}"
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far)
        try:
            run("ip", "link", "set", near, "up")
            run("ip", "link", "set", far, "master", _SWITCH, "up")
            self.cut()
            with Link(self._fleet.switch.pid, self._port, near, delay=delay, rate=rate) as link:
                yield link
        finally:
            self.mend()
            run("ip", "link", "delete", near)

    def ended(self) -> bool:
        """Whether its daemon has (a crash that was asked for)."""
        return not self.daemon.pid or self.daemon.sandbox.status(self.daemon.pid) is not None

    def status(self) -> dict[str, Any]:
        """The fleet as it is seen from there; empty where it cannot say."""
        said = self.daemon.cli("cluster", "status", "--format", "json", check=False).stdout
        found: dict[str, Any] = json.loads(said or "{}")
        return found

    def sold(self) -> bool:
        """Whether any memory is, to instances and to what is coming."""
        rows = self.daemon.api("GET", "/v1/host").body["resources"]
        return any(row["sold"] for row in rows if row["resource"] == "memory")

    def cli(self, *arguments: str, check: bool = True) -> str:
        """What `bulkhead ARGUMENTS` prints there; with its errors where it may fail."""
        done = self.daemon.cli(*arguments, check=check)
        return done.stdout if check else done.stdout + done.stderr


class Fleet:
    """Hosts that have joined, the first as the one that began it. `settings` are the daemons'."""

    def __init__(self, hosts: int = 3, *, tls: bool = True, **settings: Any) -> None:
        self._undo = ExitStack()
        try:
            self.switch = Sandbox()
            LIVE[self.switch.pid] = (PREFIX, Path("/nonexistent"))
            self._undo.callback(self._close_switch)
            members = [f"{NET}.{number + 1}" for number in range(3)]
            self._make_switch(members)
            self.etcd = Etcd(tls=tls, sandbox=self.switch, addresses=members)
            self._undo.callback(self.etcd.close)
            self.etcd.start()
            self.hosts = [Host(self, number, settings) for number in range(hosts)]
            for host in self.hosts:
                self._undo.callback(host.daemon.close)
                host.plug()
                host.daemon.share()
                host.daemon.start()
        except BaseException:
            self.close()
            raise

    def begin(self, *options: str) -> Self:
        """Make the fleet, with these options of `cluster init`, and let all of them join."""
        first, *others = self.hosts
        own = ("--address", first.address, "--name", first.name)
        first.cli("cluster", "init", *self.coordinates(), *own, *options, "lab")
        for host in others:
            self.join(host)
        return self

    def join(self, host: Host) -> None:
        """Let one more join."""
        token = self.hosts[0].cli("cluster", "invite").strip()
        host.cli("cluster", "join", "--address", host.address, "--name", host.name, token)

    def coordinates(self) -> list[str]:
        """Where etcd is, as `cluster init` is told."""
        found = [part for endpoint in self.etcd.endpoints for part in ("--etcd", endpoint)]
        if self.etcd.tls:
            tls = self.etcd.tls
            for flag, path in (("cacert", tls.authority), ("cert", tls.certificate), ("key", tls.key)):
                found += [f"--etcd-{flag}", str(path)]
        return found

    def reset(self) -> None:
        """Links that carry, daemons that run, and nothing that is placed anywhere."""
        for host in self.hosts:
            host.mend()
            if host.ended():
                host.daemon.restart()
        self.wait_for_all()
        for host in self.hosts:
            host.daemon.clear()
        self._until(lambda: self.hosts[0].status()["instances"] == 0, "something is still placed")

    def wait_for_all(self) -> None:
        """Until every host is heard of."""
        self._until(lambda: all(each["alive"] for each in self.hosts[0].status()["hosts"]), "not all hosts live")

    def _until(self, holds: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"{otherwise} after {PATIENCE:g} s"
            time.sleep(0.05)

    def leaked(self) -> list[str]:
        """What the hosts have left behind; ends their daemons."""
        for host in self.hosts:
            host.daemon.clear()
        # What was on its way when a move failed goes once the fleet says that it is not coming, and not before.
        self._until(lambda: not any(host.sold() for host in self.hosts), "something is still sold")
        for host in self.hosts:
            host.unplug()
        # All at once: each asks the others, which cannot be reached any more.
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            found = pool.map(lambda host: host.daemon.leaked(), self.hosts)
            return [f"{host.name}: {line}" for host, lines in zip(self.hosts, found, strict=True) for line in lines]

    def close(self) -> None:
        """End everything. Idempotent."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make_switch(self, addresses: list[str]) -> None:
        run = self.switch.run
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", _SWITCH, "type", "bridge")
        run("ip", "link", "set", _SWITCH, "up")
        for address in addresses:
            run("ip", "address", "add", f"{address}/24", "dev", _SWITCH)

    def _close_switch(self) -> None:
        LIVE.pop(self.switch.pid, None)
        self.switch.close()


@contextmanager
def laboratory(
    image: Path, hosts: int = 3, *, everywhere: bool = False, options: Sequence[str] = (), **settings: Any
) -> Iterator[Fleet]:
    """A fleet whose hosts are heard of, of which nothing is left in the end.

    image: a root file system (tar), which the first host has as the image `box`; `everywhere`: all have the same one,
    since what only a lost host has is lost with it. options: of `cluster init`. settings: Fleet's, and the daemons'.
    """
    require("erofs", "nft")
    with Fleet(hosts, **settings) as made:
        made.begin(*options)
        made.wait_for_all()
        first, *others = made.hosts
        first.cli("image", "import", str(image), "box")
        for host in others if everywhere else ():
            host.cli("run", "--rm", "--host", host.name, "box", "true")
        yield made
        left = made.leaked()
        assert not left, left
