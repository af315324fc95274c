"""How an image of a server is to be run: a command line of `bulkhead run`, from what was found and measured."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bulkhead.quantities import format_size
from bulkhead.servers.services import SSH, Data, Service
from bulkhead.servers.survey import Port, Survey

_STEP = 64 << 20
_LEAST_MEMORY, _UNKNOWN_MEMORY = 256 << 20, 1 << 30
_GIB = 1 << 30
_PIDS = 1024


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What to do, in words of the command line, and why."""

    prepare: tuple[tuple[str, ...], ...]
    """Commands to be run before: volumes, and what comes into them."""
    run: tuple[str, ...]
    ports: tuple[Port, ...]
    because: tuple[str, ...]


def suggest(
    name: str, image: str, survey: Survey | None, services: Sequence[Service], data: Sequence[Data], *, init: bool,
    volumes: bool,
) -> Suggestion:  # fmt: skip
    """The command lines. `init`: the image has an init of a system; without one the first service is its command."""
    memory, why_memory = _memory(survey)
    cpus, why_cpus = _cpus(survey)
    held = sum(one.size for one in data)
    disk = _GIB * (2 + math.ceil(2 * held / _GIB))
    ports = published(services)
    words = ["run", "-d", "--name", name, *(["--init", "system"] if init else [])]
    words += ["--memory", format_size(memory), "--cpus", str(cpus), "--disk", format_size(disk), "--pids", str(_PIDS)]
    words += [word for port in ports for word in ("-p", _publish(port))]
    prepare: list[tuple[str, ...]] = []
    used: set[str] = set()
    for one in data if volumes else ():
        volume, path = _volume(name, one, used), "/" + one.path.decode("utf-8", "surrogateescape")
        prepare.append(("volume", "create", volume, "--size", format_size(_GIB * (1 + math.ceil(2 * one.size / _GIB)))))
        prepare.append(("run", "--rm", "-v", f"{volume}:/mnt", image, "cp", "-a", f"{path}/.", "/mnt/"))
        words += ["-v", f"{volume}:{path}"]
    return Suggestion(
        tuple(prepare),
        (*words, image),
        ports,
        (why_memory, why_cpus, f"disk {format_size(disk)}: twice the data found ({format_size(held)}), and 2G"),
    )


def published(services: Iterable[Service]) -> tuple[Port, ...]:
    """Ports that others reach, without that of ssh: `bulkhead exec` is there, and the host has an sshd of its own."""
    found = {
        (port.protocol, port.number)
        for service in services
        if service.name not in SSH
        for port in service.ports
        if not port.local
    }
    return tuple(Port(number, protocol, local=False) for protocol, number in sorted(found))


def _publish(port: Port) -> str:
    return f"{port.number}:{port.number}" + ("/udp" if port.protocol == "udp" else "")


def _memory(survey: Survey | None) -> tuple[int, str]:
    used = sum(one.memory for one in survey.running.values()) if survey else 0
    if not used:
        return _UNKNOWN_MEMORY, "memory 1G: a guess, nothing was measured"
    wanted = max(_LEAST_MEMORY, math.ceil(used * 1.5 / _STEP) * _STEP)
    return (
        wanted,
        f"memory {format_size(wanted)}: 1.5 times what its services use ({format_size(used)}), at least 256M",
    )


def _cpus(survey: Survey | None) -> tuple[int, str]:
    if survey is None:
        return 1, "cpus 1: a guess, nothing was measured"
    wanted = min(survey.cores, max(1, math.ceil(survey.load * 2)))
    return (
        wanted,
        f"cpus {wanted}: twice the load of the last 15 minutes ({survey.load:.2f}), at most its {survey.cores}",
    )


def _volume(name: str, one: Data, used: set[str]) -> str:
    last = re.sub(r"[^a-zA-Z0-9_.-]", "-", one.path.rpartition(b"/")[2].decode("utf-8", "replace"))
    volume = f"{name}-{last}"[:60]
    while volume in used:
        volume += "-"
    used.add(volume)
    return volume
