"""What a trimmed kernel is built of, the script that builds it, and what comes back."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections import namedtuple
from importlib import resources
from pathlib import Path

import pytest

from bulkhead.boot import cpio, kernels, modules, trim
from bulkhead.errors import ImageError, Refused, Unavailable
from bulkhead.events import quiet
from tests.unit.boot.kernel_parts import elf, read_cpio

SOURCE = resources.files("bulkhead.boot")
OPTIONS = {
    "virtio_pci": "VIRTIO_PCI",
    "virtio_console": "VIRTIO_CONSOLE",
    "virtio_blk": "VIRTIO_BLK",
    "virtio_net": "VIRTIO_NET",
    "erofs": "EROFS_FS",
    "overlay": "OVERLAY_FS",
    "ext4": "EXT4_FS",
    "af_packet": "PACKET",
    "ipv6": "IPV6",
    "virtio_rng": "HW_RANDOM_VIRTIO",
    "virtio_balloon": "VIRTIO_BALLOON",
    "virtio_mem": "VIRTIO_MEM",
    "vmgenid": "VMGENID",
    "macvlan": "MACVLAN",
}
"""The kernel's options by the modules that a distribution's kernel has instead."""
MAKEFILE = """
allnoconfig:
\tgrep CONFIG_ $(KCONFIG_ALLCONFIG) | sed '/LOST/d; s/# CONFIG_STAYS is not set/CONFIG_STAYS=y/' > .config
vmlinux:
\t@for n in $$(seq 120); do echo "  CC      fs/file$$n.o"; done
\t@test -z "$(BROKEN)" || { echo "fs/a.c:1: error: no such thing" >&2; false; }
\t@cp /bin/true $@
kernelrelease:
\t@echo 6.1.1-bulkhead $(KBUILD_BUILD_TIMESTAMP)
"""
"""What the kernel's own makefile does, as far as the script sees it."""


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> trim.Build:
    monkeypatch.setattr(trim, "_offered", lambda wanted: wanted.partition("=")[2] or "6.1.192-2")
    return trim.plan("debian", None, architecture="x86_64")


def asked() -> list[str]:
    return [line for line in (SOURCE / "trim.config").read_text().splitlines() if "CONFIG_" in line]


def test_the_config_has_what_a_guest_needs_built_in() -> None:
    lines = asked()
    for name in (*modules.REQUIRED, *modules.WELCOME):
        assert f"CONFIG_{OPTIONS[name]}=y" in lines
    assert "# CONFIG_MODULES is not set" in lines
    assert not [line for line in lines if line.endswith("=m")]


def test_the_config_asks_for_everything_once() -> None:
    lines = asked()
    names = [re.sub(r"^# |[ =].*", "", line.removeprefix("# ")) for line in lines]
    assert len(names) == len(set(names))
    form = re.compile(r'CONFIG_[A-Z0-9_]+=(y|-?\d+|0x[0-9a-f]+|"[^"]*")|# CONFIG_[A-Z0-9_]+ is not set')
    assert [line for line in lines if not form.fullmatch(line)] == []


def test_a_build_as_data(build: trim.Build) -> None:
    assert build.packages[0] == "linux-source-6.1=6.1.192-2"
    assert build.files["/usr/src/trim.sh"].startswith(b"#!")
    assert build.hooks(Path("/cache/an out")) == (
        'mkdir "$1/usr/src/out"',
        'chroot "$1" /usr/src/trim.sh /usr/src/out >&2',
        "cp \"$1/usr/src/out\"/* '/cache/an out'/",
    )
    assert " config >&2" in build.hooks(Path("/x"), only_config=True)[1]


def test_a_recipe_changes_with_what_it_names(build: trim.Build) -> None:
    older = trim.plan("debian", "6.1.176-1", architecture="x86_64")
    other = trim.Build(build.version, build.packages, {**build.files, "/usr/src/trim.config": b"CONFIG_64BIT=y\n"})
    same = trim.plan("debian", "6.1.192-2", architecture="x86_64")
    assert len({build.recipe, older.recipe, other.recipe}) == 3
    assert same.recipe == build.recipe


