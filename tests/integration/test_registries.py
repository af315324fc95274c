"""Pulls and pushes against Debian's docker-registry: the command line, the daemon, the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.registries import Registry, configure, plain


@pytest.fixture
def registry(daemon: Daemon) -> Iterator[Registry]:
    made = Registry(daemon.sandbox, daemon.directory / "registry").start()
    configure(daemon, plain(made.host))
    yield made
    made.stop()


def test_an_image_is_pushed_removed_pulled_and_runs(daemon: Daemon, registry: Registry, busybox_tar: Path) -> None:
    daemon.cli("image", "import", busybox_tar, "team/app:1")
    name = f"{registry.host}/team/app:1"
    assert daemon.cli("image", "tag", "team/app:1", name).stdout == f"{name}\n"
    digest = daemon.cli("image", "push", name).stdout.strip()
    assert digest.startswith("sha256:")
    assert daemon.cli("image", "tags", f"{registry.host}/team/app").stdout == "1\n"
    (before,) = daemon.json("image", "inspect", name)
    daemon.cli("image", "rm", name)
    daemon.cli("image", "rm", "team/app:1")
    assert daemon.cli("image", "pull", name).stdout == f"{name}\n"
    (after,) = daemon.json("image", "inspect", name)
    assert after["RootFS"] == before["RootFS"]
    assert daemon.cli("run", "--rm", name, "echo", "works").stdout == "works\n"
    assert not list((daemon.config.images_dir / "partial").iterdir())
    shown = json.loads(registry.skopeo("inspect", "--tls-verify=false", f"docker://{name}"))
    assert shown["Digest"] == digest
