"""The computer that a unikernel finds, and what its command line tells it, as QEMU's command line. Pure.

There is next to nothing: a serial port, a network card, a disk where one was asked for. Bulkhead's own small init has
two ports more: one to tell the exit code by, one to be asked to end.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from pathlib import Path

from bulkhead.agent.operations import Code, encode, simple
from bulkhead.errors import Problem
from bulkhead.isolation import guest, vmm
from bulkhead.isolation.base import Bundle, ProgramBoot
from bulkhead.isolation.guest import Moment
from bulkhead.isolation.vmm import Drive
from bulkhead.model import Address, Program, Spec

DISK, CODE = f"{vmm.HERE}/disk", f"{vmm.HERE}/code"
CODE_FILE = "code"
"""In the bundle: what the small init has said of the exit code."""
CODE_SIZE = 4096
"""Bytes that QEMU may write to it; more ends QEMU."""
ASK = "program.sock"
"""The socket by which the small init is asked to end."""
CODE_PORT, ASK_PORT = "bulkhead.code", "bulkhead.ask"
DEBUG_EXIT_PORT = 0x501
"""Where Solo5 and Unikraft find isa-debug-exit."""
MIN_MEMORY = 8 << 20
MAX_CMDLINE = 2048
WAITS = "unikernel.wait=1"
"""By which a kernel's command line tells the small init to wait until it is told who it is."""
_DASHES = " -- "
_FORBIDDEN = frozenset('"\\')


def problems(spec: Spec) -> list[Problem]:
    """What such a computer cannot have, and what its command line cannot say."""
    found = []
    if spec.plan.memory < MIN_MEMORY:
        found.append(Problem(f"plan: memory {spec.plan.memory >> 20}M is too little for a unikernel", "--memory 8M"))
    if spec.tty:
        found.append(Problem("a unikernel has no terminal", "leave out -t: its serial port is its input and output"))
    bad = [word for word in spec.argv if _FORBIDDEN & set(word) or not word.isprintable()]
    found += [
        Problem(
            f"argument {word[:60]!r} cannot stand on a kernel's command line", 'leave out ", \\ and control characters'
        )
        for word in bad
    ]
    if spec.program and not bad:
        # With addresses of the greatest length.
        size = len(kernel_line(spec, spec.program, _LONGEST).encode())
        if size > MAX_CMDLINE:
            found.append(Problem(f"the command line comes to {size} bytes, at most {MAX_CMDLINE} fit", "say less"))
    return found


def require_program(bundle: Bundle) -> tuple[Program, ProgramBoot]:
    """What the bundle of a unikernel has."""
    if bundle.spec.program is None or bundle.program is None:
        raise ValueError(f"{bundle.spec.name} is no unikernel")
    return bundle.spec.program, bundle.program


def files(bundle: Bundle) -> list[tuple[Path, str, bool]]:
    """What QEMU is given: the host's path, that in the jail, whether it can only be read."""
    program, boot = require_program(bundle)
    given = [(boot.kernel, vmm.KERNEL, True)]
    given += [(boot.initrd, vmm.INITRD, True)] if boot.initrd else []
    given += [(boot.disk, DISK, False)] if boot.disk else []
    given += [(boot.ram, vmm.RAM, False)] if boot.ram else []
    return given + ([(bundle.directory / CODE_FILE, CODE, False)] if program.own else [])


def command_line(bundle: Bundle) -> tuple[str, ...]:
    """QEMU's argv. Stopped, as it is for every VM, until the host has closed the door to its sockets."""
    program, boot = require_program(bundle)
    plan, spec = bundle.spec.plan, bundle.spec
    line = kernel_line(spec, program, bundle.address if boot.tap else None)
    if boot.ram or boot.saved:
        line = f"{program.cmdline.partition(_DASHES)[0]} {WAITS}"
    return (
        vmm.PROGRAM,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S"),
        *vmm.processor(boot.accelerator),
        *(vmm.FIRMWARE if program.own else ()),
        *("-smp", str(vmm.vcpus(plan)), "-m", f"{plan.memory}B"),
        *vmm.memory(bundle, saved=boot.saved is not None, becomes_template=boot.ram is not None),
        *(("-incoming", "defer") if boot.saved else ()),
        *("-machine", f"{vmm.MACHINE},mem-merge=off,memory-backend={vmm.MEMORY}"),
        *("-sandbox", vmm.SANDBOX),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,path={vmm.SOCKETS}/{vmm.QMP},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        *(_ports() if program.own else ("-device", f"isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=4")),
        *_network(bundle, boot),
        *_disk(bundle, boot),
        *("-device", "virtio-rng-pci"),
        *("-kernel", vmm.KERNEL),
        *(("-initrd", vmm.INITRD) if boot.initrd else ()),
        *(("-append", line) if line else ()),
    )


