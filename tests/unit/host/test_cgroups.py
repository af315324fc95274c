"""Layouts of hierarchies, from mount tables and directories of files that stand in for the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.errors import HostError
from bulkhead.host import cgroups, mounts


def entry(target: Path, kind: str, options: str, root: str = "/") -> mounts.MountEntry:
    """A mount of a hierarchy."""
    line = f"30 24 0:30 {root} {target} rw,relatime - {kind} {kind} {options}"
    return mounts.parse(line)[0]


def tree(directory: Path, *files: str) -> Path:
    """A hierarchy's mount point with empty files in it."""
    directory.mkdir(parents=True)
    for name in files:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).touch()
    return directory


def test_v1_with_two_controllers_in_one_tree(tmp_path: Path) -> None:
    """cpu and cpuacct are often mounted together."""
    both = tree(tmp_path / "cpu,cpuacct", "cpu.cfs_quota_us")
    memory = tree(tmp_path / "memory", "memory.max_usage_in_bytes")
    layout = cgroups.layout_of(
        [entry(both, "cgroup", "rw,cpu,cpuacct"), entry(memory, "cgroup", "rw,memory"), entry(memory, "ext4", "rw")]
    )
    assert layout.kind == "v1"
    assert layout.v1 == {"cpu": both, "cpuacct": both, "memory": memory}
    assert layout.trees == (both, memory)
    assert layout.abilities == {"cpu.quota", "memory.peak"}
    assert layout.path("cpuacct", "bulkhead/x") == both / "bulkhead/x"
    assert (layout.version("memory"), layout.version("pids")) == (1, 0)


def test_hybrid(tmp_path: Path) -> None:
    """v1 controllers beside a v2 tree that has others."""
    memory = tree(tmp_path / "memory", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes")
    unified = tree(tmp_path / "unified")
    (unified / "cgroup.controllers").write_text("hugetlb io\n")
    layout = cgroups.layout_of([entry(memory, "cgroup", "rw,memory"), entry(unified, "cgroup2", "rw")])
    assert layout.kind == "hybrid"
    assert (layout.version("memory"), layout.version("io")) == (1, 2)
    assert layout.path("io", "a") == unified / "a"
    assert layout.abilities == {"memory.swap", "memory.peak", "io.max"}


def test_v2_shows_its_files_in_groups_alone(tmp_path: Path) -> None:
    """What no group can be asked for is what every kernel of the last years has."""
    unified = tree(tmp_path / "v2")
    (unified / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    mounted = [entry(unified, "cgroup2", "rw,nsdelegate")]
    assert cgroups.layout_of(mounted).kind == "v2"
    assert cgroups.layout_of(mounted).abilities == {"memory.swap", "memory.peak", "cpu.quota", "io.max"}
    for name in ("memory.max", "cpu.weight", "io.stat", "memory.peak"):
        (unified / "system.slice").mkdir(exist_ok=True)
        (unified / "system.slice" / name).touch()
    assert cgroups.layout_of(mounted).abilities == {"memory.peak"}


def test_part_of_a_hierarchy_does_not_count(tmp_path: Path) -> None:
    """A bind of a group, as containers have it, is not the tree."""
    with pytest.raises(HostError, match="no cgroup controllers"):
        cgroups.layout_of([entry(tmp_path, "cgroup", "rw,memory", root="/docker/x")])


def test_missing_controller_is_an_error() -> None:
    """The caller should have asked for the version."""
    with pytest.raises(HostError, match="'pids'"):
        cgroups.Layout("v2", unified=Path("/x")).path("pids", "y")


def test_lists_ours_in_any_tree(tmp_path: Path) -> None:
    """A crash may have left a group in some trees only."""
    one, two = tmp_path / "a", tmp_path / "b"
    (one / "ours" / "first").mkdir(parents=True)
    (two / "ours" / "second").mkdir(parents=True)
    (two / "ours" / "tasks").touch()
    layout = cgroups.Layout("v1", {"memory": one, "pids": two})
    assert cgroups.list_instances(layout, "ours") == ["first", "second"]
    assert cgroups.list_instances(layout, "theirs") == []


def test_clears_only_the_device_it_is_asked_for(tmp_path: Path) -> None:
    """7:1 is not 7:11, and a device without a limit is not written."""
    blkio = tree(tmp_path / "blkio")
    for name in cgroups.THROTTLE_FILES:
        (blkio / f"blkio.throttle.{name}_device").write_text("7:11 5\n" if name == "read_bps" else "7:1 9\n7:11 5\n")
    layout = cgroups.Layout("v1", {"blkio": blkio}, abilities=frozenset({"blkio.throttle"}))
    assert cgroups.throttled(layout) == {(7, 1), (7, 11)}
    cgroups.clear_throttles(layout, (7, 1))
    texts = [(blkio / f"blkio.throttle.{name}_device").read_text() for name in cgroups.THROTTLE_FILES]
    assert texts == ["7:11 5\n"] + ["7:1 0\n7:11 5\n"] * 3


def test_freezing_with_v2(tmp_path: Path) -> None:
    """cgroup.freeze is written, cgroup.events tells; what does not freeze goes on."""
    (tmp_path / "b").mkdir()
    group = tree(tmp_path / "b/x", "cgroup.freeze", "cgroup.events")
    layout = cgroups.Layout("v2", unified=tmp_path, v2=frozenset({"pids"}))
    (group / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    cgroups.freeze(layout, "b/x")
    assert (group / "cgroup.freeze").read_text() == "1"
    cgroups.thaw(layout, "b/x")
    assert (group / "cgroup.freeze").read_text() == "0"
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with pytest.raises(HostError, match="not frozen after"):
        cgroups.freeze(layout, "b/x", timeout=0)
    assert (group / "cgroup.freeze").read_text().endswith("0")
    cgroups.thaw(layout, "b/gone")
    with pytest.raises(HostError, match="cannot be frozen"):
        cgroups.freeze(layout, "b/gone")


def test_hosts_that_cannot_freeze(tmp_path: Path) -> None:
    layout = cgroups.Layout("v1", v1={"pids": tmp_path})
    cgroups.thaw(layout, "b/x")
    with pytest.raises(HostError, match="no freezer"):
        cgroups.freeze(layout, "b/x")
