"""What passes a virtual machine's disk and network, beside QEMU alone with the same devices."""

from __future__ import annotations

import json
import socket
import tarfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.contest import Contender, compete, say
from bench.figures import Figure
from bench.peers.bulkhead import Bulkhead
from bench.peers.qemu import Bare
from bench.timing import Unusable, find, output

IMAGE = "bench-load"
PORT = 5201
WORK = {
    "256 MiB written to a disk": "write 256",
    "256 MiB read from a disk": "read 256",
    "2,000 blocks of 4 KiB written anywhere": "rwrite 2000",
    "2,000 blocks of 4 KiB read from anywhere": "rread 2000",
    "64 MiB to a guest": "sink 64",
    "64 MiB from a guest": "send 64",
}
"""What is timed, and how the program in the guest is asked for it."""
LEAST = 0.9
"""Of the throughput of QEMU alone; times are compared, so the other way round."""
MIB = 1 << 20
PATIENCE = 60.0
SIZE = ("--isolation", "vm", "--memory", "128M", "--cpus", "1")


class Load:
    """A connection to the program in a guest."""

    def __init__(self, host: str) -> None:
        self._connection = _connect(host)
        self._connection.settimeout(PATIENCE)

    def __call__(self, command: str) -> float:
        """Milliseconds of a command. Raises Unusable."""
        what, count = command.split()
        begun = time.perf_counter()
        try:
            self._connection.sendall(f"{command}\n".encode())
            if what == "sink":
                for _ in range(int(count)):
                    self._connection.sendall(bytes(MIB))
            left = (int(count) * MIB if what == "send" else 0) + len("done\n")
            while left:
                got = len(self._connection.recv(min(left, MIB)))
                if not got:
                    raise Unusable(f"the program in the guest ended at {command!r}")
                left -= got
        except OSError as error:
            raise Unusable(f"{command!r} in the guest: {error}") from error
        return (time.perf_counter() - begun) * 1000

    def close(self) -> None:
        """End it."""
        self._connection.close()


def measure(figure: Figure, engine: Bulkhead, bare: Callable[[int], Bare], runs: int) -> None:
    """Add the series and their goals. `bare` makes QEMU alone of a running machine's."""
    say("vm: throughput")
    engine.import_tar(_archive(engine.home), IMAGE)
    with ExitStack() as stack:
        # Not `run`: what is to be copied for QEMU alone are the files of a guest that was not warm.
        engine.output("create", "--name", "load", *SIZE, IMAGE, "/load")
        stack.callback(engine.remove, ["load"])
        engine.output("start", "load")
        (row,) = json.loads(engine.output("inspect", "load"))
        alone = bare(int(row["pid"]))
        spec = (engine.home / "state/instances" / row["id"] / "spec.json").read_text()
        ours = Load(row["address"]["ipv4"])
        stack.callback(ours.close)
        theirs = Load(stack.enter_context(alone.running(spec)))
        stack.callback(theirs.close)
        for text, command in WORK.items():
            labels = (f"bulkhead, {text}", f"QEMU alone, {text}")
            pairs = ((Bulkhead.name, labels[0], ours), ("qemu", labels[1], theirs))
            compete(figure, [Contender(peer, label, partial(load, command)) for peer, label, load in pairs], runs)
            figure.want_ratio(f"time of {text} / QEMU alone", labels[0], labels[1], 1 / LEAST)


def _archive(directory: Path) -> Path:
    """A root file system with the program."""
    program, archive = directory / "load", directory / "load.tar"
    source = Path(__file__).resolve().parent.parent / "load/load.c"
    output([find("gcc", "gcc"), "-O2", "-static", "-o", str(program), str(source)])
    with tarfile.open(archive, "w") as tar:
        for name in ("dev", "etc", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(program, "load")
    return archive


def _connect(host: str) -> socket.socket:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection((host, PORT), timeout=1.0)
        except OSError as error:
            if time.monotonic() > deadline:
                raise Unusable(f"the program in the guest at {host} does not answer: {error}") from error
            time.sleep(0.05)
