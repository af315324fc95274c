"""verify-deps on a small source package: declared as it should be, with a dependency too few, with one too many.

The packages come from the archive by this host's apt; the rooms have no network.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.images import CACHE
from tests.integration.lives import with_image

IMAGE = "verify-buildd"
CONTROL = """Source: small
Maintainer: Nobody <nobody@example.org>
Build-Depends: {build}
Rules-Requires-Root: no
Standards-Version: 4.6.2

Package: small
Architecture: any
Depends: ${{shlibs:Depends}}{run}
Description: nothing
"""
RULES = r"""#!/usr/bin/make -f
clean:
	rm -rf it debian/small debian/files debian/substvars
build build-arch build-indep:
	$(CC) -o it it.c -lz
	./it
binary binary-arch: build
	install -D it debian/small/usr/bin/it
	install -D it.sh debian/small/usr/bin/it-sh
	mkdir -p debian/small/DEBIAN
	dpkg-shlibdeps it
	dpkg-gencontrol -Pdebian/small
	dpkg-deb --root-owner-group -b debian/small ..
binary-indep:
"""
FILES = {
    "debian/changelog": "small (1) unstable; urgency=low\n\n  * New.\n\n"
    " -- Nobody <nobody@example.org>  Mon, 01 Jan 2024 00:00:00 +0000\n",
    "debian/rules": RULES,
    "debian/source/format": "3.0 (native)\n",
    "debian/tests/control": "Tests: it\nDepends: @\n",
    "debian/tests/it": "#!/bin/sh\nset -e\nit > $AUTOPKGTEST_TMP/said\ngrep 1 $AUTOPKGTEST_TMP/said\n",
    "it.c": "#include <stdio.h>\n#include <zlib.h>\nint main(void) { return puts(zlibVersion()) < 0; }\n",
    "it.sh": "#!/bin/sh\nfile /usr/bin/it > /dev/null\n",
}


@pytest.fixture
def verifying(shared_daemon: Daemon, rootfs_tar: Callable[[str], Path]) -> Daemon:
    """A daemon with an image to build in."""
    return with_image(shared_daemon, rootfs_tar("buildd"), IMAGE)


def source(directory: Path, *, build: str, run: str = "") -> Path:
    """The package with these dependencies."""
    top = directory / "small"
    for name, text in {**FILES, "debian/control": CONTROL.format(build=build, run=run)}.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    return top


def verify(daemon: Daemon, directory: Path, *arguments: str) -> tuple[int, list[str], str]:
    """Exit code, what it printed, what it said besides. Downloads are kept for the next run."""
    size = ("--memory", "512M", "--cpus", "2", "--disk", "2G")
    done = daemon.cli("verify-deps", "--image", IMAGE, *size, *arguments, directory, check=False, timeout=280)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture(autouse=True)
def downloads(monkeypatch: pytest.MonkeyPatch, shared_daemon: Daemon) -> None:
    """Keep what is downloaded."""
    monkeypatch.setitem(shared_daemon._env, "XDG_CACHE_HOME", str(CACHE))


def test_one_that_declares_what_it_uses(verifying: Daemon, tmp_path: Path) -> None:
    code, said, talk = verify(verifying, source(tmp_path, build="zlib1g-dev", run=", file"))
    assert (code, said) == (0, ["small: builds", "nothing undeclared, nothing unused"]), talk


def test_luck_and_things_declared_for_nothing(verifying: Daemon, tmp_path: Path) -> None:
    code, said, talk = verify(verifying, source(tmp_path, build="libpng-dev, gettext-base", run=", bc"))
    assert code == 1, talk
    assert said[0] == "small: builds"
    assert "unused to build: gettext-base" in said
    (luck,) = [line for line in said if line.startswith("undeclared to build")]
    assert "zlib1g-dev (/usr/include/z" in luck
    assert "there by luck, through libpng-dev" in luck
    assert "unused to run small: bc" in said
    (lacking,) = [line for line in said if line.startswith("missing to run")]
    assert lacking.startswith("missing to run: the program file, which is in file")


def test_what_is_missing_is_named(verifying: Daemon, tmp_path: Path) -> None:
    code, said, talk = verify(verifying, source(tmp_path, build="gettext-base"), "--isolation", "chroot")
    assert code == 1, talk
    assert said[0] == "small: does not build"
    assert said[1].startswith("missing to build: the header zlib.h, which is in zlib1g-dev")


def test_what_cannot_be_verified_is_refused(verifying: Daemon, tmp_path: Path) -> None:
    code, said, talk = verify(verifying, tmp_path / "missing", "--isolation", "vm")
    assert (code, said) == (125, [])
    assert "--isolation 'vm'" in talk
    assert "does not exist" in talk
    code, _, talk = verify(verifying, tmp_path)
    assert code == 125
    assert "no debian/control" in talk
    assert verifying.json("ps", "-a", "--format", "json") == []
