"""The daemon is killed while a rescue has a disk open: the disk is whole, nothing is left, and it opens again."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from bulkhead.engine.faults import RESCUES
from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.rescue import rescue_layout
from tests.integration.building import context
from tests.integration.disks import look, small_system

pytestmark = pytest.mark.timeout(1800)
CALM = {"BULKHEAD_CRASH_AT": ""}
OLD = "FROM rescue/debian:bookworm\nLABEL org.bulkhead.rescue.script=old\n"
PATIENCE = 300.0


@pytest.fixture(scope="module")
def crashing(module_daemon: Daemon) -> Daemon:
    """One daemon for all points, with the helper machine's image."""
    module_daemon.cli("image", "import", rescue_layout())
    return module_daemon


@pytest.mark.parametrize("point", RESCUES)
def test_a_rescue_whose_daemon_dies(
    shared_daemon: Daemon, crashing: Daemon, tmp_path: Path, busybox_tar: Path, point: str
) -> None:
    disk = small_system(tmp_path, busybox_tar)
    if point == "rescue.made":
        # With the script of another version: a new image takes the place of this one.
        crashing.cli("build", "-q", "-t", "rescue/debian:bookworm", context(tmp_path / "old", OLD))
        crashing.cli("image", "prune")
    before = images(crashing)
    crashing.restart(env={"BULKHEAD_CRASH_AT": point})
    argv = ["rescue", "--network", "none", "-w", str(disk), "sh", "-c", "echo kept > /etc/name; echo up; sleep 1000"]
    with ExitStack() as stack:
        client = subprocess.Popen(
            [str(BULKHEAD), *argv],
            env=crashing.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        stack.callback(client.communicate, timeout=PATIENCE)
        stack.callback(client.kill)
        if point in ("rescue.closing", "rescue.stopped"):
            assert client.stdout
            assert client.stdout.readline() == b"up\n"
            client.kill()
        crashing.wait(PATIENCE)
    crashing.start(env=CALM)
    assert crashing.json("ps", "-a", "--format", "json") == []
    assert images(crashing) == before
    # Unmounted in order: `look` wants that of it.
    assert look(disk, "/etc/name") == ("kept\n" if point in ("rescue.closing", "rescue.stopped") else "a system\n")


def images(daemon: Daemon) -> list[object]:
    return sorted(image["references"] for image in daemon.json("image", "ls", "--format", "json"))
