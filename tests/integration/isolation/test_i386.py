"""Images for i386: their programs run, and what of the profile holds for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness.images import rootfs_tar
from tests.integration.isolation.lab import Lab

TALK = """
nc -l -p 8080 -e /bin/busybox echo answered &
for attempt in $(seq 100); do nc 127.0.0.1 8080 </dev/null 2>/dev/null && break; sleep 0.1; done
"""


@pytest.fixture
def root(lab: Lab) -> Path:
    """An image of Debian's busybox for i386, whose libc uses socketcall for everything."""
    tree = lab.directory / "i386"
    tree.mkdir()
    subprocess.run(["tar", "-xpf", str(rootfs_tar("busybox-i386")), "-C", str(tree)], check=True)
    return tree


def shell(root: Path) -> str:
    """Where its shell is."""
    return "/bin/busybox" if (root / "bin/busybox").exists() else "/usr/bin/busybox"


def test_programs_run_and_talk(lab: Lab, root: Path) -> None:
    busybox = shell(root)
    script = (
        TALK.replace("/bin/busybox", busybox)
        .replace("nc ", f"{busybox} nc ")
        .replace("$(seq", f"$({busybox} seq")
        .replace("; sleep", f"; {busybox} sleep")
    )
    done = lab.run(busybox, "sh", "-c", f"{busybox} id -u; {script}", image=root, architecture="i386")
    assert done.lines == ["0", "answered"]


def test_an_image_for_amd64_gives_i386_programs_no_network(lab: Lab, root: Path) -> None:
    busybox = shell(root)
    done = lab.run(busybox, "nc", "127.0.0.1", "1", image=root, architecture="amd64")
    assert "not implemented" in done.output
