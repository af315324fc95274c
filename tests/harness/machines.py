"""What a VM of a test starts from: the cached kernel, this host's QEMU in its jail's root, a disk, a layer."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from bulkhead import limits
from bulkhead.agent.launch import find_agent
from bulkhead.boot import initrd, kernels, vmm
from bulkhead.engine.kernels import DEFAULT
from bulkhead.host import mounts
from bulkhead.images import ImageStore
from bulkhead.isolation.base import Boot
from bulkhead.model import Spec
from tests.harness.images import CACHE
from tests.harness.kernels import kernel_layout


@cache
def kernel(directory: Path) -> tuple[Path, Path]:
    """The kernel's ELF file and its initrd, once per run, in the run's own directory."""
    store = ImageStore(kernel_layout(), directory / "kernel-cache")
    image = store.resolve(DEFAULT)
    modules = image.blob(kernels.INITRD_TYPE)
    made = initrd.prepare(modules.path, digest=modules.digest, agent=find_agent(), cache=directory)
    return image.blob(kernels.ELF_TYPE).path, made


def mount_vmm(target: Path, stack: ExitStack) -> Path:
    """The root of a hypervisor's jail, mounted until the stack ends."""
    root = vmm.prepare(CACHE)
    target.mkdir()
    subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", root.erofs, target], check=True)
    stack.callback(lambda: mounts.unmount(target, patience=10.0))
    return target


def make_disk(file: Path, size: int) -> Path:
    """An instance's disk: ext4 with the overlay's directories."""
    tree = file.with_suffix(".tree")
    for name in ("upper", "work"):
        (tree / name).mkdir(parents=True)
    with file.open("wb") as out:
        out.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, file], check=True, capture_output=True)
    file.chmod(0o600)
    return file


def make_boot(directory: Path, spec: Spec, *, layer: Path, run: Path, stack: ExitStack) -> Boot:
    """Everything but a network, for an instance whose bundle is `directory`. `run`: the whole run's directory."""
    elf, made = kernel(run)
    return Boot(
        vmm=mount_vmm(directory.with_name(f"{directory.name}-vmm"), stack),
        kernel=elf,
        initrd=made,
        disk=make_disk(directory.with_name(f"{directory.name}.img"), spec.plan.disk),
        layers=(layer,),
        accelerator="tcg",
        guest_limits=limits.guest_program(spec.plan, instance_id=spec.id),
    )
