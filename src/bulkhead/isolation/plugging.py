"""An instance's disks and its port, given to a VM that runs and taken away again, through QEMU's monitor.

A guest has spare disks from its start, which hold nothing. QEMU gets the instance's files as open descriptors and the
spare disks are switched over to them: the guest need not find or probe anything, and no name leads from the jail to
the files. What is where is asked of QEMU itself, so that a crash leaves nothing that is not found again; the VM's QEMU
may be its guest's, and then tells lies about its own guest alone.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from bulkhead.agent.session import short_path
from bulkhead.errors import AgentError, Conflict
from bulkhead.host import processes
from bulkhead.host.qmp import Qmp, QmpError
from bulkhead.isolation import guest, vmm
from bulkhead.isolation.base import Inside
from bulkhead.isolation.resizing import sensible
from bulkhead.isolation.vmm import Drive
from bulkhead.model import Plan

_QDEV = re.compile(r"^/machine/peripheral/spare(\d{1,3})(?:/|$)")
_SECONDS, _PAUSE = 5.0, 0.002
PORT = "port-"
"""What the names of ports begin with."""
_SHORT = 20
"""Characters of an id or digest in a name of QEMU's, which has at most 31."""


@dataclass(frozen=True, slots=True)
class Plugged:
    """Block devices in the guest."""

    disk: str
    layers: tuple[str, ...]
    """The lowest first."""


@dataclass(frozen=True, slots=True)
class Known:
    """An instance that has something in a VM: its id, its port's name, the digests of its layers."""

    id: str
    port: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spares:
    """The spare disks of a VM that runs, by its monitor."""

    monitor: Qmp
    inner: int

    def contents(self) -> dict[int, str]:
        """QEMU's name of what each holds; its own name where that is nothing."""
        found = {}
        with sensible():
            for row in self.monitor.execute("query-block"):  # type: ignore[attr-defined]
                match = _QDEV.match(str(row.get("qdev", "")))
                if match:
                    found[int(match[1])] = str(row["inserted"]["node-name"])
        return {number: name for number, name in found.items() if number < vmm.spare_count(self.inner)}

    def put(self, name: str, drive: Drive, *, limits: str = vmm.LIMITS) -> int:
        """Put a file in a spare disk, or find it there; the disk's number. Raises Conflict where none is left."""
        contents = self.contents()
        for number, held in contents.items():
            if held == name:
                return number
        number = self._free(contents, writable=not drive.read_only)
        with suppress(QmpError):  # of a start that a crash has cut off
            self.monitor.execute("blockdev-del", {"node-name": name})
        with ExitStack() as always:
            access = os.O_RDONLY if drive.read_only else os.O_RDWR
            descriptor = os.open(drive.source, access | os.O_CLOEXEC)
            always.callback(os.close, descriptor)
            path = self.monitor.add_file(descriptor)
            given = Drive(drive.source, path, drive.read_only, drive.limited)
            self.monitor.execute("blockdev-add", vmm.node(name, given, limits=limits))
        self._hold(number, name)
        return number

    def take(self, names: Collection[str]) -> None:
        """Let the spare disks that hold these hold nothing. Idempotent."""
        for number, held in self.contents().items():
            if held in names:
                self._hold(number, vmm.spare(number))
        for name in names:
            with suppress(QmpError):
                self.monitor.execute("blockdev-del", {"node-name": name})

    def _free(self, contents: dict[int, str], *, writable: bool) -> int:
        for number, held in sorted(contents.items()):
            if held == vmm.spare(number) and vmm.is_writable(number, self.inner) == writable:
                return number
        what = "as many instances as it can hold" if writable else "all the layers that it can have"
        raise Conflict(f"the VM has {what} ({self.inner})", hint="run a VM with a greater --inner")

    def _hold(self, number: int, name: str) -> None:
        path = f"/machine/peripheral/{vmm.spare(number)}"
        self.monitor.execute("qom-set", {"path": path, "property": "drive", "value": name})


