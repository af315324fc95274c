"""From a bundle to QEMU's command line. Pure; tests/golden has one to be read.

QEMU runs in the jail of `jail`, which puts the files where this says they are. It starts stopped: nothing of the guest
runs before the host has closed the door to the directory of its sockets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bulkhead.isolation.base import Boot, Bundle
from bulkhead.model import Plan

PROGRAM = "/usr/bin/qemu-system-x86_64"
HERE = "/run/vm"
"""The directory in the jail with what QEMU is given."""
KERNEL, INITRD = f"{HERE}/kernel", f"{HERE}/initrd"
SOCKETS = f"{HERE}/sockets"
"""In the jail, what the directory `DIRECTORY` in the bundle is outside."""
DIRECTORY = "vm"
QMP, AGENT = "qmp.sock", "agent.sock"
PORT = "bulkhead.agent"
"""The name of the virtio-serial port by which the guest's agent is reached."""
MAX_DISKS = 16
FIRST_SLOT = 0x10
"""PCI slot of the first disk on the bus; the others follow, so that the guest finds them in this order."""
TRANSLATED = 64
"""MiB of translated code that TCG keeps."""
CMDLINE = "console=ttyS0 quiet panic=-1 reboot=t tsc=reliable random.trust_cpu=on cryptomgr.notests"
"""The kernel's tests of its own ciphers are half of all instructions of a boot."""
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True)
class Drive:
    """A file that becomes a disk of the guest's. `limited`: the plan's disk limits count for it."""

    source: Path
    inside: str
    """Its path in the jail."""
    read_only: bool
    limited: bool


def drives(bundle: Bundle) -> list[Drive]:
    """The guest's disks in order (vda, vdb, ...): its own, the layers from the lowest, the volumes."""
    boot = require_boot(bundle)
    own = Drive(boot.disk, f"{HERE}/disk", read_only=False, limited=True)
    layers = [
        Drive(layer, f"{HERE}/layers/{number}", read_only=True, limited=False)
        for number, layer in enumerate(boot.layers)
    ]
    volumes = [
        Drive(volume.source, f"{HERE}/volumes/{number}", volume.read_only, limited=True)
        for number, volume in enumerate(bundle.volumes)
    ]
    return [own, *layers, *volumes]


def require_boot(bundle: Bundle) -> Boot:
    """The bundle's `boot`, which every VM has."""
    if bundle.boot is None:
        raise ValueError(f"VM {bundle.spec.name} has nothing to boot from")
    return bundle.boot


def vcpus(plan: Plan) -> int:
    """Processors that the guest sees: the plan's, rounded up. How much of them it gets is the cgroup's business."""
    return math.ceil(plan.cpus)


def command_line(bundle: Bundle) -> tuple[str, ...]:
    """QEMU's argv. It listens on both of its sockets before it does anything else, and waits for `cont`."""
    boot, plan = require_boot(bundle), bundle.spec.plan
    return (
        PROGRAM,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S"),
        *("-machine", "q35,usb=off,smbus=off,sata=off,vmport=off,dump-guest-core=off,mem-merge=off"),
        *_processor(boot, plan),
        *("-m", f"{plan.memory}B"),
        *("-sandbox", SANDBOX),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,path={SOCKETS}/{QMP},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=agent,path={SOCKETS}/{AGENT},server=on,wait=off"),
        *("-device", "virtio-serial-pci,id=ports,max_ports=2,addr=0x2"),
        *("-device", f"virtserialport,bus=ports.0,nr=1,chardev=agent,name={PORT}"),
        *_network(bundle),
        *_disks(bundle),
        *("-kernel", KERNEL, "-initrd", INITRD, "-append", CMDLINE),
    )


def _processor(boot: Boot, plan: Plan) -> Iterator[str]:
    if boot.accelerator == "kvm":
        yield from ("-accel", "kvm", "-cpu", "host")
    else:
        yield from ("-accel", f"tcg,thread=multi,tb-size={TRANSLATED}", "-cpu", "max")
    yield from ("-smp", str(vcpus(plan)))


def _network(bundle: Bundle) -> Iterator[str]:
    boot = require_boot(bundle)
    if boot.tap:
        if bundle.address is None:
            raise ValueError(f"VM {bundle.spec.name} has a tap and no address")
        yield from ("-netdev", f"tap,id=net0,ifname={boot.tap},script=no,downscript=no,vhost=off")
        yield from ("-device", f"virtio-net-pci,netdev=net0,mac={bundle.address.mac},romfile=,addr=0x3")


def _disks(bundle: Bundle) -> Iterator[str]:
    limits = throttle(bundle.spec.plan)
    if limits:
        yield from ("-object", _json({"qom-type": "throttle-group", "id": "plan", "limits": limits}))
    for number, drive in enumerate(drives(bundle)):
        name = f"disk{number}"
        yield from ("-blockdev", _json(_node(name, drive, throttled=bool(limits) and drive.limited)))
        yield from ("-device", f"virtio-blk-pci,drive={name},addr={FIRST_SLOT + number:#x}")


def throttle(plan: Plan) -> dict[str, int]:
    """The plan's disk limits as QEMU's ThrottleLimits; one group for all of the instance's disks. Each way."""
    both = {"iops": plan.iops, "bps": plan.disk_bps}
    return {f"{kind}-{way}": value for kind, value in both.items() if value is not None for way in ("read", "write")}


def _node(name: str, drive: Drive, *, throttled: bool) -> dict[str, object]:
    # Layers are shared by many guests: the host's page cache holds them once. What a guest writes, it caches itself.
    file: dict[str, object] = {
        "driver": "file",
        "filename": drive.inside,
        "locking": "off",
        "cache": {"direct": not drive.read_only, "no-flush": False},
    }
    access = {"read-only": True} if drive.read_only else {"discard": "unmap", "detect-zeroes": "unmap"}
    raw: dict[str, object] = {"driver": "raw", "file": file, **access}
    if throttled:
        return {"driver": "throttle", "node-name": name, "throttle-group": "plan", "file": raw, **access}
    return {"node-name": name, **raw}


def _json(value: dict[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))
