"""How the contract suite gets each driver, and an instance that it can start.

A new driver needs one class here and its name in FACTORIES; see docs/howto/adding-a-driver.md.
"""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol

from bulkhead import limits
from bulkhead.agent.operations import Operation, mkdir, read, rmdir, write
from bulkhead.errors import Problem
from bulkhead.host import cgroups
from bulkhead.isolation.base import Bundle, Driver, Inside, Probe
from bulkhead.isolation.chroot import ChrootDriver
from bulkhead.isolation.container import ContainerDriver
from bulkhead.isolation.fake import FakeDriver
from bulkhead.isolation.inner import InnerDriver, group_of
from bulkhead.isolation.supervised import Outside
from bulkhead.isolation.unikernel import UnikernelDriver
from bulkhead.isolation.vm import VmDriver
from bulkhead.isolation.vmm import CMDLINE
from bulkhead.model import UID_RANGE, Isolation, Mount, Plan, Program, Spec
from tests.harness.abilities import require
from tests.harness.images import busybox_tar
from tests.harness.machines import (
    SLOTS,
    from_template,
    make_boot,
    make_disk,
    make_program,
    program_from_template,
)
from tests.harness.naming import PREFIX, make_config

Argv = tuple[str, ...]
READY = "ready"


@dataclass(frozen=True, slots=True)
class Commands:
    """Command lines that do, behind this driver's wall, what the suite needs. Those that run on say READY first."""

    runs: Argv
    """Until it gets TERM, which ends it."""
    stubborn: Argv
    """Until it gets KILL; TERM does nothing."""
    exits: Callable[[int], Argv]
    """At once, with this code."""
    echoes: Callable[[str], Argv]
    """Writes a word and ends with 0."""
    missing: Argv | None
    """None, where the program is a part of the image: what is missing is found when that is made."""
    not_executable: Argv | None
    beside: bool = True
    """Whether commands can be run beside the workload: whether anybody is inside who could."""


class Factory(Protocol):
    """Makes what one driver is tested with. One per test."""

    commands: Commands

    def driver(self) -> Driver:
        """A new driver, as a daemon makes it when it starts."""

    def bundle(self, argv: Argv) -> Bundle:
        """A new instance's bundle, ready to be started."""

    def faulty(self, spec: Spec) -> tuple[Spec, int]:
        """A spec that the driver must refuse, and for how many reasons at least."""

    def resize_operations(self, bundle: Bundle) -> tuple[Sequence[Operation], Callable[[], bool]]:
        """A change of limits for Resizes, and whether it is in force."""


def make_spec(argv: Argv, isolation: Isolation) -> Spec:
    """An ordinary instance of a level."""
    identifier = secrets.token_hex(16)
    return Spec(
        id=identifier,
        name=f"contract-{identifier[:6]}",
        image="busybox",
        image_digest="sha256:" + "0" * 64,
        isolation=isolation,
        plan=Plan(memory=64 << 20, cpus=1, disk=16 << 20),
        argv=argv,
        hostname=identifier[:12],
        network="host" if isolation is Isolation.CHROOT else "none",
        created=time.time(),
    )


class FakeFactory:
    """The fake: a directory is all that it needs."""

    commands = Commands(
        runs=("sleep", "infinity"),
        stubborn=("stubborn",),
        exits=lambda code: ("exit", str(code)),
        echoes=lambda word: ("echo", word),
        missing=("no-such-program",),
        not_executable=("not-executable",),
    )

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory

    def driver(self) -> Driver:
        """A fake that finds fault with two words."""
        words = ("bad", "worse")
        return FakeDriver(problems={word: Problem(f"the word {word!r} is refused", "use another") for word in words})

    def bundle(self, argv: Argv) -> Bundle:
        """An empty directory."""
        spec = make_spec(argv, Isolation.CONTAINER)
        directory = self._directory / spec.id
        directory.mkdir()
        return Bundle(directory=directory, spec=spec)

    def faulty(self, spec: Spec) -> tuple[Spec, int]:
        """Both words."""
        return spec.model_copy(update={"argv": ("bad", "worse")}), 2

    def resize_operations(self, bundle: Bundle) -> tuple[Sequence[Operation], Callable[[], bool]]:
        """The fake writes down what it was asked for."""
        return [write("pids.max", "7")], lambda: "write pids.max 7" in (bundle.directory / "fake.json").read_text()


