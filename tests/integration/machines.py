"""What the tests of virtual machines share: a small one, and waiting for what it does."""

from __future__ import annotations

from pathlib import Path

from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout
from tests.integration.lives import with_image

SIZE = ("--memory", "128M", "--cpus", "1", "--disk", "64M")
IMAGE = "vm-busybox"


def with_machines(daemon: Daemon, tar: Path) -> Daemon:
    """The daemon, once it has an image and a kernel."""
    if IMAGE not in daemon.cli("image", "ls").stdout:
        daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    return with_image(daemon, tar, IMAGE)


def run(daemon: Daemon, name: str, command: str, *options: str) -> None:
    """A VM in the background that runs a line of shell."""
    daemon.cli("run", "-d", "--name", name, "--isolation", "vm", *SIZE, *options, IMAGE, "sh", "-c", command)


def hypervisor(daemon: Daemon, name: str) -> int:
    """The pid of an instance's QEMU; 0 when it does not run."""
    return int(daemon.json("inspect", name)[0]["pid"])
