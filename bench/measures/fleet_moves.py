"""What moves between the hosts of a real fleet come to: how long clients wait, how long drains take."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from bench.contest import Cast, Sizes, say
from bench.figures import Figure
from bench.timing import Unusable
from tests.harness import images
from tests.harness.fleet import Fleet
from tests.harness.namespaces import in_network

DRAINED = 20
WRITTEN = 200
"""MB that an instance has on its disk."""
PORT = 8080
SECONDS = 120.0
SERVE = "mkdir -p /www; echo here >/www/index.html; exec httpd -f -p 80 -h /www"
RUN = ("run", "-d", "-m", "64M", "--stop-signal", "KILL")
"""What does not listen to TERM would be waited for ten seconds, which is no matter of the move."""
_ASK = b"GET / HTTP/1.0\r\n\r\n"


def measure(figure: Figure, cast: Cast, sizes: Sizes) -> None:
    """Two hosts, containers that serve pages."""
    tar = images.busybox_tar(cast.scene.directory("fleet") / "busybox.tar")
    with Fleet(2, tls=False) as fleet:
        fleet.begin()
        for host in fleet.hosts:
            host.daemon.cli("image", "import", tar, "box")
        for written, label in ((0, "an empty container"), (WRITTEN, f"a container with {WRITTEN} MB")):
            say(f"moves of {label}")
            _blackouts(figure, fleet, written, label, max(2, sizes.runs // 3))
        say(f"a drain of {DRAINED} instances")
        _drain(figure, fleet, 4 if sizes.runs <= 5 else DRAINED)
        if left := fleet.leaked():
            raise Unusable(f"the fleet left behind: {left}")


def _blackouts(figure: Figure, fleet: Fleet, written: int, label: str, runs: int) -> None:
    """There and back, as a client sees it that asks every millisecond, and as the report has it."""
    source, target = fleet.hosts
    words = (*RUN, "--host", source.name, "--name", "served", "-p", f"{PORT}:80", "--disk", "1G")
    source.cli(*words, "box", "sh", "-c", SERVE)
    if written:
        fill = f"dd if=/dev/urandom of=/data bs=1M count={written} 2>/dev/null; sync"
        source.cli("exec", "served", "sh", "-c", fill)
    away, down, total = [], [], []
    for _ in range(runs):
        with asking(fleet, [source.address, target.address]) as answers:
            began = time.perf_counter()
            moved = json.loads(source.cli("move", "served", "--host", target.name, "--format", "json"))
            total.append((time.perf_counter() - began) * 1e3)
            wait(partial(has_answered, answers, target.address, began))
        away.append(_gap(answers, target.address))
        down.append(moved["downtime"] * 1e3)
        source, target = target, source
    figure.add("bulkhead", f"{label}: away", away)
    figure.add("bulkhead", f"{label}: down, as reported", down)
    figure.add("bulkhead", f"{label}: move", total)
    source.cli("rm", "-f", "served")


def _drain(figure: Figure, fleet: Fleet, count: int) -> None:
    source = fleet.hosts[0]
    for number in range(count):
        words = (*RUN, "--host", source.name, "--name", f"d{number}", "--disk", "64M")
        source.cli(*words, "box", "sleep", "100000")
    began = time.perf_counter()
    told = source.daemon.cli("host", "drain", "--deadline", "30m", "--format", "json", source.name, timeout=1800)
    seconds = time.perf_counter() - began
    went = json.loads(told.stdout)["went"]
    if len(went) != count:
        raise Unusable(f"{len(went)} of {count} instances have left: {told.stdout[:500]}")
    figure.add("bulkhead", f"drain of {count}: all", [seconds * 1e3])
    figure.add("bulkhead", f"drain of {count}: down, each", [each["downtime"] * 1e3 for each in went])
    source.cli("host", "undrain", source.name)
    for each in went:
        source.cli("rm", "-f", each["name"])


# --- a client


@contextmanager
def asking(fleet: Fleet, addresses: Sequence[str]) -> Iterator[list[tuple[float, str]]]:
    """Ask all addresses every millisecond, from where etcd runs; when and by whom it was answered."""
    stop, answers = threading.Event(), list[tuple[float, str]]()

    def ask(address: str) -> None:
        while not stop.is_set():
            if _answers(address):
                answers.append((time.perf_counter(), address))
            time.sleep(0.001)

    def work(address: str) -> None:
        in_network(f"/proc/{fleet.switch.pid}/ns/net", lambda: ask(address))

    threads = [threading.Thread(target=work, args=(address,)) for address in addresses]
    for thread in threads:
        thread.start()
    try:
        wait(lambda: bool(answers))
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _answers(address: str) -> bool:
    with suppress(OSError), socket.create_connection((address, PORT), timeout=0.2) as connection:
        connection.settimeout(0.2)
        connection.sendall(_ASK)
        return b"200" in connection.recv(64)
    return False


def has_answered(answers: Sequence[tuple[float, str]], address: str, since: float) -> bool:
    """Whether an address has answered after a moment."""
    return any(when > since and who == address for when, who in answers)


def _gap(answers: Sequence[tuple[float, str]], target: str) -> float:
    """Milliseconds from the last answer of the source to the first of the target."""
    first = next(when for when, who in answers if who == target)
    before = max(when for when, who in answers if who != target and when < first)
    return (first - before) * 1e3


def wait(holds: Callable[[], bool]) -> None:
    """Until it holds. Raises Unusable."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise Unusable(f"nobody answered within {SECONDS:g} s")
        time.sleep(0.005)
