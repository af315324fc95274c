"""Whether a host can make another one's machine, and the command line of one that waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.isolation import hardware, vmm
from bulkhead.isolation.base import Boot, Bundle, SystemBoot
from bulkhead.isolation.migration import problems
from bulkhead.model import Isolation, Plan, Spec, System
from bulkhead.moves import Blueprint

MACHINE = Blueprint(
    accelerator="kvm",
    hypervisor="sha256:aa",
    processor="vendor; flags",
    kernel="sha256:bb",
    shape="{}",
    disk=1 << 26,
)


def test_the_very_same_host_can() -> None:
    assert problems(MACHINE, hypervisor="sha256:aa", accelerator="kvm", processor="vendor; flags") == []


def test_everything_that_differs_is_told_at_once() -> None:
    found = problems(MACHINE, hypervisor="sha256:cc", accelerator="kvm", processor="vendor; fewer")
    assert len(found) == 2
    assert "another QEMU" in found[0].what
    assert "processor" in found[1].what
    (found_first, *_) = problems(MACHINE, hypervisor="sha256:aa", accelerator="tcg", processor="")
    assert "it runs with kvm, that host runs guests with tcg" in found_first.what


def test_a_processor_by_name_is_the_same_on_any_host() -> None:
    named = MACHINE.model_copy(update={"processor": ""})
    assert problems(named, hypervisor="sha256:aa", accelerator="kvm", processor="vendor; fewer") == []


def test_under_emulation_the_processor_is_no_matter() -> None:
    emulated = MACHINE.model_copy(update={"accelerator": "tcg", "processor": ""})
    assert problems(emulated, hypervisor="sha256:aa", accelerator="tcg", processor="any") == []


def _bundle(**more: object) -> Bundle:
    spec = Spec(
        id="a" * 32,
        name="one",
        image="box",
        image_digest="sha256:00",
        isolation=Isolation.VM,
        plan=Plan(memory=1 << 26, cpus=1.0, disk=1 << 26),
        argv=("true",),
        hostname="one",
        network="none",
        created=0.0,
    )
    return Bundle(directory=Path("/bundle"), spec=spec, uid_start=1000, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("incoming", [False, True])
def test_one_that_waits_takes_its_memory_from_outside(incoming: bool) -> None:
    files = Path("/vmm"), Path("/kernel"), Path("/initrd"), Path("/disk")
    boot = Boot(*files, layers=(), accelerator="tcg", incoming=incoming)
    argv = vmm.command_line(_bundle(boot=boot))
    assert ("-incoming" in argv) is incoming
    assert "-S" in argv
    system = SystemBoot(Path("/vmm"), "tcg", Path("/disk"), Path("/seed"), incoming=incoming)
    bundle = _bundle(system=system)
    spec = bundle.spec.model_copy(update={"system": System()})
    argv = hardware.command_line(Bundle(directory=bundle.directory, spec=spec, system=system))
    assert ("-incoming" in argv) is incoming