def plug(monitor: Qmp, inside: Inside, instance_id: str, plan: Plan) -> Plugged:
    """Give the VM an instance's disk, under the limits of its plan, and its layers."""
    spares, group = Spares(monitor, inside.inner), limits_node(instance_id)
    layers = [
        spares.put(layer_node(digest), Drive(path, "", read_only=True, limited=False)) for digest, path in inside.layers
    ]
    with suppress(QmpError):  # of a start that a crash has cut off
        monitor.execute("object-del", {"id": group})
    monitor.execute("object-add", {"qom-type": "throttle-group", "id": group, "limits": vmm.throttle(plan)})
    processes.raise_file_size(inside.pid, plan.disk)
    disk = spares.put(disk_node(instance_id), Drive(inside.disk, "", read_only=False, limited=True), limits=group)
    return Plugged(device(inside, disk), tuple(device(inside, number) for number in layers))


def open_port(monitor: Qmp, path: Path, name: str) -> None:
    """Give the guest one more port, whose other side is the new unix socket `path`."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        with short_path(path) as short:
            listener.bind(short)
        path.chmod(0o600)
        listener.listen(1)
        monitor.hand_over(listener.fileno(), name)
        address = {"type": "fd", "data": {"str": name}}
        backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
        monitor.execute("chardev-add", {"id": name, "backend": backend})
    port = {"driver": "virtserialport", "bus": f"{vmm.PORTS}.0", "chardev": name, "id": name, "name": name}
    monitor.execute("device_add", port)


def sweep(monitor: Qmp, inner: int, known: Collection[Known]) -> None:
    """Take away whatever is none of these instances': disks, limits, ports, layers. Idempotent."""
    spares = Spares(monitor, inner)
    wanted = {disk_node(each.id) for each in known} | {layer_node(layer) for each in known for layer in each.layers}
    ports = _ports(monitor) - {each.port for each in known}
    for port in ports:
        with suppress(QmpError):
            monitor.execute("device_del", {"id": port})
    gone = {name for number, name in spares.contents().items() if name not in (vmm.spare(number), *wanted)}
    spares.take(gone)
    for name in gone:
        with suppress(QmpError):  # a layer has none
            monitor.execute("object-del", {"id": name.replace("disk-", "limits-", 1)})
    _let_go(monitor, ports)


def limit(monitor: Qmp, instance_id: str, plan: Plan) -> None:
    """Put an instance's disk under the limits of a plan."""
    limits = {"path": f"/objects/{limits_node(instance_id)}", "property": "limits", "value": vmm.throttle(plan)}
    monitor.execute("qom-set", limits)


def resize_disk(monitor: Qmp, instance_id: str, size: int) -> None:
    """The file of an instance's disk has `size` bytes."""
    monitor.execute("block_resize", {"node-name": disk_node(instance_id), "size": size})


def _ports(monitor: Qmp) -> set[str]:
    """Names of the ports that the VM was given for instances."""
    with sensible():
        labels = {str(row["label"]) for row in monitor.execute("query-chardev")}  # type: ignore[attr-defined]
    return {label for label in labels if label.startswith(PORT)}


def _let_go(monitor: Qmp, ports: set[str]) -> None:
    """The other side of a port is busy until QEMU has let go of the port itself, some milliseconds later."""
    deadline = time.monotonic() + _SECONDS
    while left := ports & _ports(monitor):
        for port in left:
            with suppress(QmpError):
                monitor.execute("chardev-remove", {"id": port})
        if time.monotonic() > deadline:
            raise AgentError(f"QEMU has not let go of {', '.join(sorted(left))} within {_SECONDS:g} s")
        time.sleep(_PAUSE)


def device(inside: Inside, number: int) -> str:
    """The block device of a spare disk in the guest."""
    return guest.device(inside.disks + number)


def disk_node(instance_id: str) -> str:
    """QEMU's name of an instance's disk."""
    return f"disk-{instance_id[:_SHORT]}"


def layer_node(digest: str) -> str:
    """QEMU's name of a layer."""
    return f"layer-{digest.removeprefix('sha256:')[:_SHORT]}"


def limits_node(instance_id: str) -> str:
    """QEMU's name of the limits on an instance's disk."""
    return f"limits-{instance_id[:_SHORT]}"
