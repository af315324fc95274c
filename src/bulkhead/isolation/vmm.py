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

from bulkhead.agent.launch import inherited_fd
from bulkhead.isolation.base import Boot, Bundle, Room
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
PORTS = "ports"
"""QEMU's name of the device that has the ports."""
RAM = f"{HERE}/ram"
MAX_DISKS = 16
SLOTS = (2, 4, 8, MAX_DISKS)
"""Disks of templates. The first is the instance's own, so that two serve an image of one layer."""
PLACEHOLDER: dict[str, object] = {"driver": "null-co", "size": 1 << 50, "read-zeroes": True}
"""A disk that holds nothing, as large as the largest: a guest goes on believing in the size that it has seen first."""
FOREIGN = "foreign"
"""What serial numbers of foreign disks begin with."""
TEMPLATE_MAC = "02:69:00:00:00:03"
FIRST_SLOT = 0x8
"""PCI slot of the first disk on the bus; the others follow, so that the guest finds them in this order."""
FIRST_SPARE, FUNCTIONS = 0x18, 8
"""PCI slot of the first spare disk, and how many of them share a slot: found after all others."""
MAX_INNER = 16
"""Instances within one VM."""
INNER_LAYERS, LEAST_LAYERS = 2, 4
"""Spare disks for layers for each of them, and the least: a layer that several have in common is there once."""
SPARE_QUEUE = 64
"""Requests under way at a time: the guest's kernel sets memory aside for each."""
TRANSLATED = 64
"""MiB of translated code that TCG keeps."""
CMDLINE = "console=ttyS0 quiet panic=-1 reboot=t tsc=reliable random.trust_cpu=on cryptomgr.notests no_timer_check"
"""The kernel's tests of its own ciphers are half of all instructions of a boot. Whether the timer ticks it finds out by
waiting for some ticks: on a busy host it takes a timer for broken that is not, and looks for another."""
HOTPLUG = "memhp_default_state=online_movable swiotlb=noforce"
"""What comes later can go again. And no 64 MiB of bounce buffers, which no device of this machine needs, and a kernel
sets aside where memory above 4 GiB can come."""
TIMES = 8
"""How far memory can grow: what describes the new comes out of the old, 1.6 % of it."""
VCPU_TIMES = 4
"""How far processors can: a kernel sets 200 KiB aside for each that may come."""
MEMORY_STEP, MEMORY_BLOCK = 2 << 20, 128 << 20
"""Bytes by which memory grows and shrinks above what the guest started with, and in which its kernel counts."""
FIRMWARE = ("-bios", "qboot.rom")
"""Starts Linux by PVH, 0.2 s earlier than SeaBIOS 1.16 under TCG, and leaves the kernel alone: with more than 32 MiB of
memory SeaBIOS moves itself to 16 MiB below the memory's end, where in a small guest the kernel is."""
MACHINE = "q35,usb=off,smbus=off,sata=off,vmport=off,dump-guest-core=off"
MEMORY = "ram"
"""QEMU's name of what the guest starts with."""
MORE_MEMORY, BALLOON, LIMITS = "more", "balloon", "plan"
"""QEMU's names of the device that brings memory, of the one that takes it, and of the disks' limits."""
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
    own = [Drive(boot.disk, f"{HERE}/disk", read_only=False, limited=True)] if boot.disk else []
    layers = [
        Drive(layer, f"{HERE}/layers/{number}", read_only=True, limited=False)
        for number, layer in enumerate(boot.layers)
    ]
    volumes = [
        Drive(volume.source, f"{HERE}/volumes/{number}", volume.read_only, limited=True)
        for number, volume in enumerate(bundle.volumes)
    ]
    return [*own, *layers, *volumes]


def require_boot(bundle: Bundle) -> Boot:
    """The bundle's `boot`, which every VM has."""
    if bundle.boot is None:
        raise ValueError(f"VM {bundle.spec.name} has nothing to boot from")
    return bundle.boot


def vcpus(plan: Plan) -> int:
    """Processors that the guest sees: the plan's, rounded up. How much of them it gets is the cgroup's business."""
    return math.ceil(plan.cpus)


