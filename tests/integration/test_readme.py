"""The README's tour, line by line as it is written, with the images that the demo leaves."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.images import rootfs_tar
from tests.harness.kernels import kernel_layout
from tests.integration.lives import with_image

pytestmark = pytest.mark.timeout(1200)
ROOT = Path(__file__).parents[2]
IMAGES = {
    "nginx": 'CMD ["nginx", "-g", "daemon off;"]',
    "redis": 'CMD ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no"]',
}
SAYS = {
    "echo hello from": "exit code 3",
    "head -c 200M": "exit code 137",
    "true    # refused": "cpus 64",
    "127.0.0.1:8088/ | grep": "Welcome to nginx",
    "getent hosts web": "web",
    "curl -s http://127.0.0.1:8088/": "mine",
    "update web": "",
    "inspect room": "not_isolated",
    "127.0.0.1:8089/ | grep": "Welcome to nginx",
    "exec walled": "nginx version",
    "move kept": "",
    "run --rm hello": "built",
    "doctor": "vm",
}
"""What lines say, by a part of each."""


@pytest.fixture
def toured(daemon: Daemon, tmp_path: Path) -> Daemon:
    """A daemon with the demo's images."""
    daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    with_image(daemon, rootfs_tar("debian"), "debian:bookworm")
    with_image(daemon, rootfs_tar("servers"), "servers")
    for name, line in IMAGES.items():
        (tmp_path / "Containerfile").write_text(f"FROM servers\n{line}\n")
        daemon.cli("build", "-t", name, tmp_path)
    return daemon


def tour() -> list[str]:
    """Its lines."""
    text = (ROOT / "README.md").read_text()
    text = text[text.index("## Five minutes") : text.index("## Where to go")]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("export PATH=")]


def test_the_tour(toured: Daemon, tmp_path: Path) -> None:
    seen = set()
    for written in tour():
        line = written.replace("/tmp/hello", f"{tmp_path}/hello")
        said = shell(toured, line)
        known = [part for part in SAYS if part in line]
        seen.update(known)
        for part in known:
            assert SAYS[part] in said.stdout + said.stderr, f"{line}: {said}"
        assert (said.returncode == 0) != ("# refused" in line), f"{line}: {said}"
        assert "Traceback" not in said.stderr
    assert seen == set(SAYS), "what was to be looked at is no part of the tour any more"
    assert toured.json("ps", "-a", "--format", "json") == [], "the tour takes away what it makes"


def shell(daemon: Daemon, line: str) -> subprocess.CompletedProcess[str]:
    """A line as somebody types it on the daemon's host."""
    enter = ["nsenter", "-t", str(daemon.sandbox.pid), "-m", "-n", "--wd=/", "--", "bash", "-c", line]
    path = f"{BULKHEAD.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    return subprocess.run(
        enter,
        env={**daemon.environment(), "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