def _ports() -> Iterator[str]:
    """What Bulkhead's small init talks by."""
    yield from ("-chardev", f"file,id=code,path={CODE}")
    yield from ("-chardev", f"socket,id=ask,path={vmm.SOCKETS}/{ASK},server=on,wait=off")
    yield from ("-device", "virtio-serial-pci,id=ports,max_ports=3")
    yield from ("-device", f"virtserialport,bus=ports.0,nr=1,chardev=code,name={CODE_PORT}")
    yield from ("-device", f"virtserialport,bus=ports.0,nr=2,chardev=ask,name={ASK_PORT}")


def _network(bundle: Bundle, boot: ProgramBoot) -> Iterator[str]:
    if boot.tap:
        # One from a template has the template's address until it is told its own.
        mac = bundle.address.mac if bundle.address else vmm.TEMPLATE_MAC
        yield from ("-netdev", f"tap,id=net0,ifname={boot.tap},script=no,downscript=no,vhost=off")
        size = f",host_mtu={bundle.address.mtu}" if bundle.address and bundle.address.mtu else ""
        yield from ("-device", f"virtio-net-pci,netdev=net0,mac={mac},romfile={size}")


def _disk(bundle: Bundle, boot: ProgramBoot) -> Iterator[str]:
    limits = vmm.throttle(bundle.spec.plan)
    # Also without a disk: an update may bring limits, and finds something to put them on.
    yield from ("-object", vmm.as_json({"qom-type": "throttle-group", "id": vmm.LIMITS, "limits": limits}))
    if boot.disk:
        drive = Drive(boot.disk, DISK, read_only=False, limited=True)
        yield from ("-blockdev", vmm.as_json(vmm.node("disk", drive)), "-device", "virtio-blk-pci,drive=disk")
    elif bundle.spec.program and bundle.spec.program.disk:
        yield from ("-blockdev", vmm.as_json({**vmm.PLACEHOLDER, "node-name": "disk"}))
        yield from ("-device", "virtio-blk-pci,drive=disk")


def told(bundle: Bundle, moment: Moment) -> bytes:
    """What one from a template is told, by the small init's port: who and where it is, and its words."""
    spec = bundle.spec
    operations = [simple(Code.ENTROPY, moment.entropy), guest.clock(moment.now), simple(Code.HOSTNAME, spec.hostname)]
    if bundle.address:
        operations.append(guest.network(bundle.address))
    said = spec.program.cmdline.partition(_DASHES)[2] if spec.program else ""
    words = b"".join(word.encode(errors="surrogateescape") + b"\0" for word in spec.argv or said.split())
    message = encode(operations) + words
    return len(message).to_bytes(4, "little") + message


def kernel_line(spec: Spec, program: Program, address: Address | None) -> str:
    """The command line: the image's, the network's in the form of its kind, the words that were given."""
    told, dashes, words = program.cmdline.partition(_DASHES)
    if spec.argv:
        dashes, words = _DASHES, " ".join(_quoted(word) for word in spec.argv)
    parts = [told, *(_network_words(spec, program.type, address) if address else ())]
    if program.type in ("linux", "unikraft"):
        return " ".join(part for part in parts if part) + (f"{dashes}{words}" if words else "")
    return " ".join(part for part in (*parts, words) if part)


def _network_words(spec: Spec, kind: str, address: Address) -> Sequence[str]:
    here = f"{address.ipv4}/{address.prefix4}"
    if kind == "linux":
        mask = ipaddress.ip_network(f"0.0.0.0/{address.prefix4}").netmask
        usual = f"ip={address.ipv4}::{address.gateway4}:{mask}:{spec.hostname}:eth0:off:{address.gateway4}"
        return (usual, f"ip6={address.ipv6}/{address.prefix6},{address.gateway6}")
    if kind == "unikraft":
        return (f"netdev.ip={here}:{address.gateway4}:{address.gateway4}",)
    if kind == "mirage":
        return (f"--ipv4={here}", f"--ipv4-gateway={address.gateway4}")
    return ()


def _quoted(word: str) -> str:
    return f'"{word}"' if not word or " " in word else word


_LONGEST = Address(
    network="",
    ipv4="255.255.255.255",
    prefix4=24,
    gateway4="255.255.255.255",
    ipv6="f" * 39,
    prefix6=128,
    gateway6="f" * 39,
    mac="",
)
