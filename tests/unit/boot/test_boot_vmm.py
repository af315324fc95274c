"""What goes into the root of a hypervisor's jail."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.boot import vmm
from bulkhead.errors import BulkheadError, HostError, Unavailable
from bulkhead.host import processes

LISTED = """\
	linux-vdso.so.1 (0x00007ffd1a9c2000)
	libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f6a1c000000)
	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f6a1b000000)
	/lib64/ld-linux-x86-64.so.2 (0x00007f6a1d000000)
"""


class Host:
    """A host whose programs say what they are told to."""

    def __init__(self, directory: Path) -> None:
        self.program = directory / "bin" / vmm.PROGRAM
        self.share = directory / "share"
        self.listed = LISTED
        self.program.parent.mkdir()
        self.program.write_bytes(b"qemu")
        self.share.mkdir()
        for name in vmm.FIRMWARE:
            (self.share / name).write_bytes(b"rom")

    def run(self, argv: list[str | Path], **_: object) -> bytes:
        """Stands for processes.run."""
        if "--list" in argv:
            return self.listed.encode()
        assert argv[1:] == ["-L", "help"]
        return f"/nowhere\n{self.program.parent}/../share\n".encode()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    monkeypatch.setattr(processes, "require", lambda name, package="": host.program)
    monkeypatch.setattr(processes, "run", host.run)
    monkeypatch.setattr(vmm, "UEFI", tmp_path / "no OVMF")
    return host


def test_the_plan_holds_the_program_its_libraries_and_its_firmware(host: Host) -> None:
    module = host.program.parent.parent / "lib" / "x86_64-linux-gnu" / "qemu" / vmm.MODULES[0]
    module.parent.mkdir(parents=True)
    module.touch()
    files = vmm.plan()
    assert files.pop(vmm.IN_ROOT) == host.program
    assert set(files) == {
        "/lib/x86_64-linux-gnu/libz.so.1",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib64/ld-linux-x86-64.so.2",
        str(module),
        *(str(host.share / name) for name in vmm.FIRMWARE),
    }


def test_missing_libraries_and_firmware_are_named(host: Host) -> None:
    (host.share / "pvh.bin").unlink()
    (host.share / "bios-256k.bin").unlink()
    with pytest.raises(Unavailable, match=r"bios-256k\.bin, pvh\.bin is missing: looked in /nowhere, ") as caught:
        vmm.plan()
    assert caught.value.hint.startswith("apt install")
    host.listed += "\tlibgone.so.3 => not found\n"
    with pytest.raises(HostError, match=r"lacks libgone\.so\.3"):
        vmm.plan()


def test_a_change_of_any_file_is_seen(tmp_path: Path) -> None:
    kept, erofs = tmp_path / "a", tmp_path / "made"
    kept.write_bytes(b"1")
    erofs.touch()
    made = vmm.Vmm(erofs, "sha256:0", "7.2", "", vmm._stamps({"/a": kept}))
    assert made.is_current()
    kept.write_bytes(b"22")
    assert not made.is_current()
    kept.unlink()
    assert not made.is_current()


def test_without_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vmm, "PROGRAM", "qemu-of-nowhere")
    for ask in (vmm.qemu_version, vmm.accelerators, vmm.plan, lambda: vmm.prepare(tmp_path)):
        with pytest.raises(BulkheadError, match="qemu-of-nowhere is not installed"):
            ask()
