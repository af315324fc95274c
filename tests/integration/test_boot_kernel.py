"""The real kernel image: made from Debian's package through the daemon, and booted to the agent's first answer."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bulkhead.boot import initrd, kernels, probe, vmlinux, vmm
from bulkhead.images import Bounds, Image, ImageStore
from tests.agent.conftest import SOURCE
from tests.agent.guest import Machine
from tests.harness.daemon import Daemon
from tests.harness.images import CACHE
from tests.harness.kernels import kernel_layout

MUTE = b"x"
"""What a guest says that says the wrong thing."""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The kernel image in a store of its own."""
    directory = tmp_path_factory.mktemp("store")
    store = ImageStore(directory / "images", directory / "cache", bounds=Bounds(keep_free=0))
    return store.import_file(kernel_layout(), name="kernel/debian")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("agent-build")
    subprocess.run(["make", "-s", "-C", SOURCE, f"OUT={out}", "-j2"], check=True)
    return out / "agent"


@pytest.fixture
def machine(tmp_path: Path, kernel: Image, agent: Path) -> Iterator[Machine]:
    modules = kernel.blob(kernels.INITRD_TYPE)
    made = initrd.prepare(modules.path, digest=modules.digest, agent=agent, cache=tmp_path)
    machine = Machine(tmp_path / "machine", kernel.blob(kernels.ELF_TYPE).path, made)
    yield machine
    machine.close()


def test_the_kernel_is_what_it_should_be(kernel: Image) -> None:
    assert kernel.kind == "kernel"
    assert kernel.annotations["org.opencontainers.image.version"]
    assert vmlinux.pvh_entry(kernel.blob(kernels.ELF_TYPE).path.read_bytes())
    assert kernel.blob(kernels.INITRD_TYPE).size < 8 << 20, "more than a guest needs"


def test_it_boots_to_the_agents_answer(machine: Machine) -> None:
    machine.start()
    assert machine.session().info()["state"] == "idle"
    assert "error" not in machine.console.lower()


def give_package(daemon: Daemon) -> None:
    """The daemon has no way to a mirror: what it would download is put where it looks first."""
    kernel_layout()
    shutil.copytree(CACHE / "kernel-cache" / "apt" / "kernels", daemon.config.cache_dir / "apt" / "kernels")


def test_a_kernel_through_the_daemon(daemon: Daemon) -> None:
    give_package(daemon)
    made = daemon.cli("image", "kernel", "debian")
    assert made.returncode == 0, made.stderr
    name = made.stdout.strip()
    assert name.startswith("kernel/debian:")
    (listed,) = daemon.json("image", "ls", "--format", "json")
    assert (listed["kind"], "kernel/debian:latest" in listed["references"]) == ("kernel", True)
    (shown,) = daemon.json("image", "inspect", name)
    assert shown["Kind"] == "kernel"
    assert {blob["MediaType"] for blob in shown["Blobs"]} == {kernels.ELF_TYPE, kernels.INITRD_TYPE}

    refused = daemon.cli("run", name, "true", check=False)
    assert refused.returncode == 125
    assert f"image {name} is a kernel, not a root file system" in refused.stderr
    assert f"--kernel {name}" in refused.stderr
    unknown = daemon.cli("image", "kernel", "debian", "--version", "0.0.1", check=False)
    assert "apt has no package linux-image-cloud-amd64=0.0.1" in unknown.stderr
    other = daemon.cli("image", "kernel", "slackware", check=False)
    assert "use debian" in other.stderr

    for reference in listed["references"]:
        daemon.cli("image", "rm", reference)
    assert daemon.json("image", "ls", "--format", "json") == []
    assert not list((daemon.config.images_dir / "blobs" / "sha256").iterdir())
    assert not [path for path in (daemon.config.cache_dir / "work").iterdir() if path.is_dir()]


