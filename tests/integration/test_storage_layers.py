"""Layers as EROFS mounts, and volumes."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.config import Config
from bulkhead.errors import Conflict, HostError, NotFound
from bulkhead.host import loop, mounts, processes, syscalls
from bulkhead.storage import Disks, Layers, Volumes
from tests.harness.abilities import require
from tests.harness.naming import make_config, temporary_directory

FIRST, SECOND = "sha256:" + "1" * 64, "sha256:" + "2" * 64
SIZE = 64 << 20


@pytest.fixture
def config() -> Iterator[Config]:
    """Directories of this test alone, prepared."""
    require("root", "mount namespaces", "loop devices", "erofs", "cgroups")
    directory = temporary_directory()
    made = make_config(directory, disk_pool=0)
    disks = Disks(made)
    disks.prepare()
    yield made
    Volumes(made).recover(())
    Layers(made).close(())
    disks.close()
    shutil.rmtree(directory)


@pytest.fixture
def erofs(tmp_path: Path) -> Path:
    """A layer with one file."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "hello").write_text("from the layer")
    processes.run(("mkfs.erofs", "-Eforce-inode-extended", tmp_path / "layer.erofs", tmp_path / "tree"))
    return tmp_path / "layer.erofs"


def loops(config: Config) -> list[loop.LoopDevice]:
    """Devices of this test."""
    return [device for device in loop.attached() if config.state_dir in device.backing.parents]


def test_a_layer_is_mounted_once(config: Config, erofs: Path) -> None:
    """Read-only, without a loop device, also for many threads at once."""
    layers = Layers(config)
    got: list[Path] = []
    threads = [threading.Thread(target=lambda: got.append(layers.mount_layer(FIRST, erofs))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    target = config.run_dir / "layers" / ("1" * 64)
    assert got == [target] * 8
    assert (target / "hello").read_text() == "from the layer"
    with pytest.raises(OSError, match="Read-only"):
        (target / "hello").write_text("changed")
    entries = [entry for entry in mounts.table() if entry.target == target]
    assert len(entries) == 1
    assert {"ro", "nosuid", "nodev"} <= set(entries[0].options)
    layers.unmount(FIRST)
    layers.unmount(FIRST)
    assert not target.exists()


def test_a_restarted_daemon_finds_layers(config: Config, erofs: Path) -> None:
    """Mounted ones are used as they are; those that nobody knows go."""
    for diff_id in (FIRST, SECOND):
        Layers(config).mount_layer(diff_id, erofs)
    layers = Layers(config)
    assert (layers.mount_layer(FIRST, Path("/nonexistent")) / "hello").exists()
    assert layers.recover([FIRST]) == [f"layer {'2' * 64}"]
    assert layers.recover([FIRST]) == []
    layers.close([FIRST])
    assert mounts.is_mounted(config.run_dir / "layers" / ("1" * 64))
    layers.close([])
    assert not (config.run_dir / "layers" / ("1" * 64)).exists()
    assert (layers.mount_layer(FIRST, erofs) / "hello").exists()


def test_old_kernels_get_a_loop_device(config: Config, erofs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.12 the mount of a file answers ENOTBLK."""
    real = syscalls.mount

    def mount(source: Path | str | None, target: Path | str, kind: str = "", flags: int = 0, data: str = "") -> None:
        if kind == "erofs" and Path(str(source)).is_file():
            raise syscalls.CallError("mount", source, errno.ENOTBLK)
        real(source, target, kind, flags, data)

    monkeypatch.setattr(syscalls, "mount", mount)
    layers = Layers(config)
    target = layers.mount_layer(FIRST, erofs)
    assert (target / "hello").read_text() == "from the layer"
    device = loop.find(erofs)
    assert device is not None
    layers.unmount(FIRST)
    assert loop.wait_gone(device, timeout=5)


@pytest.mark.parametrize(
    "diff_id", ["sha256:../../x", "sha256:" + "1" * 63, "1" * 64, "sha512:" + "1" * 64, FIRST + "\n"]
)
def test_digests_do_not_lead_out(config: Config, erofs: Path, diff_id: str) -> None:
    """They become parts of paths."""
    with pytest.raises(HostError, match="no layer's digest"):
        Layers(config).mount_layer(diff_id, erofs)


def test_a_layer_that_is_none(config: Config, tmp_path: Path) -> None:
    """Missing or damaged: an error, and no mount point stays."""
    layers = Layers(config)
    with pytest.raises(NotFound, match="has no file"):
        layers.mount_layer(FIRST, tmp_path / "missing")
    (tmp_path / "damaged").write_bytes(os.urandom(8192))
    with pytest.raises(HostError, match="mount erofs"):
        layers.mount_layer(FIRST, tmp_path / "damaged")
    assert list((config.run_dir / "layers").iterdir()) == []


def test_life_of_a_volume(config: Config) -> None:
    """Data stays over detach, daemon and detach again; delete takes it."""
    volumes = Volumes(config)
    volumes.create("pg.data-1", SIZE)
    with pytest.raises(Conflict, match=r"volume pg\.data-1 is there already"):
        volumes.create("pg.data-1", SIZE)
    data = volumes.attach("pg.data-1")
    assert data == config.run_dir / "volumes" / "pg.data-1" / "data"
    status = data.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o755, 0, 0)
    (data / "x").write_text("kept")
    assert volumes.attach("pg.data-1") == data
    assert 0 < volumes.usage("pg.data-1")[1] <= SIZE
    assert volumes.device("pg.data-1") is not None
    for _ in range(2):
        volumes.detach("pg.data-1")
    assert loops(config) == []
    assert (Volumes(config).attach("pg.data-1") / "x").read_text() == "kept"
    for _ in range(2):
        volumes.delete("pg.data-1")
    assert loops(config) == []
    assert list(config.volumes_dir.iterdir()) == []
    with pytest.raises(NotFound, match="does not exist"):
        volumes.attach("pg.data-1")
    with pytest.raises(NotFound, match="not attached"):
        volumes.usage("pg.data-1")


def test_recovery_never_deletes_data(config: Config) -> None:
    """Unknown volumes are detached, unfinished files go, everything else stays."""
    volumes = Volumes(config)
    for name in ("known", "unknown"):
        volumes.create(name, SIZE)
        (volumes.attach(name) / "x").write_text(name)
    (config.volumes_dir / "half.img.new").write_text("")
    after = Volumes(config)
    assert after.recover(["known"]) == ["volume unknown", f"file {config.volumes_dir / 'half.img.new'}"]
    assert after.recover(["known"]) == []
    assert sorted(file.name for file in config.volumes_dir.iterdir()) == ["known.img", "unknown.img"]
    assert (after.attach("unknown") / "x").read_text() == "unknown"


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".", "..", "x\n", "-x"])
def test_volume_names_do_not_lead_out(config: Config, name: str) -> None:
    """They become parts of paths."""
    with pytest.raises(HostError, match="no volume's name"):
        Volumes(config).create(name, SIZE)
