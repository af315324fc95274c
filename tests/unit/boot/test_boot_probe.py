"""Whether KVM works: what is kept of the answer, and when it is looked for again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bulkhead.boot import probe, vmlinux
from bulkhead.boot.probe import Acceleration
from bulkhead.errors import Unavailable
from bulkhead.host import facts, processes


class Trial:
    """Stands for a trial guest: says what it is told to, and counts."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return self.reason


@pytest.fixture
def kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with QEMU and a /dev/kvm of its own; returns that device."""
    program, device = tmp_path / "qemu", tmp_path / "kvm"
    program.write_bytes(b"1")
    device.touch()
    monkeypatch.setattr(processes, "require", lambda name, package="": program)
    monkeypatch.setattr(probe, "DEVICE", device)
    return device


@pytest.mark.usefixtures("kvm")
def test_once_in_a_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works, hangs = Trial(""), Trial("it hangs")
    assert probe.find(tmp_path, trial=works) == Acceleration("kvm")
    assert probe.find(tmp_path, trial=hangs) == Acceleration("kvm")
    monkeypatch.setattr(facts, "boot_id", lambda: "another boot")
    found = probe.find(tmp_path, trial=hangs)
    assert (found.accelerator, found.reason) == ("tcg", "it hangs")
    assert "several times slower" in found.hint
    assert probe.find(tmp_path, trial=works) == found
    (tmp_path / "qemu").write_bytes(b"another QEMU")
    assert probe.find(tmp_path, trial=works) == Acceleration("kvm")
    assert (works.count, hangs.count) == (2, 1)


def test_without_the_device_nothing_is_tried(tmp_path: Path, kvm: Path) -> None:
    kvm.unlink()
    trial = Trial("")
    found = probe.find(tmp_path, trial=trial)
    assert (found.accelerator, trial.count) == ("tcg", 0)
    assert found.reason.startswith("there is no ")
    kvm.touch()
    assert probe.find(tmp_path, trial=trial) == Acceleration("kvm")


@pytest.mark.usefixtures("kvm")
@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"key": 1}', "null", json.dumps({"key": "x", "more": 1})])
def test_a_damaged_record_is_none(tmp_path: Path, record: str) -> None:
    (tmp_path / probe.RECORD).write_text(record)
    assert probe.find(tmp_path, trial=Trial("")) == Acceleration("kvm")


@pytest.mark.usefixtures("kvm")
def test_a_record_with_other_fields_is_none(tmp_path: Path) -> None:
    probe.find(tmp_path, trial=Trial(""))
    record = tmp_path / probe.RECORD
    record.write_text(json.dumps({**json.loads(record.read_text()), "more": 1}))
    assert probe.find(tmp_path, trial=Trial("no")).accelerator == "tcg"


def test_without_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROGRAM", "qemu-of-nowhere")
    with pytest.raises(Unavailable, match="qemu-of-nowhere is not installed"):
        probe.find(tmp_path)


def test_the_guest_is_one_that_a_kernel_could_be() -> None:
    elf = probe.guest()
    assert vmlinux.pvh_entry(elf) == 0x100000 + 64 + 2 * 56 + 24
    assert elf.endswith(probe.MARK)