def test_what_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="no trimmed kernel can be made of 'slackware'") as refused:
        trim.plan("slackware", None)
    assert refused.value.hint == "use debian"
    with pytest.raises(Refused, match="version '-o Dir' is not one of a package"):
        trim.plan("debian", "-o Dir", architecture="x86_64")
    with pytest.raises(Unavailable, match="this host is aarch64"):
        trim.plan("debian", None, architecture="aarch64")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, (5 << 30) - 1))
    with pytest.raises(Unavailable, match="takes 5G below"):
        trim.check_room(tmp_path)


def test_what_was_built_becomes_a_kernel(tmp_path: Path, build: trim.Build) -> None:
    out = tmp_path / "built"
    out.mkdir()
    (out / "vmlinux").write_bytes(elf())
    (out / "release").write_text("6.1.192-bulkhead\n")
    kernel = trim.collect(build, out, tmp_path, quiet)
    assert kernel.names == ("kernel/trim:6.1", "kernel/trim:latest")
    assert kernel.annotations["org.opencontainers.image.version"] == "6.1.192-2"
    assert kernel.annotations["org.bulkhead.kernel.release"] == "6.1.192-bulkhead"
    assert kernel.annotations[trim.RECIPE] == build.recipe
    assert read_cpio(kernel.initrd.read_bytes()) == [(kernels.LIST, cpio.file("x", b"").mode, b"")]

    (out / "release").write_text("no release\n")
    with pytest.raises(ImageError, match="calls itself 'no release'"):
        trim.collect(build, out, tmp_path, quiet)
    (out / "release").write_text("6.1.192-bulkhead\n")
    (out / "vmlinux").write_bytes(elf(b""))
    with pytest.raises(ImageError, match="no PVH entry"):
        trim.collect(build, out, tmp_path, quiet)


# --- the script, with a source that is a makefile alone


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory as the root file system's /usr/src."""
    source = tmp_path / "linux-source-6.1"
    source.mkdir()
    (source / "Makefile").write_text(MAKEFILE)
    with tarfile.open(tmp_path / "linux-source-6.1.tar.xz", "w:xz") as archive:
        archive.add(source, "linux-source-6.1")
    shutil.rmtree(source)
    for name in ("trim.sh", "trim.config"):
        (tmp_path / name).write_bytes((SOURCE / name).read_bytes())
    (tmp_path / "out").mkdir()
    return tmp_path


def run(place: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = ["bash", str(place / "trim.sh"), str(place / "out"), *words]
    env = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=env)


def test_the_script_builds_with_progress(place: Path) -> None:
    done = run(place)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == [
        "I: unpacking the kernel's source",
        "I: configuring the kernel",
        "I: compiling the kernel",
        "I: compiling the kernel: 50 files, fs/file50.o",
        "I: compiling the kernel: 100 files, fs/file100.o",
    ]
    stamp = int((place / "linux-source-6.1.tar.xz").stat().st_mtime)
    assert (place / "out/release").read_text() == f"6.1.1-bulkhead @{stamp}\n"
    assert (place / "out/vmlinux").read_bytes().startswith(b"\x7fELF")


def test_an_option_that_gets_lost_fails_the_build(place: Path) -> None:
    with (place / "trim.config").open("a") as config:
        config.write("CONFIG_LOST=y\n# CONFIG_STAYS is not set\n# CONFIG_UNKNOWN is not set\n")
    done = run(place)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "E: this source does not take of trim.config: CONFIG_LOST=y CONFIG_STAYS=n"
    assert not (place / "out/vmlinux").exists()


def test_the_script_can_stop_at_the_config(place: Path) -> None:
    assert run(place, "config").returncode == 0
    assert sorted(path.name for path in (place / "out").iterdir()) == ["config", "log"]


def test_what_the_compiler_says_is_told(place: Path) -> None:
    done = run(place, BROKEN="yes")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "E: the kernel cannot be compiled: fs/a.c:1: error: no such thing"