_RUNS = f"trap 'exit 0' TERM; echo {READY}; while :; do sleep 1000 & wait; done"
_STUBBORN = f"trap '' TERM; echo {READY}; while :; do sleep 1000 & wait; done"
NEEDS = ("root", "mount namespaces", "cgroups", "loop devices", "erofs", "overlay", "mkfs.erofs", "mkfs.ext4")


class AgentFactory:
    """The levels that the agent supervises on this host: a layer of busybox, an ext4 disk, a cgroup."""

    commands = Commands(
        runs=("sh", "-c", _RUNS),
        stubborn=("sh", "-c", _STUBBORN),
        exits=lambda code: ("sh", "-c", f"exit {code}"),
        echoes=lambda word: ("echo", word),
        missing=("/no/such/program",),
        not_executable=("/etc/not-executable",),
    )
    isolation: Isolation
    uid_start: int | None = None

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        require(*NEEDS)
        self._directory = directory
        self._stack = stack
        self._config = make_config(directory)

    def driver(self) -> Driver:
        """The level's own."""
        raise NotImplementedError

    def outside(self) -> Outside:
        """What the engine would hand in, for the suite's own cgroups."""
        return Outside(remove_cgroups=_remove_cgroup, was_oom=lambda reports: "oom" in reports, freeze=_freeze)

    def bundle(self, argv: Argv) -> Bundle:
        """A directory with everything mounted that a start needs; unmounted at the end of the test."""
        spec = make_spec(argv, self.isolation)
        directory = self._directory / spec.id
        # Not below the bundle: the agent's stage covers that.
        mounted = self._directory / f"{spec.id}-mounts"
        for path in (directory, mounted, mounted / "layer", mounted / "disk"):
            path.mkdir()
        self._mount("erofs", _layer(self._directory.parent), mounted / "layer", "loop,ro")
        disk = directory / "disk.img"
        with disk.open("wb") as file:
            file.truncate(spec.plan.disk)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(disk)], check=True, capture_output=True)
        self._mount("ext4", disk, mounted / "disk", "loop")
        for name in ("upper", "work"):
            (mounted / "disk" / name).mkdir()
        return Bundle(
            directory=directory,
            spec=spec,
            limits=PidsLimits(spec.id),
            layers=(mounted / "layer",),
            disk=mounted / "disk",
            uid_start=self.uid_start,
            resolv_conf="nameserver 192.0.2.53\n",
            hosts="127.0.0.1\tlocalhost\n",
        )

    def faulty(self, spec: Spec) -> tuple[Spec, int]:
        """Mounts over what is the instance's own, and an architecture that no host of ours has."""
        mounts = tuple(Mount(kind="bind", source="/", target=target) for target in ("/proc/x", "/dev"))
        return spec.model_copy(update={"mounts": mounts, "architecture": "vax"}), 3

    def resize_operations(self, bundle: Bundle) -> tuple[Sequence[Operation], Callable[[], bool]]:
        """Another number of processes."""
        file = _cgroup(bundle.spec.id) / "pids.max"
        return [write(file, "77")], lambda: file.read_text().strip() == "77"

    def _mount(self, kind: str, source: Path, target: Path, options: str) -> None:
        subprocess.run(["mount", "-t", kind, "-o", options, str(source), str(target)], check=True)
        self._stack.callback(subprocess.run, ["umount", str(target)], check=True)


class ChrootFactory(AgentFactory):
    """The chroot."""

    isolation = Isolation.CHROOT

    def driver(self) -> Driver:
        """As `build_engine` makes it."""
        return ChrootDriver(self._config, self.outside())


class ContainerFactory(AgentFactory):
    """The container."""

    isolation = Isolation.CONTAINER

    def driver(self) -> Driver:
        """As `build_engine` makes it."""
        return ContainerDriver(self._config, self.outside())

    def bundle(self, argv: Argv) -> Bundle:
        """With a uid range of its own."""
        return replace(super().bundle(argv), uid_start=self._config.uid_base)


