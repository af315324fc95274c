"""Processes that are looked at from outside."""

from __future__ import annotations

import math
import subprocess

import pytest

from bulkhead.host import processes


@pytest.mark.parametrize(("limit", "may", "may_not"), [("4096:8192", 8192, 8193), ("unlimited", 1 << 60, None)])
def test_how_large_a_process_may_write_files(
    limit: str, may: int, may_not: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hard limit counts; read without any right over the process."""
    monkeypatch.setattr("bulkhead.host.processes.syscalls.has_capability", lambda _: False)
    argv = ["prlimit", f"--fsize={limit}", "sh", "-c", "echo; exec sleep 60"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline()
        assert processes.can_write(process.pid, may)
        assert may_not is None or not processes.can_write(process.pid, may_not)
    finally:
        process.kill()
        process.communicate()
    assert processes.can_write(process.pid, 1 << 60), "one that has ended is held back by nothing"


def test_no_limit_is_no_number() -> None:
    assert processes._file_size(1 << 30) == math.inf
