"""What a VM of a test starts from: the cached kernel, this host's QEMU in its jail's root, a disk, a layer."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

from bulkhead import limits
from bulkhead.agent.launch import find_agent
from bulkhead.boot import closure, initrd, kernels, solo, vmm
from bulkhead.engine import kernels as engine_kernels
from bulkhead.host import mounts, sparse
from bulkhead.images import ImageStore
from bulkhead.isolation.base import Boot, Bundle, Probe, ProgramBoot, Saved
from bulkhead.isolation.supervised import Outside
from bulkhead.isolation.unikernel import UnikernelDriver
from bulkhead.isolation.vm import VmDriver
from bulkhead.isolation.vmm import CMDLINE
from bulkhead.model import Isolation, Plan, Program, Spec
from tests.harness import unikernels
from tests.harness.images import CACHE
from tests.harness.kernels import kernel_layout
from tests.harness.naming import make_config

SLOTS = 2


@cache
def kernel(directory: Path) -> tuple[Path, Path]:
    """The kernel's ELF file and its initrd, once per run, in the run's own directory."""
    store = ImageStore(kernel_layout(), directory / "kernel-cache")
    image = engine_kernels.find(store, None)
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


@cache
def template(run: Path, memory: int, inner: int = 0) -> tuple[Path, Path]:
    """Memory and state of a guest at its ready point, with one processor and no network; made once per run."""
    directory = run / f"template-{memory}-{inner}"
    bundle_directory = directory / "bundle"
    bundle_directory.mkdir(parents=True)
    ram, state = directory / "ram", directory / "state"
    ram.touch(mode=0o600)
    os.truncate(ram, memory)
    config = make_config(directory / "daemon")
    config.run_dir.mkdir(parents=True, exist_ok=True)
    elf, made = kernel(run)
    with ExitStack() as stack:
        boot = Boot(
            vmm=mount_vmm(directory / "vmm", stack),
            kernel=elf,
            initrd=made,
            disk=None,
            layers=(),
            accelerator="tcg",
            slots=SLOTS,
            ram=ram,
            inner=inner,
        )
        bundle = Bundle(directory=bundle_directory, spec=_template_spec(memory), uid_start=config.uid_base, boot=boot)
        outside = Outside(remove_cgroups=lambda _: None, was_oom=lambda _: False)
        driver = VmDriver(config, outside, ability=lambda: Probe(works=True))
        driver.make_template(bundle, state)
    return ram, state


def from_template(boot: Boot, spec: Spec, *, run: Path, stack: ExitStack) -> Boot:
    """The same, to start from a template instead of booting."""
    ram, state = template(run, spec.plan.memory, boot.inner)
    memory = sparse.sealed(ram, size=spec.plan.memory)
    stack.callback(os.close, memory)
    return replace(boot, slots=SLOTS, saved=Saved(memory, state))


@cache
def _program_files(run: Path) -> tuple[Path, Path]:
    """Kernel and initrd of a unikernel with the obedient program; made once per run."""
    elf, made = kernel(run)
    directory = run / "obedient"
    directory.mkdir()
    program = Path("/program")
    files = closure.Closure(closure.OneProgram(str(program), unikernels.obedient(directory).read_bytes()))
    found = files.program(str(program), "/")
    for path in (*solo.WRITABLE, solo.DISK):
        files.directory(path)
    settings = solo.Settings(0, 0, "/", found, (str(program),), (), solo.WRITABLE)
    whole = directory / "initrd"
    whole.write_bytes(made.read_bytes() + closure.archive(files.entries(), settings.encode()))
    return elf, whole


def make_program(directory: Path, *, run: Path, stack: ExitStack) -> ProgramBoot:
    """What a unikernel whose bundle is `directory` boots from, without a network. `run`: the whole run's directory."""
    elf, made = _program_files(run)
    root = mount_vmm(directory.with_name(f"{directory.name}-vmm"), stack)
    return ProgramBoot(vmm=root, accelerator="tcg", kernel=elf, initrd=made, disk=None)


@cache
def _program_template(run: Path, memory: int) -> tuple[Path, Path]:
    directory = run / f"template-program-{memory}"
    (directory / "bundle").mkdir(parents=True)
    ram, state = directory / "ram", directory / "state"
    ram.touch(mode=0o600)
    os.truncate(ram, memory)
    config = make_config(directory / "daemon")
    config.run_dir.mkdir(parents=True, exist_ok=True)
    program = Program(kernel="/kernel", initrd="/initrd", cmdline=CMDLINE, type="linux", own=True, waits=True)
    with ExitStack() as stack:
        boot = replace(make_program(directory / "root", run=run, stack=stack), ram=ram)
        spec = _template_spec(memory).model_copy(update={"isolation": Isolation.UNIKERNEL, "program": program})
        bundle = Bundle(directory=directory / "bundle", spec=spec, uid_start=config.uid_base, program=boot)
        outside = Outside(remove_cgroups=lambda _: None, was_oom=lambda _: False)
        UnikernelDriver(config, outside, ability=lambda: Probe(works=True)).make_template(bundle, state)
    return ram, state


def program_from_template(boot: ProgramBoot, spec: Spec, *, run: Path, stack: ExitStack) -> ProgramBoot:
    """The same, to start from a template instead of booting."""
    ram, state = _program_template(run, spec.plan.memory)
    memory = sparse.sealed(ram, size=spec.plan.memory)
    stack.callback(os.close, memory)
    return replace(boot, saved=Saved(memory, state))


def _template_spec(memory: int) -> Spec:
    return Spec(
        id=secrets.token_hex(16),
        name="template",
        image="",
        image_digest="",
        isolation=Isolation.VM,
        plan=Plan(memory=memory, cpus=1, disk=16 << 20),
        argv=("none",),
        hostname="template",
        network="none",
        created=time.time(),
    )


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
        guest_limits=limits.guest_program(spec.plan),
    )
