"""What a host lacks for virtual machines is told when one is created, and by doctor: not when it starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.integration.lives import with_image
from tests.integration.machines import IMAGE, SIZE


@contextmanager
def without(daemon: Daemon, program: str) -> Iterator[None]:
    """The daemon's host has no such program."""
    found = shutil.which(program)
    assert found
    file = str(Path(found).resolve())
    daemon.sandbox.run("mount", "--bind", "/dev/null", file)
    yield
    daemon.sandbox.run("umount", file)


@pytest.mark.parametrize(
    ("program", "package"), [("qemu-system-x86_64", "qemu-system-x86"), ("mkfs.erofs", "erofs-utils")]
)
def test_a_missing_program_is_told_at_create(
    make_daemon: Callable[..., Daemon], busybox_tar: Path, program: str, package: str
) -> None:
    """With everything else that is missing, and what to do about each."""
    daemon = make_daemon(strange=True)  # one that knows nothing of the host yet
    with_image(daemon, busybox_tar, IMAGE)
    with without(daemon, program):
        done = daemon.cli("create", "--isolation", "vm", *SIZE, IMAGE, "true", check=False)
        rows = {row["name"]: row for row in daemon.json("doctor", "--format", "json")}
        container = daemon.cli("run", "--rm", "--memory", "64M", "--disk", "64M", IMAGE, "echo", "well")
    assert done.returncode == 125
    for words in (program, f"apt install {package}", "no kernel image", "bulkhead image kernel debian"):
        assert words in done.stderr, done.stderr
    assert daemon.json("ps", "-a", "--format", "json") == []
    row = rows["isolation vm"]
    assert not row["works"]
    assert program in row["reason"]
    assert package in row["hint"]
    assert container.stdout == "well\n"
