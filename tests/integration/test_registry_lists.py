"""Images for several platforms: pulled as an image each, pushed as one list, as skopeo reads it; archives."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.images import rootfs_tar
from tests.harness.registries import Registry, configure, plain

PLAIN = "--tls-verify=false"


@pytest.fixture
def registry(shared_daemon: Daemon, tmp_path: Path) -> Iterator[Registry]:
    made = Registry(shared_daemon.sandbox, tmp_path / "registry")
    try:
        made.start()
        configure(shared_daemon, plain(made.host))
        yield made
    finally:
        made.stop()
        configure(shared_daemon, "")
        shared_daemon.cli("image", "prune", "--all")


@pytest.fixture
def both(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """app:1 for this host, and app:1-386."""
    shared_daemon.cli("image", "import", busybox_tar, "app:1")
    shared_daemon.cli("image", "import", rootfs_tar("busybox-i386"), "app:1-386")
    return shared_daemon


def platforms(registry: Registry, name: str) -> dict[str, dict[str, object]]:
    """What skopeo finds in a list, by architecture."""
    found = json.loads(registry.skopeo("inspect", PLAIN, "--raw", f"docker://{name}"))
    assert found["mediaType"] == "application/vnd.oci.image.index.v1+json"
    return {entry["platform"]["architecture"]: entry for entry in found["manifests"]}


def test_a_list_is_pushed_and_every_image_of_it_comes_back(both: Daemon, registry: Registry) -> None:
    daemon, name = both, f"{registry.host}/team/app:1"
    digest = daemon.cli("push", "--all-platforms", "app:1", name).stdout.strip()
    found = platforms(registry, name)
    assert {*found} == {"amd64", "386"}
    inspected = [json.loads(registry.skopeo("inspect", PLAIN, *words, f"docker://{name}")) for words in ((), I386)]
    assert [image["Architecture"] for image in inspected] == ["amd64", "386"]
    assert registry.skopeo("inspect", PLAIN, "--format", "{{.Digest}}", f"docker://{name}").strip() == digest
    # The same again is the same list, of which nothing is sent.
    again = daemon.json("push", "--all-platforms", "--format", "json", "app:1", name)
    assert (again["digest"], again["moved"]) == (digest, 0)
    daemon.cli("image", "rm", "app:1", "app:1-386")
    assert daemon.cli("pull", "--all-platforms", name).stdout == f"{name}\n{name}-386\n"
    assert daemon.json("image", "inspect", f"{name}-386")[0]["Architecture"] == "386"
    assert daemon.json("image", "inspect", name)[0]["Architecture"] == "amd64"
    # Whatever has come is pushed on as it came.
    daemon.cli("push", "--all-platforms", name, f"{registry.host}/other/app:1")
    assert {key: entry["digest"] for key, entry in platforms(registry, f"{registry.host}/other/app:1").items()} == {
        key: entry["digest"] for key, entry in found.items()
    }


I386 = ("--override-arch", "386")


def test_what_is_for_one_platform_is_no_list(shared_daemon: Daemon, registry: Registry, busybox_tar: Path) -> None:
    daemon = shared_daemon
    daemon.cli("image", "import", busybox_tar, "app:1")
    # A name of another meaning: the image is not for what its name says.
    daemon.cli("image", "tag", "app:1", "app:1-arm64")
    name = f"{registry.host}/app:1"
    refused = daemon.cli("push", "--all-platforms", "app:1", name, check=False)
    assert refused.returncode == 125
    assert "for one platform alone" in refused.stderr
    daemon.cli("push", "app:1", name)
    assert daemon.cli("pull", "--all-platforms", name).stdout == f"{name}\n"
    both = daemon.cli("pull", "--all-platforms", "--platform", "linux/386", name, check=False)
    assert both.returncode == 125


def test_every_name_of_an_archive_is_kept_and_told(both: Daemon, registry: Registry, tmp_path: Path) -> None:
    daemon, archive = both, tmp_path / "several.tar"
    daemon.cli("image", "tag", "app:1", "second:2", "third:3")
    daemon.cli("image", "save", "-o", archive, "app:1", "second:2", "app:1-386")
    daemon.cli("image", "rm", "app:1", "second:2", "third:3", "app:1-386")
    assert sorted(daemon.cli("image", "load", "-i", archive).stdout.split()) == ["app:1", "app:1-386", "second:2"]
    names = {name for image in daemon.json("image", "ls", "--format", "json") for name in image["references"]}
    assert names == {"app:1", "second:2", "app:1-386"}
    assert sorted(daemon.cli("image", "load", stdin=archive.read_bytes()).stdout.split()) == [
        "app:1",
        "app:1-386",
        "second:2",
    ]


def test_an_archive_with_a_list_that_skopeo_wrote(both: Daemon, registry: Registry, tmp_path: Path) -> None:
    daemon, name, directory = both, f"{registry.host}/app:1", tmp_path / "layout"
    daemon.cli("push", "--all-platforms", "app:1", name)
    daemon.cli("image", "rm", "app:1", "app:1-386")
    registry.skopeo("copy", "-q", "--all", "--src-tls-verify=false", f"docker://{name}", f"oci:{directory}:kept/app:1")
    archive = tmp_path / "list.tar"
    with tarfile.open(archive, "w") as tar:
        for path in sorted(directory.iterdir()):
            tar.add(path, path.name)
    assert daemon.cli("image", "load", "-i", archive).stdout == "kept/app:1\n"
    loaded = daemon.cli("image", "load", "--all-platforms", "-i", archive).stdout
    assert sorted(loaded.split()) == ["kept/app:1", "kept/app:1-386"]
    assert daemon.json("image", "inspect", "kept/app:1-386")[0]["Architecture"] == "386"