class VmFactory(AgentFactory):
    """The virtual machine, under emulation: that is what works everywhere. From a template: that is what is quick."""

    isolation = Isolation.VM

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        super().__init__(directory, stack)
        require("qemu-system-x86_64")

    def driver(self) -> Driver:
        """As `build_engine` makes it, without the search for KVM."""
        return VmDriver(self._config, self.outside(), ability=lambda: Probe(works=True, reason="with TCG"))

    def bundle(self, argv: Argv) -> Bundle:
        """Files instead of mounts."""
        spec = make_spec(argv, self.isolation)
        spec = spec.model_copy(update={"plan": spec.plan.model_copy(update={"memory": 128 << 20})})
        directory = self._directory / spec.id
        directory.mkdir()
        run = self._directory.parent
        return Bundle(
            directory=directory,
            spec=spec,
            limits=PidsLimits(spec.id),
            uid_start=self._config.uid_base,
            resolv_conf="nameserver 192.0.2.53\n",
            hosts="127.0.0.1\tlocalhost\n",
            boot=from_template(
                make_boot(directory, spec, layer=_layer(run), run=run, stack=self._stack),
                spec,
                run=run,
                stack=self._stack,
            ),
        )


class InnerFactory(VmFactory):
    """A container within a VM, which holds nothing of its own and is there for the length of the test."""

    isolation = Isolation.CONTAINER

    def driver(self) -> Driver:
        """As `build_engine` makes it."""
        level = ContainerDriver(self._config, self.outside())
        return InnerDriver(self._config, self.outside(), level=level, machines=super().driver().probe)

    def bundle(self, argv: Argv) -> Bundle:
        """Files for the VM's guest."""
        machine, pid = self._machine
        spec = make_spec(argv, self.isolation).model_copy(update={"inside": machine.spec.id})
        directory = self._directory / spec.id
        directory.mkdir()
        (directory / "layers").write_text(f"{_DIGEST}\n")
        return Bundle(
            directory=directory,
            spec=spec,
            limits=limits.inner_program(spec.plan, spec.id, machine=machine.spec.plan),
            uid_start=self._config.uid_base + UID_RANGE,
            resolv_conf="nameserver 192.0.2.53\n",
            hosts="127.0.0.1\tlocalhost\n",
            inside=Inside(
                machine=machine.spec.id,
                directory=machine.directory,
                pid=pid,
                disks=SLOTS,
                inner=_INNER,
                disk=make_disk(directory.with_name(f"{directory.name}.img"), spec.plan.disk),
                layers=((_DIGEST, _layer(self._directory.parent)),),
            ),
        )

    def resize_operations(self, bundle: Bundle) -> tuple[Sequence[Operation], Callable[[], bool]]:
        """Another number of processes, in the guest."""
        file, driver = f"{group_of(bundle.spec.id)}/pids.max", self.driver()
        assert isinstance(driver, InnerDriver)
        return [write(file, "77")], lambda: driver.measure(bundle.directory, [read(file)]) == ["77\n"]

    @cached_property
    def _machine(self) -> tuple[Bundle, int]:
        """The VM's bundle, and the pid of its hypervisor."""
        driver = super().driver()
        made = super().bundle(("none",))
        assert made.boot
        spec = made.spec.model_copy(update={"only_for": "0" * 32, "isolation": Isolation.VM})
        boot = replace(made.boot, disk=None, layers=(), inner=_INNER, largest=spec.plan.disk)
        run = self._directory.parent
        bundle = replace(made, spec=spec, boot=from_template(boot, spec, run=run, stack=self._stack))
        self._stack.callback(driver.delete, bundle.directory, spec.id)
        return bundle, driver.start(bundle).pid


class UnikernelFactory(VmFactory):
    """The unikernel: one static program that obeys its words. From a template, as the VM."""

    isolation = Isolation.UNIKERNEL
    commands = Commands(
        runs=("run", READY),
        stubborn=("stubborn", READY),
        exits=lambda code: ("exit", str(code)),
        echoes=lambda word: ("echo", word),
        missing=None,
        not_executable=None,
        beside=False,
    )

    def driver(self) -> Driver:
        """As `build_engine` makes it."""
        return UnikernelDriver(self._config, self.outside(), ability=super().driver().probe)

    def bundle(self, argv: Argv) -> Bundle:
        """A kernel and an initrd with the program."""
        plan = Plan(memory=128 << 20, cpus=1, disk=16 << 20)
        program = Program(kernel="/kernel", initrd="/initrd", cmdline=CMDLINE, type="linux", own=True, waits=True)
        spec = make_spec(argv, self.isolation).model_copy(update={"plan": plan, "program": program})
        directory = self._directory / spec.id
        directory.mkdir()
        run = self._directory.parent
        boot = make_program(directory, run=run, stack=self._stack)
        return Bundle(
            directory=directory,
            spec=spec,
            limits=PidsLimits(spec.id),
            uid_start=self._config.uid_base,
            program=program_from_template(boot, spec, run=run, stack=self._stack),
        )

    def faulty(self, spec: Spec) -> tuple[Spec, int]:
        """A terminal, words that no command line can hold, and an architecture that no host of ours has."""
        return spec.model_copy(update={"tty": True, "argv": ('a"b',), "architecture": "vax"}), 3


