"""One HTTP server behind each wall: from its start to its first byte, the least memory that works, what it takes."""

from __future__ import annotations

import json
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from bench.contest import Cast, Contender, Sizes, compete, say
from bench.figures import Figure, Missing
from bench.peers.bulkhead import Bulkhead
from bench.timing import Unusable, find

IMAGE, UNIKERNEL = "bench-httpd", "bench-unikernel"
SERVER = ("httpd", "-f", "-p", "80", "-h", "/www")
PORT = 80
MEMORY = 128
"""MB of the starts that are timed."""
LEAST = range(8, MEMORY + 1, 4)
"""MB that are tried for the least memory."""
PATIENCE = 60.0
_PAUSE = 0.002
_REST_SECONDS = 1.0
_TRY_SECONDS = 0.05
EVERY = 3
"""Boots take seconds: one in so many turns."""


@dataclass(frozen=True, slots=True)
class Wall:
    """One way to run the server."""

    label: str
    options: tuple[str, ...]
    image: str = IMAGE
    command: tuple[str, ...] = SERVER
    kernel: str = ""
    """The kernel's image, which counts into what it takes."""
    every: int = 1


CONTAINER = Wall("container", ("--isolation", "container"))


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """Starts in turns, then sizes, then the least memory of each."""
    figure = Figure(
        "unikernel",
        "One HTTP server behind each wall",
        "busybox's httpd with one file, as a container, a virtual machine and a unikernel of 128M and one processor "
        "(container: the wall of the others' price). `First byte`: from before the command `bulkhead start` is "
        "spawned, so with QEMU's start, to the first byte of an answer over the network. From templates where the "
        "label does not say `booted`. `Memory at rest`: what its cgroup on the host is charged, a second after the "
        "answer. `Artefact`: the blobs of the image, for a virtual machine its kernel's as well. "
        f"`Least memory`: the smallest plan, in steps of {LEAST.step} MB, with which it answers when it is booted.",
    )
    try:
        engine = cast.get(Bulkhead)
        engine.import_kernel()
        engine.import_tar(_archive(engine.home), IMAGE)
        walls = [CONTAINER, *_walls(engine, "debian")]
        if cast.scene.trimmed:
            engine.command("image", "import", str(cast.scene.trimmed), "kernel/trim:latest")
            walls += _walls(engine, "trim")
        else:
            figure.missing.append(Missing("the trimmed kernel", "it is not built (scripts/test kernel builds it)"))
        for wall in walls:
            _until_template(engine, wall)
        contenders = [
            Contender(Bulkhead.name, f"{wall.label}, first byte", partial(_first_byte, engine, wall), wall.every)
            for wall in walls
        ]
        compete(figure, contenders, max(2, sizes.runs // 2))
        for wall in walls:
            _sizes(figure, engine, wall)
    except Unusable as error:
        figure.missing.append(Missing("bulkhead", str(error)))
    return figure


def _walls(engine: Bulkhead, kernel: str) -> list[Wall]:
    """Machine and unikernel with one kernel, from a template and booted."""
    name, image = f"kernel/{kernel}:latest", f"{UNIKERNEL}-{kernel}"
    asked = ("--unikernel", "-t", image, "--kernel", name, "--keep", "/www")
    engine.output("build", *asked, IMAGE, *SERVER)
    machine, program = ("--isolation", "vm", "--kernel", name), ("--isolation", "unikernel")
    cold = ("--no-template",)
    return [
        Wall(f"vm, {kernel}", machine, kernel=name),
        Wall(f"vm, {kernel}, booted", (*machine, *cold), kernel=name, every=EVERY),
        Wall(f"unikernel, {kernel}", program, image=image, command=()),
        Wall(f"unikernel, {kernel}, booted", (*program, *cold), image=image, command=(), every=EVERY),
    ]


def _until_template(engine: Bulkhead, wall: Wall) -> None:
    """One start is behind it, and a template where there will be one."""
    before = len(_templates(engine))
    _first_byte(engine, wall)
    if wall is CONTAINER or "--no-template" in wall.options:
        return
    _wait(lambda: len(_templates(engine)) > before, f"a template of {wall.label}")


def _templates(engine: Bulkhead) -> list[Path]:
    return list((engine.home / "cache/templates").glob("*/key.json"))


def _first_byte(engine: Bulkhead, wall: Wall, memory: int = MEMORY) -> float:
    """Milliseconds from `start` to the first byte. Raises Unusable when none comes."""
    with _served(engine, wall, memory) as took:
        return took


def _charged(engine: Bulkhead, wall: Wall) -> float:
    """MB that are charged to it when it has answered and rests."""
    with _served(engine, wall, MEMORY):
        time.sleep(_REST_SECONDS)
        (row,) = json.loads(engine.output("stats", "--no-stream", "--format", "json", "served"))
        return float(row["memory"]) / 1e6


@contextmanager
def _served(engine: Bulkhead, wall: Wall, memory: int) -> Iterator[float]:
    """The server runs and has answered; yields milliseconds from `start` to the first byte."""
    size = ("--memory", f"{memory}M", "--cpus", "1", "--disk", "64M")
    try:
        engine.output("create", "--name", "served", *size, *wall.options, wall.image, *wall.command)
        begun = time.perf_counter()
        engine.output("start", "served")
        address = _instance(engine)["address"]["ipv4"]
        _wait(partial(_answers, address), wall.label, alive=partial(_runs, engine))
        yield (time.perf_counter() - begun) * 1000
    finally:
        with suppress(Unusable):
            engine.remove(["served"])


def _answers(address: str) -> bool:
    """Whether a byte of an answer comes. Anew each time: a packet that nobody heard is sent again after a second."""
    with suppress(OSError), socket.create_connection((address, PORT), timeout=_TRY_SECONDS) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return len(connection.recv(1)) == 1
    return False


def _runs(engine: Bulkhead) -> bool:
    return bool(_instance(engine)["state"] == "running")


def _instance(engine: Bulkhead) -> Any:
    return json.loads(engine.api.call("GET", "/v1/instances/served"))


def _wait(ready: Callable[[], bool], what: str, alive: Callable[[], bool] | None = None) -> None:
    deadline, looked = time.monotonic() + PATIENCE, time.monotonic()
    while not ready():
        now = time.monotonic()
        if alive and now > looked + 1:
            looked = now
            if not alive():
                raise Unusable(f"{what} has ended")
        if now > deadline:
            raise Unusable(f"{what} did not come within {PATIENCE:g} s")
        time.sleep(_PAUSE)


def _sizes(figure: Figure, engine: Bulkhead, wall: Wall) -> None:
    """What the artefact takes, and the least memory of a boot."""
    if wall is CONTAINER or "--no-template" not in wall.options:
        figure.add(Bulkhead.name, f"{wall.label}, memory at rest", [_charged(engine, wall)], unit="MB")
    if wall is not CONTAINER and "--no-template" not in wall.options:
        return
    say(f"unikernel: the least memory of {wall.label}")
    images = [wall.image, *([wall.kernel] if wall.kernel else [])]
    blobs = sum(json.loads(engine.output("image", "inspect", image))[0]["Size"] for image in images)
    name = wall.label.removesuffix(", booted")
    figure.add(Bulkhead.name, f"{name}, artefact", [blobs / 1e6], unit="MB")
    low, high = 0, len(LEAST) - 1
    while low < high:
        middle = (low + high) // 2
        try:
            _first_byte(engine, wall, LEAST[middle])
            high = middle
        except Unusable:
            low = middle + 1
    figure.add(Bulkhead.name, f"{name}, least memory", [float(LEAST[low])], unit="MB")


def _archive(directory: Path) -> Path:
    """A root file system with busybox, one page, and nothing else."""
    archive = directory / "httpd.tar"
    program = Path(find("busybox", "busybox-static")).read_bytes()
    files = {"bin/busybox": (program, 0o755), "www/index.html": (b"<title>served</title>\n", 0o644)}
    with tarfile.open(archive, "w") as tar:
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "www"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, BytesIO(data))
        link = tarfile.TarInfo("bin/httpd")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
    return archive
