"""What a hypervisor boots that is no root file system of ours: an unmodified operating system, a unikernel."""

from __future__ import annotations

from typing import Literal

from bulkhead.modelling import Model

Machine = Literal["q35", "pc"]
DiskBus = Literal["virtio", "sata", "ide"]
Nic = Literal["virtio", "e1000"]
Firmware = Literal["bios", "uefi"]


class System(Model):
    """The computer that an unmodified operating system finds."""

    machine: Machine = "q35"
    disk_bus: DiskBus = "virtio"
    nic: Nic = "virtio"
    firmware: Firmware = "bios"


KernelType = Literal["linux", "unikraft", "mirage", "rumprun", "other"]
"""How a kernel's command line is written."""


class Program(Model):
    """What a unikernel's hypervisor is to boot: paths are absolute, in the image."""

    kernel: str
    initrd: str = ""
    """"" for none."""
    cmdline: str = ""
    """The image's; where the instance is on its network comes on top."""
    type: KernelType = "other"
    own: bool = False
    """Whether Bulkhead's small init is in it, which tells of the exit code and can be asked to end."""
    waits: bool = False
    """Whether that init can wait to be told who and where it is, so that it can go on from a template."""
    disk: bool = False
    """Whether it has the instance's disk."""
