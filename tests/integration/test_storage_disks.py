"""Disks on real loop devices and real ext4."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bulkhead.config import Config
from bulkhead.errors import Conflict, HostError, NotFound, Refused
from bulkhead.host import cgroups, loop, mounts, processes, syscalls
from bulkhead.storage import Disks, area, ext4
from tests.harness.abilities import require
from tests.harness.naming import make_config, temporary_directory
from tests.integration.lives import until

SIZE = 256 << 20
require_all = ("root", "mount namespaces", "loop devices", "cgroups")


@pytest.fixture
def config() -> Iterator[Config]:
    """Directories of this test alone."""
    require(*require_all)
    directory = temporary_directory()
    yield make_config(directory, disk_pool=2)
    shutil.rmtree(directory)


@pytest.fixture
def disks(config: Config) -> Iterator[Disks]:
    """Prepared, and closed at the end."""
    made = Disks(config)
    made.prepare()
    yield made
    made.recover(())
    made.close()


@pytest.fixture
def bundle(config: Config) -> Callable[[], tuple[str, Path]]:
    """Makes an instance's id and the path of its disk."""

    def make() -> tuple[str, Path]:
        instance_id = secrets.token_hex(16)
        directory = config.instances_dir / instance_id
        directory.mkdir(parents=True)
        return instance_id, directory / "disk.img"

    return make


Bundle = Callable[[], tuple[str, Path]]


def ours(config: Config) -> list[loop.LoopDevice]:
    """Loop devices with files of this test behind them."""
    return [device for device in loop.attached() if config.state_dir in device.backing.parents]


def test_life_of_a_disk(config: Config, disks: Disks, bundle: Bundle) -> None:
    """Created, written, detached, attached with its data, discarded; every verb may come twice."""
    instance_id, path = bundle()
    for _ in range(2):
        disks.create(instance_id, path, SIZE)
    assert path.stat().st_size == SIZE
    assert path.stat().st_blocks * 512 < 4 << 20
    for _ in range(2):
        target = disks.attach(instance_id, path)
    assert target == config.run_dir / "disks" / instance_id
    for name in ("upper", "work"):
        status = (target / name).stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o755, 0, 0)
    (target / "upper" / "data").write_bytes(b"x" * 3_000_000)
    used, total = disks.usage(instance_id)
    assert 3_000_000 < used < 4_000_000
    assert SIZE * 0.9 < total <= SIZE
    device = disks.device(instance_id)
    assert device is not None and [found.device for found in ours(config)] == [device]
    assert disks.transferred(instance_id)[1] < 1 << 20
    os.sync()
    assert 3_000_000 < disks.transferred(instance_id)[1] < 8_000_000
    for _ in range(2):
        disks.detach(instance_id)
    assert ours(config) == []
    assert disks.device(instance_id) is None
    assert disks.transferred(instance_id) == (0, 0)
    processes.run(("e2fsck", "-f", "-n", path))
    target = disks.attach(instance_id, path)
    assert (target / "upper" / "data").stat().st_size == 3_000_000
    assert disks.transferred(instance_id)[1] < 1 << 20
    for _ in range(2):
        disks.discard(instance_id, path)
    assert not path.exists()
    disks.settle()
    assert ours(config) == []
    assert not target.exists()


def test_the_size_is_hard(disks: Disks, bundle: Bundle) -> None:
    """ENOSPC at the plan's size; df tells of it; what is deleted gives its space back to the host."""
    instance_id, path = bundle()
    disks.create(instance_id, path, 32 << 20)
    file = disks.attach(instance_id, path) / "upper" / "big"
    with pytest.raises(OSError, match="No space left"), file.open("wb") as writer:
        for _ in range(64):
            writer.write(b"x" * (1 << 20))
            writer.flush()
            os.fsync(writer.fileno())
    used, total = disks.usage(instance_id)
    assert 0.9 * total < used < total < 32 << 20
    assert os.statvfs(file).f_bavail * 4096 < 1 << 20
    full = path.stat().st_blocks * 512
    assert full > 20 << 20
    file.unlink()

    def given_back() -> bool:
        """With the end of a transaction its blocks are discarded; on a busy host that takes its time."""
        syscalls.syncfs(file.parent)
        return path.stat().st_blocks * 512 < full / 2

    until("the space is the host's again", given_back)
    disks.discard(instance_id, path)


