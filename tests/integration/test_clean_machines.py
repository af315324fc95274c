"""Clean rooms with a kernel of their own: what was changed comes out through the agents, never by a mount."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.integration.machines import IMAGE, SIZE, with_machines
from tests.integration.test_clean import MAKE, check_layer, gone


@pytest.fixture
def machines(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon with an image and a kernel."""
    return with_machines(shared_daemon, busybox_tar)


def test_a_machine_is_a_room_too(machines: Daemon, tmp_path: Path) -> None:
    layer = tmp_path / "layer.tar"
    arguments = ("--isolation", "vm", *SIZE, "--network", "none", "--keep-changes", layer, IMAGE)
    done = machines.cli("clean", *arguments, "--", "sh", "-c", f"{MAKE}; exit 5", check=False)
    assert done.returncode == 5, done.stderr
    assert "of disk used" in done.stderr
    check_layer(layer, emptied="home/.wh.user")
    assert gone(machines)
