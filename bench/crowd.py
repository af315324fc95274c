"""Within a bound: start one nginx after the other behind one wall until no more fit, or one does not answer.

`python -m bench.crowd JSON`; the answer is one line of JSON. See bench/measures/density.py.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import bounded, namespaces
from bench.contest import say
from bench.peers.base import IMAGE, Scene
from bench.peers.bulkhead import Bulkhead
from bench.peers.podman import Podman
from bench.timing import Unusable

CONFIGURED = (
    'sed -i "s/^worker_processes.*/worker_processes 1;/" /etc/nginx/nginx.conf; '
    'sed -i "s/80 default_server/$0 default_server/" /etc/nginx/sites-enabled/default; '
    'exec nginx -g "daemon off;"'
)
"""Who shares the host's network listens on a port of its own."""
SOONER = 300
MORTAL = ("/usr/bin/choom", "-n", str(SOONER), "--")
"""Somebody has to be left who tells what came out: what the engines start is ended before this process is."""
FIRST_PORT = 10_000
LEAST_BATCH, MOST_BATCH, WIDTH = 4, 64, 4
PER_NETWORK = 1000
"""A bridge has 1,024 ports."""
ANSWER_SECONDS, PATIENCE = 20.0, 120.0
"""One that is asked may take so long; all together are given up when for so long no more of them has answered."""
LAST_SECONDS = 180.0
"""Beyond the time in which they are started, for the last of them to answer and for a start that was under way."""
TEMPLATE_SECONDS = 120.0
MACHINES = {"vm": "96M", "unikernel": "96M"}
"""Memory of those that have a kernel of their own."""
UNIKERNEL = "crowd-unikernel"
CONFIGURATION = """
error_log stderr; pid /run/nginx.pid; worker_processes 1; events { worker_connections 64; }
http {
  access_log off; server { listen 80; root /var/www/html; index index.nginx-debian.html; }
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
}
"""
"""Of a unikernel, whose root cannot be written to."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do."""

    wall: str
    size: int
    """Bytes of the bound."""
    seconds: float
    """After which no more are started."""
    most: int
    name: str
    scratch: str
    checkout: str
    archive: str
    """The root file system with nginx."""
    bulkhead: str
    kernel: str


@dataclass(frozen=True, slots=True)
class Found:
    """What came out."""

    count: int
    """Servers that ran, all of which answered."""
    each: float
    """Bytes for each but the first, which brings what all share."""
    empty: int
    """Bytes before the first."""
    why: str
    """What ended it."""
    full: bool
    """Whether that was the memory."""
    seconds: float


class TimeUp(Exception):
    """No more are to be started."""


class Crowd(ABC):
    """One wall of one engine."""

    @abstractmethod
    def settle(self) -> None:
        """Wait for what the first one lets the engine prepare for the others."""

    @abstractmethod
    def start(self, number: int) -> None:
        """Start one. Raises Unusable."""

    @abstractmethod
    def addresses(self, count: int) -> Sequence[tuple[str, int]]:
        """Where the first so many are."""


