"""What a warm guest rehearses with."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bulkhead.boot import rehearsal
from tests.harness.abilities import require


def test_the_program_ends_at_once(tmp_path: Path) -> None:
    program = tmp_path / "true"
    program.write_bytes(rehearsal.executable())
    program.chmod(0o755)
    assert subprocess.run([program], check=False).returncode == 0
    assert program.stat().st_size < 4096


def test_the_layer_is_made_once(tmp_path: Path) -> None:
    require("mkfs.erofs")
    made = rehearsal.layer(tmp_path)
    before = made.stat()
    assert rehearsal.layer(tmp_path).stat() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rehearsal.erofs", "rehearsal.lock"]
