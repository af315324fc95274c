"""An unmodified system's computer, as data: QEMU's command line and its jail's operations."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bulkhead.agent.frames import StartFlag, start_payload
from bulkhead.agent.operations import Code, describe
from bulkhead.config import Config
from bulkhead.errors import Refused
from bulkhead.isolation import hardware
from bulkhead.isolation.base import Bundle, Collects, Command, Holds, Pauses, Presses, Probe, SystemBoot
from bulkhead.isolation.supervised import Outside
from bulkhead.isolation.system import SystemDriver
from bulkhead.model import Address, Isolation, Plan, Spec, System

GOLDEN = Path(__file__).parents[2] / "golden" / "isolation"
CONFIG = Config(state_dir=Path("/var/lib/bulkhead"), run_dir=Path("/run/bulkhead"))
ID = "0123456789abcdef" * 2
DIRECTORY = Path("/var/lib/bulkhead/instances") / ID
ADDRESS = Address(
    network="default",
    ipv4="10.144.0.5",
    prefix4=24,
    gateway4="10.144.0.1",
    ipv6="fd42:b01c::5",
    prefix6=64,
    gateway6="fd42:b01c::1",
    mac="02:68:0a:90:00:05",
)
PLAN = Plan(memory=1 << 30, cpus=1.5, disk=5 << 30, iops=500)


def make_bundle(*, tty: bool = False, plan: Plan = PLAN, **system: str) -> Bundle:
    spec = Spec(
        id=ID,
        name="guest",
        image="disk/debian",
        image_digest="sha256:" + "0" * 64,
        isolation=Isolation.VM,
        system=System.model_validate(system),
        plan=plan,
        argv=(),
        hostname="guest",
        network="default",
        tty=tty,
        created=1.0,
    )
    uefi = system.get("firmware") == "uefi"
    boot = SystemBoot(
        vmm=Path("/run/bulkhead/layers/vmm"),
        accelerator="tcg",
        disk=DIRECTORY / "disk.img",
        seed=DIRECTORY / "seed.img",
        uefi="/usr/share/OVMF/OVMF_CODE_4M.fd" if uefi else "",
        variables=DIRECTORY / "uefi.vars" if uefi else None,
        tap="tap0",
    )
    return Bundle(directory=DIRECTORY, spec=spec, uid_start=1_000_000, netns_fd=9, address=ADDRESS, system=boot)


def driver() -> SystemDriver:
    outside = Outside(remove_cgroups=lambda _: None, was_oom=lambda _: False)
    return SystemDriver(CONFIG, outside, ability=lambda: Probe(works=True))


@pytest.mark.parametrize(
    ("name", "system", "tty"),
    [
        ("system", {}, False),
        ("system-uefi-tty", {"firmware": "uefi", "disk_bus": "sata"}, True),
        ("system-pc", {"machine": "pc", "disk_bus": "ide", "nic": "e1000"}, False),
    ],
)
def test_golden(name: str, system: dict[str, str], tty: bool) -> None:
    request = driver().start_request(make_bundle(tty=tty, **system))
    found = f"# stage\n{describe(request.stage)}\n\n# inside\n{describe(request.inside)}\n"
    file = GOLDEN / f"{name}.txt"
    if "UPDATE_GOLDEN" in os.environ:
        file.write_text(found)
    assert found == file.read_text()
    assert start_payload(request)
    assert request.flags == (StartFlag.TERMINAL if tty else StartFlag.NONE)


def test_nothing_is_inherited_and_a_restart_in_the_guest_is_one() -> None:
    request = driver().start_request(make_bundle())
    assert not any(operation.code is Code.INHERIT for operation in request.inside)
    assert "-no-reboot" not in hardware.command_line(make_bundle())


def test_sata_on_a_pc_has_a_controller_of_its_own() -> None:
    words = hardware.command_line(make_bundle(machine="pc", disk_bus="sata"))
    assert "ich9-ahci,id=sata" in words
    assert "ide-hd,bus=sata.0,drive=disk,bootindex=1" in words


def test_what_cannot_be_is_told_at_once() -> None:
    small = PLAN.model_copy(update={"memory": 64 << 20})
    bundle = make_bundle(disk_bus="ide", firmware="uefi", plan=small)
    spec = bundle.spec.model_copy(update={"network": "host"})
    problems = [problem.what for problem in driver().check(spec)]
    assert [word in " ".join(problems) for word in ("IDE", "UEFI", "network")] == [True] * 3
    assert driver().check(make_bundle().spec) == []


def test_what_a_guest_agent_cannot_do_is_told_at_once() -> None:
    command = Command(argv=("id",), user="www", workdir="/srv", tty=True, stdin=True)
    with pytest.raises(Refused) as refused:
        driver().collect(DIRECTORY, command, alive=lambda: True)
    assert len(refused.value.problems) == 4
    assert all(problem.hint for problem in refused.value.problems)


def test_its_abilities() -> None:
    made = driver()
    assert isinstance(made, Collects) and isinstance(made, Presses) and isinstance(made, Pauses)
    assert not isinstance(made, Holds)