def test_a_kernel_that_a_machine_needs_stays(daemon: Daemon, busybox_tar: Path) -> None:
    daemon.cli("image", "import", kernel_layout())
    daemon.cli("image", "import", busybox_tar, "busybox")
    daemon.cli("create", "--isolation", "vm", "--name", "guest", "--network", "none", "busybox", "true")
    refused = daemon.cli("image", "rm", "kernel/debian:latest", check=False)
    assert refused.returncode == 125
    assert "guest" in refused.stderr
    daemon.cli("image", "prune", "-a")
    assert daemon.cli("image", "ls", "-q").stdout.count("\n") == 2
    daemon.cli("rm", "guest")
    daemon.cli("image", "rm", "kernel/debian:latest")


def test_doctor_tells_whether_kvm_works(daemon: Daemon) -> None:
    (row,) = [row for row in daemon.json("doctor", "--format", "json") if row["name"] == "KVM"]
    assert row["works"] or (row["reason"] and "TCG" in row["hint"])


def test_a_daemon_that_is_killed_in_the_middle_leaves_nothing(daemon: Daemon) -> None:
    give_package(daemon)
    work = daemon.config.cache_dir / "work"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(daemon.cli, "image", "kernel", "debian", check=False)
        deadline = time.monotonic() + 60
        while not list(work.glob("*/package/*")):
            assert time.monotonic() < deadline, "nothing is being unpacked"
            time.sleep(0.01)
        daemon.kill9()
        assert asked.result().returncode == 125
    daemon.start()
    assert not [path for path in work.iterdir() if path.is_dir()]
    assert daemon.json("image", "ls", "--format", "json") == []
    assert not list(daemon.config.images_dir.glob("ingest/*/"))


# --- the hypervisor


def test_the_jails_root_holds_all_that_qemu_needs(tmp_path: Path) -> None:
    made = vmm.prepare(tmp_path / "cache")
    assert made.version == vmm.qemu_version()
    assert vmm.prepare(tmp_path / "cache") == made
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "guest").write_bytes(probe.guest())
    argv = probe.command("tcg", Path("/run/guest"))
    argv[0] = vmm.IN_ROOT
    roms = " ".join(f"-device {name}" for name in ("virtio-net-pci", "e1000", "e1000e", "VGA"))
    script = (
        f"mount -t erofs -o loop,ro {made.erofs} {root} && mount -t tmpfs run {root}/run && "
        f"cp {tmp_path}/guest {root}/run/ && exec chroot {root} {' '.join(argv)} {roms}"
    )
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, check=False, timeout=60)
    assert done.stdout == probe.MARK, done.stderr
    assert sorted(path.name for path in (tmp_path / "cache" / "vmm").iterdir()) == [made.erofs.name, "lock"]


def test_a_new_state_of_the_files_makes_a_new_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"1")
    monkeypatch.setattr(vmm, "plan", lambda: {"/usr/bin/a": tmp_path / "a"})
    first = vmm.prepare(tmp_path / "cache")
    (tmp_path / "cache" / "vmm" / "tree" / "left").mkdir(parents=True)
    (tmp_path / "cache" / "vmm" / "draft").write_bytes(b"left by a crash")
    (tmp_path / "a").write_bytes(b"22")
    second = vmm.prepare(tmp_path / "cache")
    assert first.digest != second.digest
    assert sorted(path.name for path in (tmp_path / "cache" / "vmm").iterdir()) == [second.erofs.name, "lock"]


# --- the probe


def test_a_trial_guest_runs() -> None:
    assert probe.try_guest("tcg", probe.guest(), patience=30) == ""


def test_a_trial_guest_that_hangs_is_told_from_one_that_does_not_start() -> None:
    hangs = probe.guest().replace(b"\xb0\xfe\xe6\x64", b"\x90\x90\xeb\xfe")
    assert "hangs: nothing of it within 1 s" in probe.try_guest("tcg", hangs, patience=1)
    assert probe.try_guest("tcg", probe.guest(MUTE), patience=30).endswith("ended without a word")
    assert "does not start: " in probe.try_guest("tcg", bytes(300), patience=30)
    assert "does not start: " in probe.try_guest("toaster", probe.guest(), patience=30)


def test_this_host_is_one_or_the_other(tmp_path: Path) -> None:
    found = probe.find(tmp_path)
    assert found.accelerator in ("kvm", "tcg")
    assert bool(found.reason) == (found.accelerator == "tcg")
    assert probe.find(tmp_path, trial=lambda: "not tried again") == found
