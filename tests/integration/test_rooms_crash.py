"""The daemon is killed in the middle of clean rooms and of copies of servers: its next start leaves nothing of them."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from bulkhead.engine.faults import IMPORTS, ROOMS
from tests.harness.daemon import BULKHEAD, Daemon
from tests.integration.lives import PLAN, until, with_image

CALM = {"BULKHEAD_CRASH_AT": ""}


@pytest.fixture(scope="module")
def crashing(module_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """One daemon for all points: it is killed and started again."""
    return with_image(module_daemon, busybox_tar, "busybox")


def is_clean(daemon: Daemon) -> bool:
    """Nothing of a room or an import is left: no instance, no image but busybox, nothing half."""
    images = daemon.config.images_dir
    half = [path for path in (images / "ingest").iterdir() if path.is_dir()]
    names = [image["references"] for image in daemon.json("image", "ls", "--format", "json")]
    return daemon.json("ps", "-a", "--format", "json") == [] and names == [["busybox:latest"]] and not half


@pytest.mark.parametrize(
    ("point", "level"), [*((point, "container") for point in ROOMS), ("room.held", "chroot"), ("room.layer", "chroot")]
)
def test_a_room_whose_daemon_dies(
    shared_daemon: Daemon, crashing: Daemon, tmp_path: Path, point: str, level: str
) -> None:
    layer = tmp_path / "layer.tar"
    ends = point in ("room.changes", "room.layer")
    crashing.restart(env={"BULKHEAD_CRASH_AT": "room.held:3" if point == "room.held" else point})
    script = "echo new > /root/new; " + ("true" if ends else "echo up; sleep 1000")
    argv = ["clean", "--isolation", level, *PLAN, "--keep-changes", str(layer), "busybox", "sh", "-c", script]
    with ExitStack() as stack:
        client = subprocess.Popen(
            [str(BULKHEAD), *argv],
            env=crashing.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        stack.callback(client.communicate, timeout=60)
        stack.callback(client.kill)
        if point in ("room.closing", "room.closed"):
            assert client.stdout
            assert client.stdout.readline() == b"up\n"
            client.kill()
        crashing.wait(60)
        client.wait(60)
    assert client.returncode != 0
    assert list(tmp_path.iterdir()) == [], "a layer is written whole or not at all"
    crashing.start(env=CALM)
    assert is_clean(crashing)
    # The next one is as good as any.
    done = crashing.cli("clean", "--isolation", level, *PLAN, "busybox", "sh", "-c", "cat /root/new", check=False)
    assert done.returncode == 1
    assert is_clean(crashing)


@pytest.fixture
def server(tmp_path: Path, busybox_tar: Path) -> Path:
    """The root directory of a server."""
    root = tmp_path / "server"
    root.mkdir()
    subprocess.run(["tar", "-C", root, "-xf", busybox_tar], check=True)
    (root / "etc/name").write_text("a server\n")
    return root


@pytest.mark.parametrize("point", [*IMPORTS, *(f"{point}:2" for point in IMPORTS)])
def test_a_copy_of_a_server_whose_daemon_dies(
    shared_daemon: Daemon, crashing: Daemon, server: Path, point: str
) -> None:
    """Of two passes the first and the second."""
    crashing.restart(env={"BULKHEAD_CRASH_AT": point})
    copy = ("image", "from-server", "--name", "server/copied", server)
    assert crashing.cli(*copy, check=False).returncode == 125
    crashing.wait()
    crashing.start(env=CALM)
    if point == "import.stored:2":
        # It was there; only nobody had been told.
        assert crashing.cli("run", "--rm", *PLAN, "server/copied", "cat", "/etc/name").stdout == "a server\n"
        crashing.cli("image", "rm", "server/copied")
    assert is_clean(crashing)
    crashing.cli(*copy)
    assert crashing.cli("run", "--rm", *PLAN, "server/copied", "cat", "/etc/name").stdout == "a server\n"
    crashing.cli("image", "rm", "server/copied")
    assert is_clean(crashing)


def test_the_first_pass_goes_with_a_client_that_is_killed(
    shared_daemon: Daemon, crashing: Daemon, tmp_path: Path
) -> None:
    """What holds a name is a request: its image goes when the client does, without a word."""
    (tmp_path / "tar").write_bytes(bytes(10240))
    program = (
        "import sys, time; from bulkhead.client import Client; from bulkhead.client.rooms import HeldName\n"
        "with HeldName(Client(sys.argv[1])) as held:\n    print(held.name, flush=True); time.sleep(1000)\n"
    )
    argv = [str(BULKHEAD.with_name("python")), "-c", program, str(crashing.config.socket_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=crashing.environment()) as process:
        assert process.stdout
        name = process.stdout.readline().strip()
        crashing.cli("image", "tag", "busybox", name)
        assert not is_clean(crashing)
        process.kill()
    until("it is gone", lambda: is_clean(crashing))
    crashing.cli("image", "tag", "busybox", "temporary.invalid/left")
    crashing.restart()
    assert is_clean(crashing)
