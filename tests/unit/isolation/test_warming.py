"""How a warm guest gets an instance's disks, and what its start leaves out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from bulkhead import limits
from bulkhead.agent.operations import Code
from bulkhead.host.qmp import Qmp
from bulkhead.isolation import guest, vmm, warming
from bulkhead.isolation.base import Boot, Bundle, Handle
from tests.unit.isolation.test_machine import ADDRESS, MOMENT, make_bundle, make_spec


class Monitor:
    """Notes what QEMU is told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.modes: list[int] = []

    def execute(self, command: str, arguments: object = None) -> object:
        self.said.append((command, arguments))
        return {}

    def add_file(self, descriptor: int) -> str:
        self.modes.append(os.get_blocking(descriptor) and os.fstat(descriptor).st_ino)
        return f"/dev/fdset/{len(self.modes) - 1}"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    for name in ("disk", "layer"):
        (tmp_path / name).write_bytes(b"\0" * 4096)
    spec = make_spec()
    boot = Boot(
        vmm=tmp_path,
        kernel=tmp_path,
        initrd=tmp_path,
        disk=tmp_path / "disk",
        layers=(tmp_path / "layer",),
        accelerator="tcg",
        tap="tap0",
        guest_limits=limits.guest_program(spec.plan),
        warm=Handle(supervisor_pid=1, supervisor_started=1, pid=2),
    )
    return Bundle(directory=tmp_path, spec=spec, uid_start=1_000_000_000, address=ADDRESS, boot=boot)


def test_the_disks_take_the_places_of_those_rehearsed_with(bundle: Bundle, tmp_path: Path) -> None:
    monitor = Monitor()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    warming.give_disks(cast(Qmp, monitor), bundle)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert monitor.modes == [(tmp_path / name).stat().st_ino for name in ("disk", "layer")]
    given = [arguments for command, arguments in monitor.said if command == "blockdev-add"]
    assert [node["node-name"] for node in given] == ["disk0", "disk1"]
    assert given[0]["driver"] == "throttle" and given[0]["file"]["file"]["filename"] == "/dev/fdset/0"
    assert given[1]["driver"] == "raw" and given[1]["read-only"] is True
    switched = [arguments["path"] for command, arguments in monitor.said if command == "qom-set"]
    assert switched == ["/objects/plan", "/machine/peripheral/slot0", "/machine/peripheral/slot1"]
    gone = [arguments["node-name"] for command, arguments in monitor.said if command == "blockdev-del"]
    words = vmm.command_line(replace(bundle, boot=replace(vmm.require_boot(bundle), rehearsal=True)))
    assert gone == ["rehearsal0", "rehearsal1"]
    assert all(any(f'"node-name":"{name}"' in word for word in words) for name in gone)
    assert all(any(f"id=slot{number},drive=rehearsal{number}" in word for word in words) for number in range(2))


def test_a_warm_guest_has_its_addresses(bundle: Bundle) -> None:
    """All that two guests must not share is new once more."""
    request = guest.start_request(bundle, vmm.require_boot(bundle).guest_limits, MOMENT)
    codes = [operation.code for operation in request.prepare]
    assert codes[:2] == [Code.ENTROPY, Code.CLOCK] and Code.NETIF not in codes
    assert Code.HOSTNAME in [operation.code for operation in request.inside]
    fresh = guest.start_request(make_bundle(), vmm.require_boot(make_bundle()).guest_limits, MOMENT)
    assert Code.NETIF in [operation.code for operation in fresh.prepare]