def test_existing_disk_of_another_size_is_a_conflict(disks: Disks, bundle: Bundle) -> None:
    """Nothing is overwritten."""
    instance_id, path = bundle()
    path.write_bytes(b"precious")
    with pytest.raises(Conflict, match="is there with 8, not 256M"):
        disks.create(instance_id, path, SIZE)
    assert path.read_bytes() == b"precious"
    path.unlink()
    with pytest.raises(NotFound, match=f"{instance_id} has no disk"):
        disks.attach(instance_id, path)
    with pytest.raises(NotFound, match="not attached"):
        disks.usage(instance_id)


@pytest.mark.parametrize("instance_id", ["../x", "", "a/b", "."])
def test_ids_do_not_lead_out(disks: Disks, tmp_path: Path, instance_id: str) -> None:
    """They become parts of paths."""
    with pytest.raises(HostError, match="no instance's id"):
        disks.attach(instance_id, tmp_path / "disk")


def test_a_damaged_disk_is_an_error_that_leaves_nothing(config: Config, disks: Disks, bundle: Bundle) -> None:
    """Not ext4 at all."""
    instance_id, path = bundle()
    with path.open("wb") as file:
        file.truncate(SIZE)
    with pytest.raises(HostError, match="mount ext4"):
        disks.attach(instance_id, path)
    assert ours(config) == []
    assert disks.device(instance_id) is None
    disks.discard(instance_id, path)


def test_a_link_in_place_of_a_disk_is_not_followed(disks: Disks, bundle: Bundle, tmp_path: Path) -> None:
    """Neither for use nor for deleting."""
    instance_id, path = bundle()
    (tmp_path / "other").write_bytes(b"\0" * SIZE)
    path.symlink_to(tmp_path / "other")
    with pytest.raises(HostError, match="ELOOP"):
        disks.attach(instance_id, path)
    with pytest.raises(OSError, match="symbolic links"):
        disks.discard(instance_id, path)
    assert (tmp_path / "other").stat().st_size == SIZE
    path.unlink()


def test_pool(config: Config, disks: Disks, bundle: Bundle) -> None:
    """Filled in the background, taken from, refilled; each disk is new and given out once."""
    disks.prefill(SIZE)
    disks.settle()
    assert len(ours(config)) == 2
    uuids, ids = set(), []
    for _ in range(5):
        instance_id, path = bundle()
        ids.append((instance_id, path))
        disks.create(instance_id, path, SIZE)
        assert {entry.name for entry in disks.attach(instance_id, path).iterdir()} == {"lost+found", "upper", "work"}
        assert loop.find(path) is not None
        uuids.add(processes.run(("blkid", "-p", "-o", "value", "-s", "UUID", path)))
    assert len(uuids) == 5
    disks.settle()
    assert disks.pool_problem is None
    assert len(ours(config)) == 7
    for instance_id, path in ids:
        disks.discard(instance_id, path)
    disks.close()
    assert ours(config) == []
    assert list((config.state_dir / "pool").iterdir()) == []
    assert not mounts.below(config.run_dir)


def test_many_threads(config: Config, disks: Disks, bundle: Bundle) -> None:
    """Eight at once, with and without the pool."""
    disks.prefill(SIZE)
    failures: list[BaseException] = []

    def live() -> None:
        try:
            for _ in range(4):
                instance_id, path = bundle()
                disks.create(instance_id, path, SIZE)
                (disks.attach(instance_id, path) / "upper" / "x").write_text(instance_id)
                disks.detach(instance_id)
                assert (disks.attach(instance_id, path) / "upper" / "x").read_text() == instance_id
                disks.discard(instance_id, path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=live) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    disks.settle()
    assert len(ours(config)) == 2


