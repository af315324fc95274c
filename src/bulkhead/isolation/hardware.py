"""The computer that an unmodified operating system finds, as QEMU's command line. Pure.

Everything is at its usual place: two disks, a network card, a serial port, a power button, a port for a guest agent.
The second disk is the seed. A disk of IDE or SATA cannot be read-only, so there the seed is a CD-ROM.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bulkhead.errors import Problem
from bulkhead.isolation import vmm
from bulkhead.isolation.base import Bundle, SystemBoot
from bulkhead.isolation.vmm import Drive
from bulkhead.model import Spec, System

DISK, SEED, VARIABLES = f"{vmm.HERE}/disk", f"{vmm.HERE}/seed", f"{vmm.HERE}/variables"
NODE = "disk"
"""QEMU's name of the disk's contents."""
GUEST_AGENT = "guest.sock"
PORT = "org.qemu.guest_agent.0"
"""The name by which qemu-guest-agent looks for its port."""
UEFI_MEMORY = 128 << 20
"""Bytes with which OVMF 2022.11 starts."""
_COMMON = "usb=off,vmport=off,dump-guest-core=off,mem-merge=off"
_NICS = {"virtio": "virtio-net-pci", "e1000": "e1000"}


def problems(spec: Spec, system: System) -> list[Problem]:
    """What such a computer cannot have."""
    found = []
    if system.machine == "q35" and system.disk_bus == "ide":
        found.append(Problem("a q35 has no IDE controller: its disks are SATA", "--disk-bus sata, or --machine pc"))
    if system.firmware == "uefi" and spec.plan.memory < UEFI_MEMORY:
        found.append(Problem("UEFI needs 128M of memory", "--memory 128M, or --firmware bios"))
    return found


def require_system(bundle: Bundle) -> tuple[System, SystemBoot]:
    """What the bundle of an unmodified system has."""
    if bundle.spec.system is None or bundle.system is None:
        raise ValueError(f"{bundle.spec.name} is no unmodified system")
    return bundle.spec.system, bundle.system


def files(boot: SystemBoot) -> list[tuple[Path, str, bool]]:
    """What QEMU is given: the host's path, that in the jail, whether it can only be read."""
    variables = [(boot.variables, VARIABLES, False)] if boot.variables else []
    return [(boot.disk, DISK, False), (boot.seed, SEED, True), *variables]


def command_line(bundle: Bundle) -> tuple[str, ...]:
    """QEMU's argv. Stopped, as it is for every VM, until the host has closed the door to its sockets."""
    system, boot = require_system(bundle)
    plan = bundle.spec.plan
    return (
        vmm.PROGRAM,
        *("-nodefaults", "-no-user-config", "-display", "none", "-S"),
        *(("-incoming", "defer") if boot.incoming else ()),
        *vmm.processor(boot.accelerator, bundle.spec.cpu_model),
        *("-smp", str(vmm.vcpus(plan)), "-m", f"{plan.memory}B"),
        *_machine(system, boot),
        *("-sandbox", vmm.SANDBOX),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,path={vmm.SOCKETS}/{vmm.QMP},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=guest,path={vmm.SOCKETS}/{GUEST_AGENT},server=on,wait=off"),
        *("-device", "virtio-serial-pci,id=ports,max_ports=2"),
        *("-device", f"virtserialport,bus=ports.0,nr=1,chardev=guest,name={PORT}"),
        *("-device", "virtio-rng-pci"),
        *_network(bundle, system, boot),
        *_disks(bundle, system),
    )


def _machine(system: System, boot: SystemBoot) -> Iterator[str]:
    machine = f"{system.machine},{_COMMON},sata={'on' if system.disk_bus == 'sata' else 'off'}"
    if boot.variables:
        code: dict[str, object] = {"node-name": "code", "filename": boot.uefi, "read-only": True}
        variables: dict[str, object] = {"node-name": "variables", "filename": VARIABLES}
        for node in (code, variables):
            yield from ("-blockdev", vmm.as_json({"driver": "file", "locking": "off", **node}))
        machine += ",pflash0=code,pflash1=variables"
    yield from ("-machine", machine)


def _network(bundle: Bundle, system: System, boot: SystemBoot) -> Iterator[str]:
    if boot.tap and bundle.address:
        yield from ("-netdev", f"tap,id=net0,ifname={boot.tap},script=no,downscript=no,vhost=off")
        # No option ROM: nothing is booted from the network.
        size = f",host_mtu={bundle.address.mtu}" if bundle.address.mtu and system.nic == "virtio" else ""
        yield from ("-device", f"{_NICS[system.nic]},netdev=net0,mac={bundle.address.mac},romfile={size}")


def _disks(bundle: Bundle, system: System) -> Iterator[str]:
    limits = vmm.throttle(bundle.spec.plan)
    yield from ("-object", vmm.as_json({"qom-type": "throttle-group", "id": vmm.LIMITS, "limits": limits}))
    disk, seed = Drive(Path(), DISK, read_only=False, limited=True), Drive(Path(), SEED, read_only=True, limited=False)
    yield from ("-blockdev", vmm.as_json(vmm.node(NODE, disk)))
    yield from ("-blockdev", vmm.as_json(vmm.node("seed", seed)))
    if system.disk_bus == "virtio":
        yield from ("-device", "virtio-blk-pci,drive=disk,bootindex=1", "-device", "virtio-blk-pci,drive=seed")
        return
    bus = "ide"
    if (system.machine, system.disk_bus) == ("pc", "sata"):
        bus = "sata"
        yield from ("-device", "ich9-ahci,id=sata")
    yield from ("-device", f"ide-hd,bus={bus}.0,drive=disk,bootindex=1", "-device", f"ide-cd,bus={bus}.1,drive=seed")
