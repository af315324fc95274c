"""What the tests of builds share."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.daemon import Daemon


def context(directory: Path, containerfile: str, **files: str) -> Path:
    """A directory with a Containerfile and text files; `__` in a name is a slash."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Containerfile").write_text(containerfile)
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def build(daemon: Daemon, directory: Path, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`bulkhead build OPTIONS DIRECTORY`."""
    return daemon.cli("build", *options, directory, check=check)


def run(daemon: Daemon, image: str, *command: str) -> str:
    """What a command says in an instance of an image."""
    return daemon.cli("run", "--rm", "--network", "none", image, *command).stdout


def config(daemon: Daemon, image: str) -> dict[str, object]:
    """The configuration of an image."""
    found: dict[str, object] = daemon.json("image", "inspect", image)[0]["Config"]
    return found


def layers(daemon: Daemon, image: str) -> list[str]:
    """The diff ids of an image."""
    return list(daemon.json("image", "inspect", image)[0]["RootFS"]["Layers"])
