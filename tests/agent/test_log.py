"""The log: its format, its rotation, and that nothing waits for it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.agent.box import Box, command
from tests.agent.wire import Result

LINE = re.compile(rb"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] .*$")


def text(box: Box, name: str = "log") -> bytes:
    return (box.bundle / name).read_bytes()


def joined(*logs: bytes) -> bytes:
    """What was written, as the entries tell."""
    out = b""
    for line in b"".join(logs).split(b"\n")[:-1]:
        assert LINE.match(line), line
        _, _, tag, rest = line.split(b" ", 3)
        out += rest + (b"\n" if tag == b"F" else b"")
    return out


def test_lines_of_every_length(box: Box) -> None:
    script = r"""
        printf 'one\n\ntwo\r\n'; head -c 50000 /dev/zero | tr '\0' x; printf '\nbytes \001\377\n'; printf 'no end'
    """
    _, out, _ = box.sh(script)
    assert joined(text(box)) == out
    assert out.endswith(b"no end")
    assert len(out) > 50000


def test_stdout_and_stderr_are_told_apart(box: Box) -> None:
    box.sh("echo out; sleep 0.05; echo err >&2; sleep 0.05; echo out again")
    assert box.agent.log() == [("stdout", "F", "out"), ("stderr", "F", "err"), ("stdout", "F", "out again")]


def test_rotation(box: Box) -> None:
    box.sh("seq 1 5000", log_size=20000, log_files=3)
    sizes = [len(text(box, name)) for name in ("log", "log.1", "log.2")]
    assert not (box.bundle / "log.3").exists()
    assert all(20000 <= size < 60000 for size in sizes[1:])
    numbers = [int(line) for line in joined(text(box, "log.2"), text(box, "log.1"), text(box)).split()]
    assert numbers == list(range(numbers[0], 5001))


def test_one_file_begins_again(box: Box) -> None:
    box.sh("seq 1 5000", log_size=20000, log_files=1)
    assert not (box.bundle / "log.1").exists()
    assert len(text(box)) < 60000
    assert joined(text(box)).split()[-1] == b"5000"


def test_no_log_at_all(box: Box) -> None:
    assert box.sh("echo x", log_files=0)[1] == b"x\n"
    assert not (box.bundle / "log").exists()


def test_a_restarted_instance_continues_its_log(box: Box) -> None:
    box.sh("echo first")
    box.agent.socket.unlink()
    box.sh("echo second")
    assert [entry[2] for entry in box.agent.log()] == ["first", "second"]


def test_execs_are_not_logged(box: Box) -> None:
    connection = box.launch()
    connection.start(box.request("sleep", "1000"))
    assert connection.exec(command("echo", "hello")).out == b"hello\n"
    assert text(box) == b""


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_something_else_in_the_logs_place(box: Box, kind: str, tmp_path: Path) -> None:
    path = box.bundle / "log"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        subprocess.run(["mkfifo", path], check=True)
    assert box.sh("echo x")[:2] == (0, b"x\n")
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture
def full_disk(box: Box) -> Iterator[Box]:
    """A box whose bundle is a tmpfs of 64 KiB, in the test run's own mount namespace."""
    layer = box.layer
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", box.bundle], check=True)
    for name in ("disk/upper", "disk/work", "stage"):
        (box.bundle / name).mkdir(parents=True)
    yield Box(box.bundle, layer, box.agent, [layer])
    box.agent.end()
    subprocess.run(["umount", box.bundle], check=True)


def test_a_full_disk_stops_the_log_and_nothing_else(full_disk: Box) -> None:
    box = full_disk
    connection = box.launch()
    stream = connection.attach()
    connection.start(box.request("sh", "-c", "seq 1 20000; echo end; exit 3"))
    result = connection.collect(stream)
    assert result == Result(3, 0, b"".join(b"%d\n" % number for number in range(1, 20001)) + b"end\n")
    joined(text(box))
    entries = [("", "F", ""), *box.agent.log()]
    whole = [last[2] for before, last in pairwise(entries) if before[1] == last[1] == "F" and last[2] != "end"]
    numbers = [int(line) for line in whole]
    assert 100 < len(numbers) < 20000
    assert numbers == sorted(numbers), "whole entries, none torn"