class Ours(Crowd):
    """Bulkhead's, through its API."""

    def __init__(self, scene: Scene, stack: ExitStack, wall: str) -> None:
        self._engine = Bulkhead()
        self._engine.setup(scene, stack)
        for pid in self._engine.daemons():
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(SOONER))
        self._engine.prefix = (*MORTAL, *self._engine.prefix)
        self._wall = wall
        if wall in MACHINES:
            self._engine.import_kernel()
        if wall == "unikernel":
            self._build(scene.directory("unikernel"))
        self._networks: set[int] = set()
        self._address: dict[str, str] = {}

    def start(self, number: int) -> None:
        shared = self._wall == "chroot"
        network = "host" if shared else self._network(number // PER_NETWORK)
        command = (IMAGE, *server(FIRST_PORT + number if shared else 80))
        if self._wall == "unikernel":
            command = (UNIKERNEL,)
        size = ("--memory", MACHINES.get(self._wall, "64M"), "--cpus", "1", "--disk", "32M")
        options = ("--isolation", self._wall, "--network", network, *(("--inner", "0") if self._wall == "vm" else ()))
        self._engine.command("run", "-d", "--name", f"c{number}", *size, *options, *command)

    def settle(self) -> None:
        """Machines go on from a template, which is made in the background after the first start."""
        templates = self._engine.home / "cache/templates"
        deadline = time.monotonic() + TEMPLATE_SECONDS
        while self._wall in MACHINES and not list(templates.glob("*/key.json")):
            if time.monotonic() > deadline:
                raise Unusable(f"there is no template of the {self._wall} after {TEMPLATE_SECONDS:g} s")
            time.sleep(0.5)

    def _build(self, directory: Path) -> None:
        """nginx as a unikernel, with a configuration for a root that cannot be written to."""
        (directory / "nginx.conf").write_text(CONFIGURATION)
        (directory / "Containerfile").write_text(f"FROM {IMAGE}\nCOPY nginx.conf /etc/nginx/crowd.conf\n")
        self._engine.build(directory, image=f"{UNIKERNEL}-root", cache=True)
        kept = ("--keep", "/etc/nginx/crowd.conf", "--keep", "/var/www/html")
        command = ("nginx", "-c", "/etc/nginx/crowd.conf", "-g", "daemon off;")
        self._engine.command("build", "--unikernel", "-t", UNIKERNEL, *kept, f"{UNIKERNEL}-root", *command)

    def _network(self, number: int) -> str:
        name = f"crowd{number}"
        if number not in self._networks:
            self._networks.add(number)
            self._engine.command("network", "create", "--subnet", f"10.{200 + number}.0.0/20", name)
        return name

    def addresses(self, count: int) -> Sequence[tuple[str, int]]:
        if self._wall == "chroot":
            return [("127.0.0.1", FIRST_PORT + number) for number in range(count)]
        if any(f"c{number}" not in self._address for number in range(count)):
            for instance in json.loads(self._engine.api.call("GET", "/v1/instances")):
                if instance["address"]:
                    self._address[instance["spec"]["name"]] = instance["address"]["ipv4"]
        return [(self._address.get(f"c{number}", "0.0.0.0"), 80) for number in range(count)]


class Podmans(Crowd):
    """podman's containers."""

    def __init__(self, scene: Scene, stack: ExitStack) -> None:
        self._engine = Podman()
        self._engine.setup(scene, stack)
        self._engine.prefix = (*MORTAL, *self._engine.prefix)
        self._networks: set[int] = set()

    def start(self, number: int) -> None:
        network = number // PER_NETWORK
        options = ("--network", f"crowd{network}", "--ip", self._address(number), "--memory", "64m")
        name = ("--name", f"c{number}")
        if network not in self._networks:
            self._networks.add(network)
            subnet = f"10.{200 + network}.0.0/20"
            self._engine.command("network", "create", "--disable-dns", "--subnet", subnet, f"crowd{network}")
        self._engine.command("run", "-d", *name, *self._engine.run_options, *options, IMAGE, *server(80))

    def settle(self) -> None:
        """It prepares nothing."""

    def _address(self, number: int) -> str:
        network, place = divmod(number, PER_NETWORK)
        return f"10.{200 + network}.{(place + 10) // 250}.{(place + 10) % 250 + 1}"

    def addresses(self, count: int) -> Sequence[tuple[str, int]]:
        return [(self._address(number), 80) for number in range(count)]


def server(port: int) -> tuple[str, ...]:
    """The command of one."""
    return ("sh", "-c", CONFIGURED, str(port))


def fill(crowd: Crowd, order: Order) -> Found:
    """Start them until there is no room for one more, or the time is up."""
    began, empty, count, answered = time.monotonic(), bounded.use(), 1, 0
    deadline = began + order.seconds
    first = last = empty
    with ThreadPoolExecutor(WIDTH) as pool:
        crowd.start(0)  # makes what all others share
        crowd.settle()
        while True:
            why, full = _silent(crowd, count, deadline + LAST_SECONDS)
            if not why:
                answered, last = count, bounded.use()
                first = last if count == 1 else first
                say(f"{order.wall}: {count} answer, {last.charged / 1e6:.0f} MB")
                batch = _batch(order, count, empty, last)
                why = _enough(order, count + batch, began)
            if not why:
                more, failed = _start(pool, crowd, range(count, count + batch), deadline)
                count += more
                if failed:
                    why, full = f"{len(failed)} of {batch} more did not start: {failed[0]}", bounded.use().killed > 0
            if why:
                each = (last.needed - first.needed) / (answered - 1) if answered > 1 else 0.0
                return Found(answered, each, empty.needed, why, full, round(time.monotonic() - began, 1))


def _start(pool: ThreadPoolExecutor, crowd: Crowd, numbers: range, deadline: float) -> tuple[int, list[str]]:
    """How many of these have been started until the time was up, and what those said that could not be."""

    def start(number: int) -> None:
        if time.monotonic() > deadline:
            raise TimeUp
        crowd.start(number)

    errors = [job.exception() for job in [pool.submit(start, number) for number in numbers]]
    late = sum(isinstance(error, TimeUp) for error in errors)
    return len(errors) - late, [str(error) for error in errors if error and not isinstance(error, TimeUp)]


def _batch(order: Order, count: int, empty: bounded.Use, use: bounded.Use) -> int:
    """How many to start next: fewer towards the end, so that the last that fit are found."""
    each = max(1.0, (use.needed - empty.needed) / count)
    fit = int((order.size - use.needed) / each)
    return max(LEAST_BATCH, min(MOST_BATCH, count // 4, fit // 2))


def _enough(order: Order, wanted: int, began: float) -> str:
    """Why no more are started though there may be room; "" to go on."""
    if wanted > order.most:
        return f"{order.most} were enough"
    if time.monotonic() - began > order.seconds:
        return f"time was up after {order.seconds:g} s"
    return ""


def _silent(crowd: Crowd, count: int, until: float) -> tuple[str, bool]:
    """Why not all of them answer, "" where they do, and whether that is for want of memory.

    They have the time that it takes, as long as every now and then one more of them does: a busy host is no full one.
    """
    waiting, heard = set(range(count)), time.monotonic()
    while waiting:
        if killed := bounded.use().killed:
            return f"the kernel has ended {killed} processes for want of memory", True
        where = crowd.addresses(count)
        answered = {number for number in waiting if time.monotonic() < until and _answers(*where[number])}
        waiting -= answered
        heard = time.monotonic() if answered else heard
        if waiting and time.monotonic() > until:
            return f"time was up while {len(waiting)} of {count} had not answered yet", False
        if waiting and time.monotonic() > heard + PATIENCE:
            return f"{len(waiting)} of {count} do not answer, and no more of them did within {PATIENCE:g} s", True
        time.sleep(0.05 if waiting else 0)
    killed = bounded.use().killed
    return (f"the kernel has ended {killed} processes for want of memory", True) if killed else ("", False)


def _answers(address: str, port: int) -> bool:
    connection = http.client.HTTPConnection(address, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    """Run within the bound."""
    order = Order(**json.loads(sys.argv[1]))
    bounded.enter()
    scratch = Path(order.scratch)
    namespaces.enter(scratch)
    scene = Scene(
        name=order.name,
        scratch=scratch,
        checkout=Path(order.checkout),
        archive=Path(order.archive),
        root=scratch / "none",
        bulkhead=Path(order.bulkhead),
        floor=scratch / "none",
        kernel=Path(order.kernel) if order.kernel else None,
    )
    # Everything in here ends with its namespace: nothing is put away one by one.
    stack = ExitStack()
    try:
        crowd = Podmans(scene, stack) if order.wall == "podman" else Ours(scene, stack, order.wall)
        found = fill(crowd, order)
    except Unusable as error:
        print(error)
        return 1
    finally:
        stack.pop_all()
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
