"""Pulls whose daemon dies: nothing half is left, and the next pull goes on."""

from __future__ import annotations

import io
import re
import signal
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.harness.daemon import Daemon
from tests.harness.registries import Registry, configure, plain

SIZE, FILES = 15_000_000, 6


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon(disk_pool=0, network_pool=0)


@pytest.fixture
def registry(daemon: Daemon, tmp_path: Path) -> Iterator[Registry]:
    made = Registry(daemon.sandbox, tmp_path / "registry")
    try:
        made.start()
        configure(daemon, plain(made.host))
        yield made
    finally:
        made.stop()


def pushed(daemon: Daemon, registry: Registry, directory: Path) -> str:
    """An image that takes a moment to pull, in the registry alone."""
    archive, name = directory / "big.tar", f"{registry.host}/big:1"
    with tarfile.open(archive, "w") as tar:
        for number in range(FILES):
            info = tarfile.TarInfo(f"big{number}")
            info.size = SIZE
            tar.addfile(info, io.BytesIO(Random(number).randbytes(SIZE)))
    daemon.cli("image", "import", archive, name)
    daemon.cli("image", "push", "--compression-format", "zstd", name)
    daemon.cli("image", "rm", name)
    archive.unlink()
    return name


def in_store(daemon: Daemon) -> list[str]:
    """Everything of an image that is there."""
    images = daemon.config.images_dir
    found = [*(images / "blobs/sha256").iterdir(), *(images / "erofs").iterdir()]
    found += [path for path in (images / "ingest").iterdir() if path.is_dir()]
    return sorted(path.name for path in found)


def sent(registry: Registry) -> int:
    return sum(map(int, re.findall(r"http\.response\.written=(\d+)", registry.log())))


@pytest.mark.parametrize("point", ["pull.blobs", "pull.blobs:2", "pull.stored"])
def test_a_daemon_that_dies_while_it_pulls(daemon: Daemon, registry: Registry, tmp_path: Path, point: str) -> None:
    name = pushed(daemon, registry, tmp_path)
    daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    assert daemon.cli("image", "pull", name, check=False).returncode != 0
    assert daemon.wait() == -signal.SIGKILL
    kept = sum(path.stat().st_size for path in (daemon.config.images_dir / "partial").iterdir())
    assert kept > 0
    daemon.start()
    if point == "pull.stored":
        # It was all there: only the end of the beginnings was missing.
        assert daemon.json("image", "inspect", name)
    else:
        assert daemon.json("image", "ls", "--format", "json") == []
        assert in_store(daemon) == []
    before = sent(registry)
    daemon.cli("image", "pull", name)
    moved = sent(registry) - before
    assert moved < SIZE * FILES - kept + (1 << 20), (moved, kept)
    assert not list((daemon.config.images_dir / "partial").iterdir()) or point == "pull.stored"
    daemon.cli("image", "rm", name)
    daemon.cli("image", "prune")
    assert in_store(daemon) == []
    assert not list((daemon.config.images_dir / "partial").iterdir())


def test_two_pulls_at_a_time_are_one(daemon: Daemon, registry: Registry, tmp_path: Path) -> None:
    name = pushed(daemon, registry, tmp_path)
    before, outcomes = sent(registry), []
    threads = [threading.Thread(target=lambda: outcomes.append(daemon.cli("image", "pull", name))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.stdout for outcome in outcomes] == [f"{name}\n"] * 3
    assert sent(registry) - before < SIZE * FILES + (1 << 20)