_INNER = 4
_DIGEST = "sha256:" + "1" * 64

FACTORIES: dict[str, Callable[[Path, ExitStack], Factory]] = {
    "fake": FakeFactory,
    "chroot": ChrootFactory,
    "container": ContainerFactory,
    "vm": VmFactory,
    "inner": InnerFactory,
    "unikernel": UnikernelFactory,
}


@dataclass(frozen=True, slots=True)
class PidsLimits:
    """One cgroup, of the pids controller and the freezer: what a limit program is to a driver."""

    instance_id: str

    @property
    def prepare(self) -> Sequence[Operation]:
        """Make it."""
        own, freezer = _cgroups(self.instance_id)
        enable = [write(own.parent / "cgroup.subtree_control", "+pids")] if _is_v2() else []
        made = [mkdir(own.parent), *enable, mkdir(own), mkdir(freezer.parent), mkdir(freezer)]
        return [*made, write(own / "pids.max", "100")]

    @property
    def join(self) -> Sequence[str]:
        """Where every process of the instance goes."""
        return [str(path / "cgroup.procs") for path in dict.fromkeys(_cgroups(self.instance_id))]

    @property
    def beside(self) -> Sequence[str]:
        """The same for commands."""
        return self.join

    @property
    def delegated(self) -> str:
        """None."""
        return ""

    @property
    def kill(self) -> str:
        """What names them all."""
        return str(_cgroup(self.instance_id) / ("cgroup.kill" if _is_v2() else "cgroup.procs"))

    @property
    def finish(self) -> Sequence[Operation]:
        """Keep a number, remove it."""
        own, freezer = _cgroups(self.instance_id)
        removed = [rmdir(own), rmdir(own.parent, optional=True), rmdir(freezer), rmdir(freezer.parent, optional=True)]
        return [read(own / "pids.max"), *removed]


@cache
def _layout() -> cgroups.Layout:
    return cgroups.detect()


def _is_v2() -> bool:
    return _layout().version("pids") == 2


def _cgroup(instance_id: str) -> Path:
    return _layout().path("pids", f"{PREFIX}-contract/{instance_id}")


def _cgroups(instance_id: str) -> tuple[Path, Path]:
    """Of the pids controller and of the freezer: with v2 the same."""
    own = _cgroup(instance_id)
    return own, own if _is_v2() else _layout().path("freezer", f"{PREFIX}-contract/{instance_id}")


def _freeze(instance_id: str, frozen: bool) -> None:
    (cgroups.freeze if frozen else cgroups.thaw)(_layout(), f"{PREFIX}-contract/{instance_id}")


def _remove_cgroup(instance_id: str) -> None:
    for own in _cgroups(instance_id):
        if own.exists():
            cgroups.kill(_layout(), f"{PREFIX}-contract/{instance_id}")
            cgroups.remove(_layout(), f"{PREFIX}-contract/{instance_id}")
        if own.parent.exists() and not any(entry.is_dir() for entry in own.parent.iterdir()):
            own.parent.rmdir()


@cache
def _layer(directory: Path) -> Path:
    """An EROFS file with a root file system of busybox, made once per run in the run's own directory."""
    tree, file = directory / "contract-tree", directory / "contract.erofs"
    tree.mkdir()
    archive = busybox_tar(directory / "contract.tar")
    subprocess.run(["tar", "-xf", str(archive), "-C", str(tree)], check=True)
    subprocess.run(["mkfs.erofs", str(file), str(tree)], check=True, capture_output=True)
    return file
