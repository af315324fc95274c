"""Debian packages built by sbuild: in our testbeds, and in its own unshare mode as what to compare with."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from bulkhead.packaging.archive import Archive
from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.images import CACHE, SUITE

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


def theirs(dsc: Path, tar: Path, directory: Path) -> Path:
    """A directory with what sbuild's unshare mode builds of a package, by a run of it in `directory`. It is kept: for
    the same source, the same root file system and the same sbuild it is not made again.
    """
    version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "sbuild"], capture_output=True, check=True).stdout
    key = hashlib.sha256(b"\0".join((dsc.read_bytes(), tar.name.encode(), version))).hexdigest()[:12]
    made = CACHE / "references" / f"{dsc.stem}-{key}"
    made.parent.mkdir(exist_ok=True)
    with (CACHE / "references.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            draft = directory / "theirs"
            env = {"PATH": os.environ["PATH"], "HOME": str(directory), "LC_ALL": "C.UTF-8"}
            before = ("unshare", "--mount", "sh", "-c", UNSHARED, "sh", str(directory))
            sbuild(("--chroot-mode=unshare", f"--chroot={tar}"), draft, dsc, env, before)
            new = made.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            shutil.copytree(draft, new)
            new.rename(made)
    return made


def ours(daemon: Daemon, dsc: Path, into: Path, options: str) -> Path:
    """The same built in a testbed: `options` are those of `bulkhead run`, and the image."""
    testbed = ("--chroot-mode=autopkgtest", f"--autopkgtest-virt-server={PROGRAM}")
    sbuild([*testbed, f"--autopkgtest-virt-server-opts={options}"], into, dsc, daemon.environment())
    assert daemon.json("ps", "-a", "--format", "json") == []
    return into


def assert_same(mine: Path, other: Path) -> None:
    """Both directories have the same binary packages, equal in content."""
    expected = sorted(other.glob("*.deb"))
    assert expected
    assert [deb.name for deb in sorted(mine.glob("*.deb"))] == [deb.name for deb in expected]
    for deb in expected:
        assert contents(mine / deb.name) == contents(deb), deb.name
