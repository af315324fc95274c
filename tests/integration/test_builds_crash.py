"""The daemon is killed in the middle of builds: nothing of them is left, and the next build is as good as any."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bulkhead.engine.faults import BUILDS
from tests.harness.daemon import BULKHEAD, Daemon
from tests.integration.building import build, context, layers, run
from tests.integration.lives import until, with_image

CALM = {"BULKHEAD_CRASH_AT": ""}
TEXT = """
FROM busybox
COPY file /file
RUN --mount=type=secret,id=s --mount=type=tmpfs,target=/t --mount=source=file,target=/b cat /file /b > /both
"""


@pytest.fixture(scope="module")
def crashing(module_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """One daemon for all points: it is killed and started again."""
    return with_image(module_daemon, busybox_tar, "busybox")


@pytest.mark.parametrize("point", BUILDS)
def test_a_build_that_is_killed(shared_daemon: Daemon, crashing: Daemon, tmp_path: Path, point: str) -> None:
    place = context(tmp_path / "context", TEXT, file=point)
    (tmp_path / "secret").write_text("hidden")
    options = ("-t", "built", "--secret", f"id=s,src={tmp_path / 'secret'}")
    crashing.restart(env={"BULKHEAD_CRASH_AT": point})
    assert build(crashing, place, *options, check=False).returncode == 125
    crashing.wait()
    crashing.start(env=CALM)
    assert crashing.json("ps", "-a", "--format", "json") == []
    assert not list((crashing.config.run_dir / "builds").glob("*/*")), "secrets"
    names = {name for image in crashing.json("image", "ls", "--format", "json") for name in image["references"]}
    assert ("built:latest" in names) == (point == "build.image")
    crashing.cli("image", "prune")
    build(crashing, place, *options)
    assert run(crashing, "built", "cat", "/both") == point * 2
    crashing.cli("image", "rm", "built")
    crashing.cli("image", "prune")
    blobs = list((crashing.config.images_dir / "blobs/sha256").iterdir())
    assert len(blobs) == 3, "busybox's manifest, configuration and layer"


def test_a_daemon_that_ends_in_order(make_daemon: Callable[..., Daemon], busybox_tar: Path, tmp_path: Path) -> None:
    daemon = with_image(make_daemon(), busybox_tar, "busybox")
    place = context(tmp_path, "FROM busybox\nRUN echo kept > /kept\nRUN sleep 1000\n")
    client = subprocess.Popen(
        [str(BULKHEAD), "build", str(place)], env=daemon.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until("the second step runs", lambda: len(list((daemon.config.images_dir / "steps").glob("*"))) == 1)
    until("it runs", lambda: any(row["state"] == "running" for row in daemon.json("ps", "--format", "json")))
    daemon.stop()
    client.communicate(timeout=60)
    assert client.returncode != 0
    daemon.start()
    until("nothing is left", lambda: not daemon.json("ps", "-a", "--format", "json"))
    place = context(tmp_path, "FROM busybox\nRUN echo kept > /kept\n")
    done = build(daemon, place)
    assert "cached" in done.stderr
    assert len(layers(daemon, done.stdout.strip())) == 2
