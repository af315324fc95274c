"""Operations/s and bytes/s of an instance's disk: whatever way they come, and nothing left behind.

See docs/design/0002 for why the limits are where they are.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bulkhead.config import Config
from bulkhead.host import cgroups, facts, loop
from bulkhead.model import Plan
from bulkhead.storage import Disks
from tests.harness.abilities import require
from tests.harness.naming import make_config, temporary_directory
from tests.integration.limited import Limited, only_on

BPS, IOPS = 4 << 20, 200
PLAN = Plan(memory=256 << 20, cpus=1, disk=256 << 20)
SECONDS = 1.5

COMMON = """
import mmap, os, sys, time
path, size = sys.argv[1], int(sys.argv[2])
block = mmap.mmap(-1, size)
block.write(os.urandom(size))
end = time.monotonic() + float(sys.argv[3])
position = 0
def step():
    global position
    position = (position + size) % (32 << 20)
    return position
"""
DIRECT_WRITE = """
f = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT)
while time.monotonic() < end: os.pwrite(f, block, step())
"""
DIRECT_READ = """
f = os.open(path, os.O_RDONLY | os.O_DIRECT)
while time.monotonic() < end: os.preadv(f, [block], step())
"""
BUFFERED_WRITE = """
f = os.open(path, os.O_CREAT | os.O_RDWR)
while time.monotonic() < end:
    os.pwrite(f, block, step())
    os.fsync(f)
"""
MAPPED_WRITE = """
f = os.open(path, os.O_CREAT | os.O_RDWR)
os.ftruncate(f, 33 << 20)
area = mmap.mmap(f, 33 << 20)
while time.monotonic() < end:
    area[step():position + size] = block[:]
    area.flush()
"""
BUFFERED_READ = """
f = os.open(path, os.O_RDONLY)
while time.monotonic() < end:
    os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
    os.pread(f, size, step())
"""


@pytest.fixture
def config() -> Iterator[Config]:
    """Directories and cgroups of this test alone."""
    require("root", "mount namespaces", "loop devices", "cgroups")
    directory = temporary_directory()
    yield make_config(directory, disk_pool=0)
    shutil.rmtree(directory)


@pytest.fixture
def disk(config: Config) -> Iterator[tuple[Path, tuple[int, int]]]:
    """A disk with a file of 33 MB: where it is mounted, and its device."""
    disks = Disks(config)
    disks.prepare()
    instance_id = secrets.token_hex(16)
    path = config.instances_dir / instance_id / "disk.img"
    path.parent.mkdir(parents=True)
    disks.create(instance_id, path, PLAN.disk)
    target, device = disks.attach(instance_id, path), disks.device(instance_id)
    (target / "upper" / "file").write_bytes(b"x" * (33 << 20))
    disks.detach(instance_id)  # nothing of it stays in memory
    target, device = disks.attach(instance_id, path), disks.device(instance_id)
    assert device
    yield target / "upper" / "file", device
    disks.discard(instance_id, path)
    disks.close()


def limited(config: Config, device: tuple[int, int], plan: Plan, undo: ExitStack) -> Limited:
    """An instance's cgroups, prepared, and gone in the end."""
    layout = cgroups.detect()
    made = Limited(plan, config.cgroup, layout, facts.facts(config), device=device)
    undo.callback(cgroups.remove, layout, config.cgroup)
    undo.callback(cgroups.kill_and_remove, layout, config.cgroup, made.id)
    made.prepare()
    return made


def measure(instance: Limited, code: str, file: Path, size: int, **how: list[str]) -> tuple[loop.Transferred, float]:
    """What the device transferred while code ran in the instance, and in how many seconds."""
    assert instance.device
    before, began = loop.transferred(instance.device), time.monotonic()
    status, _ = instance.run(COMMON + code, str(file), str(size), str(SECONDS), **how)
    assert status == 0
    return loop.transferred(instance.device) - before, time.monotonic() - began


@pytest.mark.parametrize("code", [DIRECT_WRITE, BUFFERED_WRITE, MAPPED_WRITE, DIRECT_READ, BUFFERED_READ])
def test_bytes(config: Config, disk: tuple[Path, tuple[int, int]], code: str) -> None:
    """Each way on its own, whoever writes back."""
    file, device = disk
    with ExitStack() as undo:
        instance = limited(config, device, PLAN.model_copy(update={"disk_bps": BPS}), undo)
        moved, seconds = measure(instance, code, file, 64 << 10)
        most = BPS * seconds * 1.05 + (1 << 20)
        assert moved.read + moved.written > 0
        assert moved.read <= most
        assert moved.written <= most
        instance.finish()


