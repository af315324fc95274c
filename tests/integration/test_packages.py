"""Real Debian packages, built by sbuild in our testbeds and in its own unshare mode: what comes out is the same.

One of them belongs to every run; `scripts/test packages` runs all, since each takes minutes and the archive's mirror.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.abilities import require
from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout
from tests.harness.packages import assert_same, ours, source, theirs
from tests.integration.lives import with_image

pytestmark = pytest.mark.timeout(5400)
PACKAGES = ("hello", "ed", "libyaml")
"""A program, one with a test suite of its own, a library in C."""
LEVELS = {
    "chroot": "--isolation chroot",
    "container": "--isolation container --network host",
    "vm": "--isolation vm",
}
PLAN = "--memory 1G --cpus 2 --disk 4G --pids 4096 buildd"


def same(daemon: Daemon, tar: Path, directory: Path, package: str, level: str) -> None:
    require("sbuild", "autopkgtest", "newuidmap")
    dsc = source(package)
    with_image(daemon, tar, "buildd")
    directory.chmod(0o755)
    assert_same(ours(daemon, dsc, directory / "ours", f"{LEVELS[level]} {PLAN}"), theirs(dsc, tar, directory))


def test_a_package_built_in_a_chroot_is_the_same(
    make_daemon: Callable[..., Daemon], rootfs_tar: Callable[[str], Path], tmp_path: Path
) -> None:
    same(make_daemon(network="host", network_pool=0), rootfs_tar("buildd"), tmp_path, "hello", "chroot")


@pytest.mark.debian_packages
@pytest.mark.parametrize("level", ["chroot", "container"])
@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_built_is_the_same(
    make_daemon: Callable[..., Daemon], rootfs_tar: Callable[[str], Path], tmp_path: Path, package: str, level: str
) -> None:
    same(make_daemon(network="host", network_pool=0), rootfs_tar("buildd"), tmp_path, package, level)


@pytest.mark.debian_packages
def test_what_is_built_in_a_virtual_machine_is_the_same(
    make_daemon: Callable[..., Daemon], rootfs_tar: Callable[[str], Path], tmp_path: Path
) -> None:
    """By the network that machines have: the host's address translation leads to the archive's mirror."""
    daemon = make_daemon(network="host", network_pool=0)
    daemon.cli("image", "import", kernel_layout())
    same(daemon, rootfs_tar("buildd"), tmp_path, "hello", "vm")
