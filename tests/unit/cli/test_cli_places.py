"""Where the daemon is, as the command line and as the daemon see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead import config
from bulkhead.cli import places
from bulkhead.errors import Refused


def test_defaults_are_the_daemon_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert str(config.DEFAULT_FILE) == places.DEFAULT_FILE
    monkeypatch.setattr(places, "DEFAULT_FILE", str(tmp_path / "none"))
    monkeypatch.delenv("BULKHEAD_CONFIG", raising=False)
    found = places.find_places(None)
    assert found == places.Places(str(config.Config().socket_path), str(config.Config().run_dir), "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n\n",
        'run_dir = "/run/other"\n',
        'run_dir="/run/other" # a comment\n',
        'socket = "/run/a b.sock"\nrun_dir = "/run/other"\nlog_files = 3\nhost_ghz = 2.5\n',
        "socket = '/run/single.sock'\n",
        'socket = "/run/tab\\t.sock"\n',
        'socket = """/run/multi\nline.sock"""\n',
        'disk_pool = 2\nsubnet_pool4 = "10.1.0.0/16"\n',
    ],
)
def test_every_file_is_read_as_the_daemon_reads_it(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    loaded = config.load(file)
    monkeypatch.setenv("BULKHEAD_CONFIG", str(file))
    found = places.find_places(None)
    assert (found.socket, found.run_dir, found.file) == (str(loaded.socket_path), str(loaded.run_dir), str(file))
    monkeypatch.setenv("BULKHEAD_CONFIG", str(tmp_path / "other"))
    assert places.find_places(str(file)) == found


@pytest.mark.parametrize("text", ["x", "[", "run_dir = ", 'run_dir = "', b"\xff"])
def test_broken_files(text: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Refused, match="configuration"):
        places.find_places(str(file))
    with pytest.raises(Refused, match="No such file"):
        places.find_places(str(tmp_path / "none"))


def test_a_relative_file_is_found_by_the_daemon_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert places.find_places("c.toml").file == str(tmp_path / "c.toml")
