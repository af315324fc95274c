"""The seed of an unmodified system: a small disk from which cloud-init takes who the machine is (NoCloud)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import Problem, Refused
from bulkhead.host import processes

LABEL = "CIDATA"
"""The volume's name, by which cloud-init knows it."""
MAX_FILE = 1 << 20
"""Bytes of each of the files. Clouds allow 16 KiB."""
_SIZE = 4 << 20
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Seed:
    """What a machine is told at its first boot, and again when `instance_id` is another."""

    instance_id: str
    hostname: str
    user_data: bytes = b""
    """As cloud-init takes it: beginning with `#cloud-config`, `#!`, ...; empty: nothing."""
    network_config: bytes | None = None
    """cloud-init's network configuration; None: DHCP."""

    def files(self) -> dict[str, bytes]:
        """The files by name. Raises Refused with all that is wrong."""
        problems = []
        if not _ID.fullmatch(self.instance_id):
            problems.append(Problem(f"instance id {self.instance_id[:140]!r} is not made of letters, digits, '_.-'"))
        if not _NAME.fullmatch(self.hostname):
            problems.append(Problem(f"host name {self.hostname[:260]!r} is not one"))
        for what, data in (("user data", self.user_data), ("network configuration", self.network_config or b"")):
            if len(data) > MAX_FILE:
                problems.append(Problem(f"the {what} has {len(data)} bytes, at most {MAX_FILE} are allowed"))
        if problems:
            raise Refused(problems)
        # JSON is YAML too, and needs no quoting of our own.
        about = {"instance-id": self.instance_id, "local-hostname": self.hostname}
        files = {"meta-data": json.dumps(about).encode() + b"\n", "user-data": self.user_data}
        if self.network_config is not None:
            files["network-config"] = self.network_config
        return files


def write(seed: Seed, target: Path, *, work: Path) -> None:
    """Make the file `target`, a FAT of 4 MiB with the seed in it; one that is there is replaced.

    `work` is an empty directory beside it, on the same file system. Raises Refused, HostError.
    """
    files = seed.files()
    image, sources = work / "seed.img", []
    for name, data in files.items():
        (work / name).write_bytes(data)
        sources.append(work / name)
    with image.open("wb") as file:
        file.truncate(_SIZE)
    # No time and no random number in it: the same seed gives the same bytes.
    env = {"SOURCE_DATE_EPOCH": "315532800", "TZ": "UTC"}
    # Sectors as a CD-ROM has them: as one, a system can have it as well.
    processes.run(["mkfs.vfat", "-n", LABEL, "--invariant", "-S", "2048", image], package="dosfstools")
    processes.run(["mcopy", "-i", image, *sources, "::/"], env=env, package="mtools")
    image.chmod(0o600)
    image.replace(target)
