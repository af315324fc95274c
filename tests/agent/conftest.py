"""An agent built for the session, a small root with busybox, and agents that are ended with their test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.agent.box import Box
from tests.agent.wire import Agent

SOURCE = Path(__file__).resolve().parents[2] / "agent"
BUSYBOX = Path("/bin/busybox")


@pytest.fixture(scope="session")
def agent_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release build."""
    out = tmp_path_factory.mktemp("agent-build")
    subprocess.run(["make", "-s", "-C", SOURCE, f"OUT={out}", "-j2"], check=True)
    return out / "agent"


def make_busybox_root(root: Path) -> Path:
    """A small root, all of it busybox."""
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "home"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\nwww:x:33:33::/srv:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\nwww:x:33:\nstaff:x:50:user,www\nadm:x:4:www,user\n")
    (root / "home/user").mkdir()
    os.chown(root / "home/user", 1000, 1000)
    (root / "tmp").chmod(0o1777)
    return root


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that a test uses as the lowest layer and never changes."""
    return make_busybox_root(tmp_path_factory.mktemp("root") / "root")


@pytest.fixture
def new_box(agent_binary: Path, busybox_root: Path, tmp_path: Path) -> Iterator[Callable[[], Box]]:
    """Makes boxes; whatever becomes of them in the test, nothing of them stays."""
    with ExitStack() as stack:
        count = 0

        def make() -> Box:
            nonlocal count
            count += 1
            bundle = tmp_path / f"b{count}"
            box = Box.make(bundle, busybox_root, Agent(agent_binary, bundle))
            stack.callback(box.end)
            return box

        yield make


@pytest.fixture
def box(new_box: Callable[[], Box]) -> Box:
    """One box, its agent not launched yet."""
    return new_box()
