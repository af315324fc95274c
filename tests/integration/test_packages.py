"""Real Debian packages, built by sbuild in our testbeds and in its own unshare mode: what comes out is the same.

`scripts/test packages` runs these; elsewhere they are left out, since each takes minutes and the archive's mirror.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bulkhead.packaging.archive import Archive
from tests.harness.abilities import require
from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.images import CACHE, SUITE
from tests.integration.lives import with_image

pytestmark = [pytest.mark.debian_packages, pytest.mark.timeout(3600)]
PACKAGES = ("hello", "ed", "libyaml")
"""A program, one with a test suite of its own, a library in C."""
LEVELS = {"chroot": "--isolation chroot", "container": "--isolation container --network host"}
PROGRAM = BULKHEAD.with_name("autopkgtest-virt-bulkhead")
QUIET = ("--no-run-lintian", "--no-run-piuparts", "--no-run-autopkgtest")
UNSHARED = """
set -e
mount --make-rprivate /
printf 'root:100000:65536\\n' > "$1/subid"
mount --bind "$1/subid" /etc/subuid
mount --bind "$1/subid" /etc/subgid
shift
exec "$@"
"""
"""sbuild's unshare mode wants a range of ids; root has one here, in a mount namespace of its own."""


def source(name: str) -> Path:
    """A source package of the archive, downloaded once."""
    place = CACHE / "sources" / name
    found = list(place.glob("*.dsc"))
    if not found:
        place.mkdir(parents=True, exist_ok=True)
        archive = Archive(SUITE, "amd64", CACHE / "sources" / "apt")
        archive.update()
        found = [archive.source(name, place)]
    return found[0]


def sbuild(words: Sequence[str], into: Path, dsc: Path, env: dict[str, str], before: Sequence[str] = ()) -> None:
    """Build a package, its results in the directory `into`."""
    into.mkdir()
    config = into.parent / "sbuildrc"
    config.write_text("1;\n")
    argv = [*before, "sbuild", "-d", SUITE, *QUIET, *words, str(dsc)]
    done = subprocess.run(argv, cwd=into, env={**env, "SBUILD_CONFIG": str(config)}, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[-4000:]


def contents(deb: Path) -> dict[str, tuple[object, ...]]:
    """Everything that a binary package installs, and what it says of itself."""
    found: dict[str, tuple[object, ...]] = {}
    for part in ("--fsys-tarfile", "--ctrl-tarfile"):
        data = subprocess.run(["dpkg-deb", part, str(deb)], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isreg() else None
                digest = hashlib.sha256(file.read()).hexdigest() if file else member.linkname
                found[part + member.name] = (member.type, member.mode, member.uid, member.gid, member.size, digest)
    return found


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_built_is_the_same(
    make_daemon: Callable[..., Daemon], rootfs_tar: Callable[[str], Path], tmp_path: Path, package: str, level: str
) -> None:
    require("sbuild", "autopkgtest", "newuidmap")
    dsc, tar = source(package), rootfs_tar("buildd")
    daemon = with_image(make_daemon(network="host", network_pool=0), tar, "buildd")
    tmp_path.chmod(0o755)
    options = f"{LEVELS[level]} --memory 1G --cpus 2 --disk 4G --pids 4096 buildd"
    testbed = ("--chroot-mode=autopkgtest", f"--autopkgtest-virt-server={PROGRAM}")
    words = [*testbed, f"--autopkgtest-virt-server-opts={options}"]
    sbuild(words, tmp_path / "ours", dsc, daemon.environment())
    assert daemon.json("ps", "-a", "--format", "json") == []
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    before = ("unshare", "--mount", "sh", "-c", UNSHARED, "sh", str(tmp_path))
    sbuild(("--chroot-mode=unshare", f"--chroot={tar}"), tmp_path / "theirs", dsc, env, before)
    theirs = sorted((tmp_path / "theirs").glob("*.deb"))
    assert theirs
    assert [deb.name for deb in sorted((tmp_path / "ours").glob("*.deb"))] == [deb.name for deb in theirs]
    for deb in theirs:
        assert contents(tmp_path / "ours" / deb.name) == contents(deb), deb.name
