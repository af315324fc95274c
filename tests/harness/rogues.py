"""Tenants who take all that there is: the program `rogue`, and an image that has it."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.harness.abilities import require
from tests.harness.images import busybox_tar
from tests.harness.naming import PREFIX

SOURCE = Path(__file__).with_name("rogue") / "rogue.c"
PROGRAM = "/bin/rogue"


@dataclass(frozen=True, slots=True)
class Rogue:
    """One thing that a rogue takes all of."""

    name: str
    """As the program knows it."""
    title: str
    sends: bool = False
    """It is told the victim's address and its gateway's."""
    raw: bool = False
    """It needs frames of its own making: a container has no such socket, so it is not even let near its link."""

    def command(self, seconds: float, victim: str, gateway: str) -> list[str]:
        """What an instance runs."""
        return [PROGRAM, self.name, f"{seconds:g}", *((victim, gateway) if self.sends else ())]


ROGUES = (
    Rogue("forks", "fork bomb"),
    Rogue("memory", "memory hog"),
    Rogue("sockets", "sockets' buffers"),
    Rogue("cache", "page cache thrash"),
    Rogue("fill", "disk filler"),
    Rogue("io", "io flood"),
    Rogue("inodes", "inode exhaustion"),
    Rogue("spin", "spin on all cores"),
    Rogue("files", "descriptor exhaustion"),
    Rogue("ptys", "terminal exhaustion"),
    Rogue("watchers", "watcher exhaustion"),
    Rogue("logs", "log flood"),
    Rogue("packets", "packet flood", sends=True),
    Rogue("storm", "broadcast storm"),
    Rogue("spoof", "address spoofing", sends=True, raw=True),
    Rogue("claims", "ARP and NDP spoofing", sends=True, raw=True),
)


@cache
def binary() -> Path:
    """The program, static, compiled once per run."""
    require("gcc")
    made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-rogue-")) / "rogue"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", made, SOURCE], check=True)
    return made


def image_tar(target: Path) -> Path:
    """A root file system with busybox and the program as a tar file."""
    busybox_tar(target)
    with tarfile.open(target, "a") as archive:
        archive.add(binary(), PROGRAM.lstrip("/"))
    return target