def test_growing(disks: Disks, bundle: Bundle) -> None:
    """Detached: always. In use: where the kernel lets us, else refused before anything changes. Never shrinking."""
    instance_id, path = bundle()
    disks.create(instance_id, path, SIZE)
    (disks.attach(instance_id, path) / "upper" / "x").write_text("kept")
    if syscalls.has_capability(24):
        disks.resize(instance_id, path, 2 * SIZE)
    else:
        with pytest.raises(Refused, match="CAP_SYS_RESOURCE"):
            disks.resize(instance_id, path, 2 * SIZE)
        assert path.stat().st_size == SIZE
        disks.detach(instance_id)
        disks.resize(instance_id, path, 2 * SIZE)
        disks.attach(instance_id, path)
    assert path.stat().st_size == 2 * SIZE
    assert disks.usage(instance_id)[1] > 1.8 * SIZE
    disks.resize(instance_id, path, 2 * SIZE)
    with pytest.raises(Refused, match="cannot shrink"):
        disks.resize(instance_id, path, SIZE)
    assert (disks.attach(instance_id, path) / "upper" / "x").read_text() == "kept"
    disks.detach(instance_id)
    processes.run(("e2fsck", "-f", "-n", path))
    disks.discard(instance_id, path)


def test_abandoned_disks_take_no_time_to_end(config: Config, disks: Disks, bundle: Bundle) -> None:
    """Throttled to 64 kB/s with 20 MB to write: nothing of it is written, and no limit stays behind."""
    instance_id, path = bundle()
    disks.create(instance_id, path, SIZE)
    target, device, layout = disks.attach(instance_id, path), disks.device(instance_id), cgroups.detect()
    assert device
    if layout.version("blkio") == 1:
        throttle = layout.path("blkio", "blkio.throttle.write_bps_device")
        throttle.write_text(f"{device[0]}:{device[1]} 65536")
        assert device in cgroups.throttled(layout)
    (target / "upper" / "dirty").write_bytes(b"x" * (20 << 20))
    (target / "upper" / "dirty").read_bytes()
    before = disks.counted(instance_id)
    assert before
    disks.abandon(instance_id)
    # Use is counted to the end, though the file system tells nothing any more; another process has not seen this.
    after = disks.counted(instance_id)
    assert after
    assert after.written >= before.written
    disks.abandon(instance_id)
    assert disks.counted(instance_id) == after
    assert Disks(config).counted(instance_id) is None
    assert device not in cgroups.throttled(layout)
    with pytest.raises(OSError, match="Input/output error"):
        (target / "upper" / "more").touch()
    disks.detach(instance_id)
    disks.abandon(instance_id)
    disks.discard(instance_id, path)
    disks.settle()


def test_limits_end_with_the_disk(config: Config, disks: Disks, bundle: Bundle) -> None:
    """Whoever gets the loop device next starts without: detach, discard and recovery take the limits away."""
    layout = cgroups.detect()
    if layout.version("blkio") != 1:
        pytest.fail("this test is for v1's blkio controller")

    def limit(instance_id: str) -> tuple[int, int]:
        device = disks.device(instance_id)
        assert device
        for name in cgroups.THROTTLE_FILES:
            file = layout.path("blkio", f"blkio.throttle.{name}_device")
            file.write_text(f"{device[0]}:{device[1]} 1000000")
        return device

    first, path = bundle()
    disks.create(first, path, SIZE)
    device = limit(first)
    disks.detach(first)
    assert device not in cgroups.throttled(layout)
    disks.attach(first, path)
    device = limit(first)
    assert disks.recover([]) == [f"disk of {first}"]
    assert device not in cgroups.throttled(layout)
    disks.attach(first, path)
    device = limit(first)
    disks.discard(first, path)
    disks.settle()
    assert device not in cgroups.throttled(layout)
    assert ours(config) == []


