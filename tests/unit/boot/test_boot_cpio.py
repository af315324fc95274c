"""Archives for the kernel."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from bulkhead.boot import cpio, initrd
from tests.unit.boot.kernel_parts import read_cpio


def test_what_is_written_can_be_read() -> None:
    entries = [cpio.directory("lib"), cpio.file("lib/a", b"12345"), cpio.file("init", b"x" * 4096, 0o755)]
    made = cpio.archive(entries)
    assert len(made) % 4 == 0
    assert read_cpio(made) == [
        ("lib", stat.S_IFDIR | 0o755, b""),
        ("lib/a", stat.S_IFREG | 0o644, b"12345"),
        ("init", stat.S_IFREG | 0o755, b"x" * 4096),
    ]


def test_the_same_entries_give_the_same_bytes() -> None:
    assert cpio.archive([cpio.file("a", b"1")]) == cpio.archive([cpio.file("a", b"1")])


@pytest.mark.parametrize("path", ["", "/etc", "a/../b", "a//b", "./a", "TRAILER!!!", "a\0b", "x" * 5000])
def test_wrong_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"archive|cpio"):
        cpio.archive([cpio.file(path, b"")])


def test_the_initrd_is_the_agent_and_then_the_modules(tmp_path: Path) -> None:
    modules, agent, cache = tmp_path / "modules", tmp_path / "agent", tmp_path / "cache"
    modules.write_bytes(cpio.archive([cpio.directory("lib"), cpio.file("modules", b"/lib/a.ko\n")]))
    agent.write_bytes(b"first")
    digest = "sha256:" + hashlib.sha256(modules.read_bytes()).hexdigest()
    made = initrd.prepare(modules, digest=digest, agent=agent, cache=cache)
    found = {path: (mode, data) for path, mode, data in read_cpio(made.read_bytes())}
    assert found["init"] == (stat.S_IFREG | 0o755, b"first")
    assert found["modules"][1] == b"/lib/a.ko\n"
    assert {"dev", "proc", "run", "sys", "lib"} <= found.keys()

    stamp = made.stat().st_mtime_ns
    assert initrd.prepare(modules, digest=digest, agent=agent, cache=cache) == made
    assert made.stat().st_mtime_ns == stamp

    (cache / "initrd" / "draft").write_bytes(b"left by a crash")
    agent.write_bytes(b"second")
    again = initrd.prepare(modules, digest=digest, agent=agent, cache=cache)
    assert again != made
    assert sorted(path.name for path in (cache / "initrd").iterdir()) == [again.name, "lock"]