def room(plan: Plan, *, memory: int, cores: int) -> Room:
    """How far a guest of this plan can grow on a host with so many bytes and cores."""
    growth = max(0, min(plan.memory * TIMES, memory) - plan.memory)
    most = min(cores, vcpus(plan) * VCPU_TIMES)
    return Room(plan.memory + growth // MEMORY_BLOCK * MEMORY_BLOCK, max(vcpus(plan), most))


def started(bundle: Bundle) -> Room:
    """What the guest starts with, as if it were all it could have."""
    return Room(bundle.spec.plan.memory, vcpus(bundle.spec.plan))


def command_line(bundle: Bundle) -> tuple[str, ...]:
    """QEMU's argv. It listens on both of its sockets before it does anything else, and waits for `cont`."""
    room = require_boot(bundle).room or started(bundle)
    kernel_line = f"{CMDLINE} {HOTPLUG}" if room.memory > bundle.spec.plan.memory else CMDLINE
    return (
        PROGRAM,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S"),
        *processor(require_boot(bundle).accelerator, bundle.spec.cpu_model),
        *FIRMWARE,
        *("-smp", f"{vcpus(bundle.spec.plan)},maxcpus={room.vcpus}"),
        *_memory(bundle),
        *("-sandbox", SANDBOX),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,path={SOCKETS}/{QMP},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=agent,path={SOCKETS}/{AGENT},server=on,wait=off"),
        *("-device", f"virtio-serial-pci,id={PORTS},max_ports={2 + require_boot(bundle).inner},addr=0x2"),
        *("-device", f"virtserialport,bus={PORTS}.0,nr=1,chardev=agent,name={PORT}"),
        *_network(bundle),
        *_disks(bundle),
        *_attached(bundle),
        *("-kernel", KERNEL, "-initrd", INITRD, "-append", kernel_line),
    )


def processor(accelerator: str, model: str = "") -> Iterator[str]:
    """The kind of the guest's processors, and what runs them. `model`: one of QEMU's; "": all that there is."""
    # A model that this host cannot give whole is refused by QEMU, not given in part.
    named = f"{model},enforce" if model else ""
    if accelerator == "kvm":
        yield from ("-accel", "kvm", "-cpu", named or "host")
    else:
        yield from ("-accel", f"tcg,thread=multi,tb-size={TRANSLATED}", "-cpu", named or "max")


def _memory(bundle: Bundle) -> Iterator[str]:
    boot, size = require_boot(bundle), bundle.spec.plan.memory
    yield from memory(bundle, saved=boot.saved is not None, becomes_template=boot.ram is not None)
    if boot.saved or boot.resumed or boot.incoming:
        yield from ("-incoming", "defer")
    merge = "on" if boot.merges else "off"
    yield from ("-machine", f"{MACHINE},mem-merge={merge},memory-backend={MEMORY}")
    room = boot.room or started(bundle)
    yield from ("-m", f"{size}B,maxmem={room.memory}B" if room.memory > size else f"{size}B")
    if room.memory > size:
        yield from ("-object", f"memory-backend-ram,id=room,size={room.memory - size}B")
        yield from ("-device", f"virtio-mem-pci,id={MORE_MEMORY},memdev=room,requested-size=0,addr=0x4")
    yield from ("-device", f"virtio-balloon-pci,id={BALLOON},addr=0x5{_reporting(bundle)}")


def _reporting(bundle: Bundle) -> str:
    """Whether the guest tells which of its memory it does not use, which goes back to the host at once.

    Only one that always boots, so that it goes on from a saved memory with the same device. A template's memory cannot
    give back single pages: QEMU 7.2 would punch holes into its file, which every other guest has as well.
    """
    return ",free-page-reporting=on" if bundle.spec.cold and require_boot(bundle).ram is None else ""


def memory(bundle: Bundle, *, saved: bool, becomes_template: bool) -> Iterator[str]:
    """What a guest has for its memory, under the name MEMORY: its own, a template's, or what will be a template."""
    # By its id a saved guest's memory is found again, whatever kind of memory it had before.
    size = f"id={MEMORY},size={bundle.spec.plan.memory}B"
    if saved:
        # Opened for reading and writing, mapped for this guest alone; the seals keep the file as it is.
        path = f"/proc/self/fd/{ram_fd(bundle)}"
        yield from ("-object", f"memory-backend-file,{size},mem-path={path},share=off")
    elif becomes_template:
        yield from ("-object", f"memory-backend-file,{size},mem-path={RAM},share=on")
    else:
        yield from ("-object", f"memory-backend-ram,{size}")


def ram_fd(bundle: Bundle) -> int:
    """The descriptor by which QEMU has a template's memory."""
    return inherited_fd(0, netns=bundle.netns_fd is not None)


def _network(bundle: Bundle) -> Iterator[str]:
    boot = require_boot(bundle)
    if boot.tap:
        # A guest from a template has the template's address until its agent gives it its own.
        mac = bundle.address.mac if bundle.address else TEMPLATE_MAC
        yield from ("-netdev", f"tap,id=net0,ifname={boot.tap},script=no,downscript=no,vhost=off")
        yield from ("-device", f"virtio-net-pci,netdev=net0,mac={mac},romfile=,addr=0x3")


def _disks(bundle: Bundle) -> Iterator[str]:
    # Also without limits, which an update may bring.
    yield from ("-object", as_json({"qom-type": "throttle-group", "id": LIMITS, "limits": throttle(bundle.spec.plan)}))
    given = drives(bundle)
    for number in range(disks(bundle)):
        name = (rehearsal_node if require_boot(bundle).rehearsal else disk_node)(number)
        if number < len(given):
            drive = given[number]
            yield from ("-blockdev", as_json(node(name, drive)))
        else:
            yield from ("-blockdev", as_json({**PLACEHOLDER, "node-name": name}))
        yield from ("-device", f"virtio-blk-pci,id={slot(number)},drive={name},addr={FIRST_SLOT + number:#x}")
    yield from _spares(require_boot(bundle).inner)


def _spares(inner: int) -> Iterator[str]:
    """Disks that hold nothing until an instance within the guest has its own put in their places."""
    for number in range(spare_count(inner)):
        access: dict[str, object] = {} if is_writable(number, inner) else {"read-only": True}
        name = spare(number)
        yield from ("-blockdev", as_json({**PLACEHOLDER, "node-name": name, **access}))
        place = f"addr={FIRST_SPARE + number // FUNCTIONS:#x}.{number % FUNCTIONS},multifunction=on"
        yield from ("-device", f"virtio-blk-pci,id={name},drive={name},{place},num-queues=1,queue-size={SPARE_QUEUE}")


def spare_count(inner: int) -> int:
    """Spare disks of a guest that can hold `inner` instances."""
    return inner + spare_layers(inner)


def spare_layers(inner: int) -> int:
    """Those of them that are for layers."""
    return max(LEAST_LAYERS, inner * INNER_LAYERS) if inner else 0


def is_writable(number: int, inner: int) -> bool:
    """Whether a spare disk is one that can be written: those come first."""
    return number < inner


def spare(number: int) -> str:
    """QEMU's name of a spare disk, and of what is in it while it has nothing."""
    return f"spare{number}"


def disks(bundle: Bundle) -> int:
    """Disks of the guest's own, placeholders among them: the spare ones come after these."""
    return max(len(drives(bundle)), require_boot(bundle).slots)


def _attached(bundle: Bundle) -> Iterator[str]:
    """Foreign disks by descriptors, so that the jail needs no file of theirs; the guest knows them by their serials."""
    first = len(drives(bundle))
    for number, disk in enumerate(require_boot(bundle).attached):
        name, place = f"foreign{number}", f"/dev/fdset/{number}"
        file: dict[str, object] = {
            "driver": "host_device" if disk.device else "file",
            "filename": place,
            # Whoever else has the file open through QEMU and locks it, as usual, is told apart by this.
            "locking": "off" if disk.device else "on",
            "read-only": disk.read_only,
        }
        whole: dict[str, object] = {"driver": disk.form, "node-name": name, "read-only": disk.read_only, "file": file}
        if disk.form == "qcow2":
            whole["backing"] = None
        yield from ("-add-fd", f"fd={foreign_fd(bundle, number)},set={number}")
        yield from ("-blockdev", as_json(whole))
        device = f"virtio-blk-pci,id={name},drive={name},serial={FOREIGN}{number},addr={FIRST_SLOT + first + number:#x}"
        yield from ("-device", device)


def foreign_fd(bundle: Bundle, number: int) -> int:
    """The descriptor by which QEMU has a foreign disk. A guest with one is not started from a template."""
    return inherited_fd(number, netns=bundle.netns_fd is not None)


def disk_node(number: int) -> str:
    """QEMU's name of a disk's contents."""
    return f"disk{number}"


def rehearsal_node(number: int) -> str:
    """The same of a disk that a start is only rehearsed with."""
    return f"rehearsal{number}"


def slot(number: int) -> str:
    """QEMU's name of the device by which a guest has a disk."""
    return f"slot{number}"


def throttle(plan: Plan) -> dict[str, int]:
    """The plan's disk limits as QEMU's ThrottleLimits; one group for all of the instance's disks. Each way; 0: none."""
    both = {"iops": plan.iops, "bps": plan.disk_bps}
    return {f"{kind}-{way}": value or 0 for kind, value in both.items() for way in ("read", "write")}


def node(name: str, drive: Drive, *, limits: str = LIMITS) -> dict[str, object]:
    """A file as a block device of QEMU's, under the group `limits` where these count for it."""
    # Layers are shared by many guests: the host's page cache holds them once. What a guest writes, it caches itself.
    file: dict[str, object] = {
        "driver": "file",
        "filename": drive.inside,
        "locking": "off",
        "cache": {"direct": not drive.read_only, "no-flush": False},
    }
    access = {"read-only": True} if drive.read_only else {"discard": "unmap", "detect-zeroes": "unmap"}
    raw: dict[str, object] = {"driver": "raw", "file": file, **access}
    if drive.limited:
        return {"driver": "throttle", "node-name": name, "throttle-group": limits, "file": raw, **access}
    return {"node-name": name, **raw}


def as_json(value: dict[str, object]) -> str:
    """An argument of QEMU's, without the commas' meaning in its own syntax."""
    return json.dumps(value, separators=(",", ":"))