def test_copies_in_other_mount_namespaces_go_too(config: Config, disks: Disks, bundle: Bundle) -> None:
    """A service with mounts of its own, started meanwhile, has a copy of ours: it does not keep the device."""
    instance_id, path = bundle()
    disks.create(instance_id, path, SIZE)
    own = Path("/proc/self/ns/mnt").readlink()
    with ExitStack() as always:
        service = subprocess.Popen(["unshare", "-m", "sleep", "600"])
        always.callback(service.wait)
        always.callback(service.kill)
        seen = Path(f"/proc/{service.pid}/mountinfo")
        while Path(f"/proc/{service.pid}/ns/mnt").readlink() == own:
            time.sleep(0.001)
        assert instance_id in seen.read_text()
        disks.detach(instance_id)
        assert ours(config) == []
        assert instance_id not in seen.read_text()
    disks.discard(instance_id, path)


def test_a_process_in_a_disk_keeps_nothing_important(
    config: Config, disks: Disks, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the host's has its working directory in there: data is safe, attach joins, a discard frees the space."""
    monkeypatch.setattr(ext4, "_PATIENCE", 0.2)
    instance_id, path = bundle()
    disks.create(instance_id, path, SIZE)
    target = disks.attach(instance_id, path)
    (target / "upper" / "x").write_bytes(b"kept" * 500_000)
    with ExitStack() as always:
        visitor = subprocess.Popen(["sleep", "600"], cwd=target)
        always.callback(visitor.wait)
        always.callback(visitor.kill)
        disks.detach(instance_id)
        (kept,) = ours(config)
        assert b"kept" in path.read_bytes()
        assert (disks.attach(instance_id, path) / "upper" / "x").read_bytes() == b"kept" * 500_000
        assert ours(config) == [kept]
        with path.open("rb") as file:
            disks.detach(instance_id)
            with pytest.raises(HostError, match="still attached"):
                disks.resize(instance_id, path, 2 * SIZE)
            disks.discard(instance_id, path)
            with pytest.raises(HostError, match="stays attached"):
                disks.settle()
            assert os.fstat(file.fileno()).st_blocks == 0
    assert loop.wait_gone(kept, timeout=5)


def test_recovery_lets_go_of_what_nobody_knows(config: Config, disks: Disks, bundle: Bundle) -> None:
    """Disks of unknown instances, the pool, unfinished files. Known disks and all data stay."""
    known, known_path = bundle()
    lost, lost_path = bundle()
    for instance_id, path in ((known, known_path), (lost, lost_path)):
        disks.create(instance_id, path, SIZE)
        (disks.attach(instance_id, path) / "upper" / "x").write_text("data")
    (known_path.parent / "disk.img.new").write_text("half")
    after = Disks(config)
    after.prepare()
    found = after.recover([known])
    assert found == [f"disk of {lost}", f"file {known_path.parent / 'disk.img.new'}"]
    assert [device.backing for device in ours(config)] == [known_path]
    assert (after.attach(lost, lost_path) / "upper" / "x").read_text() == "data"
    assert after.recover([known, lost]) == []
    for instance_id, path in ((known, known_path), (lost, lost_path)):
        after.discard(instance_id, path)
    after.close()


def test_recovery_tells_of_a_disk_of_the_pool_once(config: Config, disks: Disks) -> None:
    """It is a mount, a loop device and a file: any of them may be what is left."""
    disks.prefill(SIZE)
    disks.settle()
    names = sorted(file.stem for file in (config.state_dir / "pool").glob("*.img"))
    assert names
    after = Disks(config)
    after.prepare()
    assert sorted(after.recover([])) == [f"pool disk {name}" for name in names]
    assert after.recover([]) == []
    after.close()


CRASH = """
    import os, sys
    from pathlib import Path
    from bulkhead.config import Config
    from bulkhead.storage import Disks
    from bulkhead.storage import disks as module
    text, instance_id, file, point = sys.argv[1:]
    config, path = Config.model_validate_json(text), Path(file)
    disks = Disks(config)
    disks.prepare()
    disks.prefill({size})
    disks.settle()
    def die(*args, **kwargs):
        os.kill(os.getpid(), 9)
    if point == "renamed":
        module.syscalls.mount = die
    if point == "moved":
        module.area.remove_mount_point = die
    disks.create(instance_id, path, {size})
    (disks.attach(instance_id, path) / "upper" / "x").write_text("data")
    if point == "reaping":
        disks._reaper.submit = die
    if point == "created":
        die()
    disks.discard(instance_id, path)
"""


@pytest.mark.parametrize("point", ["renamed", "moved", "created", "reaping"])
def test_killed_at_any_point(config: Config, disks: Disks, bundle: Bundle, point: str) -> None:
    """One recovery pass later nothing is left but the known disk, whole."""
    instance_id, path = bundle()
    code = textwrap.dedent(CRASH.replace("{size}", str(SIZE)))
    argv = [sys.executable, "-c", code, config.model_dump_json(), instance_id, str(path), point]
    assert subprocess.run(argv, check=False).returncode == -9
    assert ours(config)
    known = [] if point == "reaping" else [instance_id]
    assert disks.recover(known)
    assert [device.backing for device in ours(config)] == ([path] if point in ("moved", "created") else [])
    assert path.exists() is (point != "reaping")
    if path.exists():
        target = disks.attach(instance_id, path)
        assert (target / "upper" / "x").exists() is (point == "created")
        disks.detach(instance_id)
        processes.run(("e2fsck", "-f", "-n", path))
    disks.discard(instance_id, path)
    disks.settle()
    assert ours(config) == []
    for name in ("pool", "disks"):
        assert list((config.run_dir / name).iterdir()) == []
    assert list((config.state_dir / "pool").iterdir()) == []


def test_a_full_host_is_told_of(config: Config, bundle: Bundle) -> None:
    """No space for the state directory: an error with the size, nothing attached, and the pool says why it is empty."""
    config.state_dir.mkdir(parents=True)
    with ExitStack() as always:
        syscalls.mount("tmpfs", config.state_dir, "tmpfs", data="size=1m")
        always.callback(syscalls.umount2, config.state_dir, syscalls.MNT_DETACH)
        instance_id, path = bundle()
        with pytest.raises(OSError, match="No space left"):
            (config.state_dir / "full").write_bytes(b"x" * (2 << 20))
        full = Disks(config)
        full.prepare()
        with pytest.raises(HostError):
            full.create(instance_id, path, SIZE)
        full.prefill(SIZE)
        full.settle()
        assert full.pool_problem is not None
        assert ours(config) == []
        full.close()


def test_direct_io_is_used_or_the_reason_told(config: Config, disks: Disks) -> None:
    """On a file system without it a disk works all the same."""
    works, reason = disks.probe_direct_io()
    assert works is not bool(reason)
    assert list((config.state_dir / "pool").iterdir()) == []


def test_areas_are_private_and_removed_when_empty(config: Config, disks: Disks, bundle: Bundle) -> None:
    """Mounts below them reach nobody else."""
    disks.prepare()
    entries = {entry.target.name: entry for entry in mounts.below(config.run_dir)}
    assert set(entries) == set(area.NAMES)
    assert all(entry.propagation == () for entry in entries.values())
    instance_id, path = bundle()
    disks.create(instance_id, path, SIZE)
    disks.close()
    assert {entry.target.name for entry in mounts.below(config.run_dir)} == {"disks", instance_id}
    after = Disks(config)
    after.discard(instance_id, path)
    after.close()
    assert mounts.below(config.run_dir) == []
