"""The helper machine's image: what it is made of, and when it is made again."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from bulkhead.boot import rescue


def test_the_modules_come_from_the_kernels_package() -> None:
    unpack, index = rescue.Tools("6.1.0-50-cloud-amd64", Path("/var/cache/a b.deb")).hooks
    assert unpack.startswith("dpkg-deb --fsys-tarfile '/var/cache/a b.deb' | tar -C \"$1\"")
    assert "./lib/modules/6.1.0-50-cloud-amd64/kernel/fs" in unpack
    assert index == 'depmod -b "$1" 6.1.0-50-cloud-amd64'


def test_another_kernel_is_another_image() -> None:
    assert rescue.recipe("6.1.0-50-cloud-amd64") != rescue.recipe("6.1.0-51-cloud-amd64")


def test_the_script_is_a_layer() -> None:
    layer, digest = rescue.script()
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        (entry,) = archive.getmembers()
        assert (entry.name, entry.mode) == ("usr/local/sbin/bulkhead-rescue", 0o755)
        assert entry.name == rescue.PROGRAM.lstrip("/")
    assert len(digest) == 32


def test_the_script_is_one_of_a_plain_shell() -> None:
    subprocess.run(["dash", "-n", rescue.script_path()], check=True)


@pytest.mark.parametrize("words", [(), ("--write", "--root", "/dev/vdc1")])
def test_without_a_disk_it_says_so(words: tuple[str, ...], tmp_path: Path) -> None:
    """On this host, in namespaces of its own: nothing here has the serial number of a foreign disk."""
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", rescue.script_path(), *words, "touch", "x"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 125 and "no disk was given" in done.stderr
    assert not list(tmp_path.iterdir())
