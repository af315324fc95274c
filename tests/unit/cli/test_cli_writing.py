"""Files that a command writes are there whole, or as they were; what is no file stays what it is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from bulkhead.cli.writing import is_no_file, written


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with written(str(path)) as file:
        file.write(b"one")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), written(str(path)) as file:
        file.write(b"two")
        raise ZeroDivisionError
    assert path.read_bytes() == b"one"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with written(str(pipe)) as file:
        file.write(b"through")
    reader.join(60)
    assert read == [b"through"]
    assert pipe.is_fifo()
    assert is_no_file(str(pipe))
    assert not is_no_file(str(tmp_path))
    assert not is_no_file(str(tmp_path / "missing"))
