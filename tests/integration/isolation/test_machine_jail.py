"""The jail of a hypervisor: looked at from outside through /proc, tried through QEMU, and by a shell in its place."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.agent.launch import find_agent, launch
from bulkhead.agent.session import SOCKET, Session
from bulkhead.host import processes
from bulkhead.host.qmp import Qmp, QmpError
from bulkhead.isolation import jail, vmm
from bulkhead.isolation.base import Bundle, Handle, Probe
from bulkhead.isolation.supervised import Outside
from bulkhead.isolation.vm import VmDriver
from bulkhead.model import Isolation
from tests.contract.factories import NEEDS, make_spec
from tests.harness.abilities import require
from tests.harness.images import busybox_tar
from tests.harness.machines import make_boot
from tests.harness.naming import make_config

OURS = re.compile(r"/dev/null|pipe:.*|socket:.*|anon_inode:.*|/run/vm/(disk|layers/0)|/memfd:.*")
"""What a hypervisor has open: its stdio, its sockets and events, its disks."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[tuple[VmDriver, Bundle]]:
    require(*NEEDS, "qemu-system-x86_64")
    config = make_config(tmp_path)
    spec = make_spec(("sleep", "1000"), Isolation.VM)
    spec = spec.model_copy(update={"plan": spec.plan.model_copy(update={"memory": 128 << 20})})
    directory = tmp_path / spec.id
    directory.mkdir()
    with ExitStack() as stack:
        boot = make_boot(directory, spec, layer=_layer(tmp_path), run=tmp_path.parent, stack=stack)
        bundle = Bundle(directory=directory, spec=spec, uid_start=config.uid_base, boot=boot)
        outside = Outside(remove_cgroups=lambda _: None, was_oom=lambda _: False)
        yield VmDriver(config, outside, ability=lambda: Probe(works=True)), bundle


def _layer(directory: Path) -> Path:
    tree, file = directory / "tree", directory / "layer.erofs"
    tree.mkdir()
    processes.run(["tar", "-xf", busybox_tar(directory / "layer.tar"), "-C", tree])
    processes.run(["mkfs.erofs", "--quiet", file, tree])
    return file


@contextmanager
def running(machine: tuple[VmDriver, Bundle]) -> Iterator[tuple[Handle, Path]]:
    driver, bundle = machine
    handle = driver.start(bundle)
    try:
        yield handle, Path(f"/proc/{handle.pid}")
    finally:
        driver.delete(bundle.directory, bundle.spec.id)


def fields(process: Path) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)


def test_what_a_hypervisor_is_and_has(machine: tuple[VmDriver, Bundle]) -> None:
    _, bundle = machine
    with running(machine) as (_, process):
        status = fields(process)
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(bundle.uid_start)}
        assert status["Groups"].strip() == ""
        assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        for kind in ("user", "pid", "mnt", "ipc", "uts", "net", "cgroup"):
            assert (process / "ns" / kind).readlink() != Path(f"/proc/self/ns/{kind}").readlink(), kind
        assert status["NSpid"].split()[-1] == "1", "other processes are in its pid namespace"
        strange = [str(fd.readlink()) for fd in (process / "fd").iterdir() if not OURS.fullmatch(str(fd.readlink()))]
        assert not strange


def test_what_a_hypervisor_sees(machine: tuple[VmDriver, Bundle]) -> None:
    with running(machine) as (_, process):
        root = process / "root"
        assert {path.name for path in root.iterdir()} <= {"dev", "lib", "lib64", "proc", "run", "usr"}
        assert not list((root / "proc").iterdir()), "it sees processes"
        assert {path.name for path in (root / "dev").iterdir()} == {"null", "urandom"}
        assert {path.name for path in (root / "run/vm").iterdir()} == {"kernel", "initrd", "disk", "layers", "sockets"}
        assert len((process / "mountinfo").read_text().splitlines()) == 8, "mounts of the host's have come along"
        programs = {path.name for path in (root / "usr/bin").iterdir()}
        assert programs == {"qemu-system-x86_64"}


def test_a_hypervisor_that_was_taken_over_can_make_no_file(machine: tuple[VmDriver, Bundle]) -> None:
    """As the guest runs, all that QEMU could write to is its disk, its sockets and 64 KiB of its own memory."""
    _, bundle = machine
    with running(machine), Qmp.open(bundle.directory / vmm.DIRECTORY, vmm.QMP) as monitor:
        for path in (f"{vmm.SOCKETS}/file", f"{vmm.KERNEL}", "/usr/bin/file"):
            with pytest.raises(QmpError):
                monitor.execute("pmemsave", {"val": 0, "size": 4096, "filename": path})
        with pytest.raises(QmpError):
            monitor.execute("chardev-add", {"id": "x", "backend": _socket(f"{vmm.SOCKETS}/more.sock")})
        assert {path.name for path in (bundle.directory / vmm.DIRECTORY).iterdir()} == {vmm.QMP, vmm.AGENT}
    assert not (bundle.directory / vmm.DIRECTORY).exists()


def _socket(path: str) -> dict[str, object]:
    return {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": path}}, "server": True, "wait": False}}


def test_another_program_in_the_jail_finds_nothing(machine: tuple[VmDriver, Bundle], tmp_path: Path) -> None:
    """Busybox in QEMU's place: with a shell, what could be had?"""
    driver, bundle = machine
    root = tmp_path / "other-root"
    for name in ("bin", "dev", "proc", "run"):
        (root / name).mkdir(parents=True)
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    assert bundle.boot is not None
    bundle = replace(bundle, boot=replace(bundle.boot, vmm=root))
    (tmp_path / "run" / "stage").mkdir(parents=True)
    (bundle.directory / vmm.DIRECTORY).mkdir()
    os.chown(bundle.directory / vmm.DIRECTORY, 0, jail.uid_start(bundle))
    (bundle.directory / vmm.DIRECTORY).chmod(jail.SEALED)
    script = """
        id -u; echo $$; ls /; ls /proc
        touch /x /run/vm/sockets/x /run/vm/kernel /bin/x && echo wrote
        chmod 777 /run/vm/sockets && echo opened
        mknod /dev/sda b 8 0 && echo node; mount -t proc proc /proc && echo mounted
        dd if=/dev/zero of=/run/vm/disk bs=1M seek=16 count=1 && echo grown
        ping -c1 -W1 127.0.0.1 && echo net; cat /proc/1/environ; kill -0 2 && echo neighbour; echo end
    """
    request = driver.start_request(bundle)
    command = jail.inside(("/bin/busybox", "sh", "-c", script), largest=16 << 20)
    request = replace(request, inside=tuple(command), flags=type(request.flags)(0))
    supervisor = launch(find_agent(), bundle.directory)
    started = processes.start_time(supervisor)
    with Session.connect(bundle.directory / SOCKET) as session:
        watched = session.watch()
        session.start(request)
        assert session.ended(watched, timeout=30) is not None
    assert processes.wait_gone(supervisor, started, timeout=10) if started else True
    said = re.findall(r"stdout F (.*)", (bundle.directory / "log").read_text())
    assert said == ["0", "1", "bin", "dev", "proc", "run", "end"]
    assert bundle.boot.disk.stat().st_size == bundle.spec.plan.disk
