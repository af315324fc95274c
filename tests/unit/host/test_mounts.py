"""The mount table's text."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.host import mounts, syscalls

TABLE = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:7 - ext3 /dev/root\134x rw,errors=continue
41 22 0:55 / /weird\012name rw propagate_from:2 - tmpfs  rw
"""


def test_parses_every_field() -> None:
    """Optional fields of any number, escapes, an empty source."""
    proc, second, third = mounts.parse(TABLE)
    assert (proc.id, proc.parent, proc.kind, proc.device, proc.propagation) == (22, 27, "proc", (0, 21), ())
    assert second.target == Path("/mnt 2")
    assert second.root == "/mnt1"
    assert second.device == (98, 0)
    assert second.propagation == ("master:1", "shared:7")
    assert second.source == "/dev/root\\x"
    assert second.super_options == ("rw", "errors=continue")
    assert (third.target, third.source, third.super_options) == (Path("/weird\nname"), "", ("rw",))


def test_own_table_has_the_root() -> None:
    """What the kernel writes parses."""
    assert any(entry.target == Path("/") for entry in mounts.table())
    assert mounts.is_mounted(Path("/proc"))


def test_below_is_innermost_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order to unmount in."""
    lines = [f"{n} 1 0:{n} / {path} rw - tmpfs t rw" for n, path in enumerate(("/", "/a", "/a/b", "/ab", "/a/b"))]
    monkeypatch.setattr(mounts, "table", lambda: mounts.parse("\n".join(lines)))
    assert [entry.id for entry in mounts.below(Path("/a"))] == [4, 2, 1]


def test_device_at_nothing(tmp_path: Path) -> None:
    """A plain directory and a missing one have no device of their own."""
    assert mounts.device_at(tmp_path) is None
    assert mounts.device_at(tmp_path / "missing") is None


def test_unmount_of_nothing_is_fine(tmp_path: Path) -> None:
    """Idempotent."""
    assert mounts.unmount(tmp_path / "missing") is False


def test_error_names_call_path_and_reason(tmp_path: Path) -> None:
    """What failed, with the value."""
    with pytest.raises(syscalls.CallError, match=r"mount nofs x at .*: (ENODEV|EPERM): ") as caught:
        syscalls.mount("x", tmp_path, "nofs")
    assert caught.value.errno in (1, 19)
    assert caught.value.kind == "host"