@pytest.mark.parametrize("code", [DIRECT_WRITE, BUFFERED_WRITE, DIRECT_READ])
def test_operations(config: Config, disk: tuple[Path, tuple[int, int]], code: str) -> None:
    """However small they are."""
    file, device = disk
    with ExitStack() as undo:
        instance = limited(config, device, PLAN.model_copy(update={"iops": IOPS}), undo)
        moved, seconds = measure(instance, code, file, 4096)
        most = IOPS * seconds * 1.05 + 32
        assert moved.reads + moved.writes > 0
        assert moved.reads <= most
        # With v2 the limit is the group's, and the journal's thread is in none: two writes more with each fsync.
        journaled = instance.layout.version("blkio") != 1 and code is BUFFERED_WRITE
        assert moved.writes <= most * (3 if journaled else 1)
        instance.finish()


def test_a_group_of_the_daemon_is_no_way_out(config: Config, disk: tuple[Path, tuple[int, int]]) -> None:
    """Where a service manager has put the daemon into a blkio group, the instance leaves that."""
    file, device = disk
    with ExitStack() as undo:
        instance = limited(config, device, PLAN.model_copy(update={"disk_bps": BPS}), undo)
        only_on(instance.layout, "blkio", 1)
        service = instance.layout.path("blkio", f"{config.cgroup}-service")
        service.mkdir()
        undo.callback(service.rmdir)
        moved, seconds = measure(instance, DIRECT_WRITE, file, 64 << 10, enter=[str(service / "tasks")])
        assert 0 < moved.written <= BPS * seconds * 1.05 + (1 << 20)
        instance.finish()


def test_updates_and_the_end(config: Config, disk: tuple[Path, tuple[int, int]]) -> None:
    """Limits come, change and go while it runs; the end leaves none."""
    _file, device = disk
    key = f"{device[0]}:{device[1]}"
    bound = cgroups.DIRTY_PAGES / key / "strict_limit"

    def entries() -> list[str]:
        texts = [layout.path("blkio", f"blkio.throttle.{name}_device").read_text() for name in cgroups.THROTTLE_FILES]
        return [line.split()[1] for text in texts for line in text.splitlines() if line.startswith(f"{key} ")]

    with ExitStack() as undo:
        instance = limited(config, device, PLAN, undo)
        layout = instance.layout
        only_on(layout, "blkio", 1)
        assert entries() == []
        instance.change(PLAN.model_copy(update={"disk_bps": BPS}))
        assert entries() == [str(BPS)] * 2
        instance.change(PLAN.model_copy(update={"disk_bps": 2 * BPS, "iops": IOPS}))
        assert entries() == [str(2 * BPS)] * 2 + [str(IOPS)] * 2
        if bound.exists():
            assert bound.read_text() == "1\n"
        instance.change(PLAN)
        assert entries() == []
        if bound.exists():
            assert bound.read_text() == "0\n"
        instance.change(PLAN.model_copy(update={"disk_bps": BPS, "iops": IOPS}))
        assert len(entries()) == 4
        instance.finish()
        assert entries() == []
        if bound.exists():
            assert bound.read_text() == "0\n"


def test_updates_and_the_end_of_v2(config: Config, disk: tuple[Path, tuple[int, int]]) -> None:
    """The instance's own group has them, so they go with it; what is not limited is not written."""
    _file, device = disk
    key = f"{device[0]}:{device[1]}"

    def told(instance: Limited) -> dict[str, str]:
        lines = instance.read("io", "io.max").splitlines()
        return dict(word.split("=") for line in lines if line.startswith(f"{key} ") for word in line.split()[1:])

    with ExitStack() as undo:
        instance = limited(config, device, PLAN, undo)
        only_on(instance.layout, "io", 2)
        assert told(instance) == {}
        instance.change(PLAN.model_copy(update={"disk_bps": BPS}))
        assert told(instance) == {"rbps": str(BPS), "wbps": str(BPS), "riops": "max", "wiops": "max"}
        instance.change(PLAN.model_copy(update={"disk_bps": 2 * BPS, "iops": IOPS}))
        assert told(instance) == {"rbps": str(2 * BPS), "wbps": str(2 * BPS), "riops": str(IOPS), "wiops": str(IOPS)}
        instance.change(PLAN)
        assert told(instance) == {}
        instance.finish()
        assert cgroups.list_instances(instance.layout, config.cgroup) == []


def test_little_waits_in_memory(config: Config, disk: tuple[Path, tuple[int, int]]) -> None:
    """A throttled writer is held back early, so that the end of its instance is not minutes of writing away."""
    file, device = disk
    with ExitStack() as undo:
        instance = limited(config, device, PLAN.model_copy(update={"disk_bps": BPS}), undo)
        if not (cgroups.DIRTY_PAGES / f"{device[0]}:{device[1]}" / "strict_limit").exists():
            pytest.skip("for Linux 6.2 and later: this kernel cannot bound the dirty pages of a device")
        code = COMMON + "f = os.open(path, os.O_RDWR)\nwhile time.monotonic() < end: os.pwrite(f, block, step())"
        code += "\nprint(open('/proc/self/io').read())"
        status, output = instance.run(code, str(file), str(1 << 20), str(SECONDS))
        assert status == 0
        written = int(output.split("wchar: ")[1].split()[0])
        assert written < BPS * (SECONDS + 4) * 2
        instance.finish()
