"""An image and how it wants to be run, as the engine sees it; and the changes that an import can make to it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bulkhead.errors import ImageError
from bulkhead.images.bounds import Bounds
from bulkhead.images.documents import DISK, DISK_FIRMWARE, DISK_SIZE, DISK_TYPE, ROOTFS, ConfigFile, Manifest, RunConfig

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SIZE = re.compile(r"[1-9][0-9]{0,15}")
_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp|sctp))?")


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What the image says about its process; every field may be empty."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    """`NAME=value`."""
    workdir: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    """`80/tcp`."""
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    shell: tuple[str, ...] = ()
    healthcheck: dict[str, Any] | None = None
    """As docker writes it, times in nanoseconds."""

    def to_document(self) -> dict[str, object]:
        """The `config` of an OCI config document."""
        fields: dict[str, object] = {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "Env": list(self.env),
            "WorkingDir": self.workdir,
            "User": self.user,
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Volumes": {volume: {} for volume in self.volumes},
            "Labels": dict(self.labels),
            "StopSignal": self.stop_signal,
            "Shell": list(self.shell),
            "Healthcheck": self.healthcheck,
        }
        return {key: value for key, value in fields.items() if value}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, ready to be mounted."""

    diff_id: str
    """What it is known by, `sha256:<hex>`: the digest of its uncompressed tar. Where the tar leaves out directories
    that its files are in, a digest of it and of what these are in the layers below."""
    erofs: Path
    size: int
    """Bytes of the EROFS file."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of an image that is no root file system."""

    media_type: str
    digest: str
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk of an image that is one, unpacked: a sparse raw file. An instance gets a copy of it."""

    path: Path
    size: int
    """Bytes, as a guest sees them."""
    firmware: str
    """"bios" or "uefi": what it boots by."""


@dataclass(frozen=True, slots=True)
class Unikernel:
    """What an image that is one says of itself. Paths are absolute, in its root file system."""

    kernel: str
    initrd: str
    """"" for none."""
    cmdline: str
    type: str
    """"linux", "unikraft", "mirage", "rumprun" or "other": how its command line is written."""
    own: str = ""
    """The version of Bulkhead's small init in it; "": somebody else made it."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the store."""

    digest: str
    """The manifest's."""
    references: tuple[str, ...]
    """Its names, sorted."""
    architecture: str
    """In Go's words: "amd64", "386", "arm64"."""
    created: float | None
    """Seconds since the epoch."""
    size: int
    """Bytes of its layers' EROFS files (shared between images) or of its blobs."""
    config: ImageConfig
    layers: tuple[Layer, ...]
    """The lowest first."""
    kind: str = ROOTFS
    """"rootfs", or what else it is: "disk", "unikernel", or "kernel", of which no instance is made."""
    blobs: tuple[Blob, ...] = ()
    """What it consists of where it is no root file system."""
    annotations: dict[str, str] = field(default_factory=dict)
    """What its manifest says of it."""
    disk: Disk | None = None
    """Of an image of the kind "disk"."""
    unikernel: Unikernel | None = None
    """Of an image of the kind "unikernel", which has layers as well."""

    def blob(self, media_type: str) -> Blob:
        """The one blob of this type. Raises ImageError when there is none, or several."""
        found = [blob for blob in self.blobs if blob.media_type == media_type]
        if len(found) != 1:
            name = self.references[0] if self.references else self.digest
            raise ImageError(f"image {name} has {len(found)} parts of type {media_type}, one is needed")
        return found[0]


def read_config(run: RunConfig, what: str) -> ImageConfig:
    """An image's own configuration. Raises ImageError with everything that no process could be run with."""
    problems = []
    ports = []
    for port in run.exposed_ports:
        try:
            ports.append(port_of(port))
        except ValueError as error:
            problems.append(str(error))
    problems += [f"environment entry {entry[:60]!r} has no name" for entry in run.env if entry[:1] in ("", "=")]
    problems += [f"volume {path[:60]!r} is not absolute" for path in run.volumes if not path.startswith("/")]
    if problems:
        raise ImageError(f"{what}: {'; '.join(problems[:5])}")
    return ImageConfig(
        entrypoint=run.entrypoint,
        cmd=run.cmd,
        env=run.env,
        workdir="/" + run.workdir.lstrip("/") if run.workdir else "",
        user=run.user,
        exposed_ports=tuple(sorted(ports)),
        volumes=tuple(sorted(run.volumes)),
        labels=run.labels,
        stop_signal=run.stop_signal,
        shell=run.shell,
        healthcheck=run.healthcheck,
    )


def read_disk(manifest: Manifest, bounds: Bounds) -> tuple[str, int, str]:
    """The digest of a disk's blob, the disk's size and firmware. Raises ImageError with all that is wrong."""
    said, parts = manifest.annotations, manifest.layers
    problems = []
    if manifest.kind != DISK or [part.media_type for part in parts] != [DISK_TYPE]:
        problems.append(f"it does not consist of one part of type {DISK_TYPE}")
    text, firmware = said.get(DISK_SIZE, ""), said.get(DISK_FIRMWARE, "")
    size = int(text) if _SIZE.fullmatch(text) else 0
    if not 0 < size <= bounds.total or size % 512:
        problems.append(f"{DISK_SIZE} is {text[:40]!r}, not a size of whole sectors up to {bounds.total}")
    if firmware not in ("bios", "uefi"):
        problems.append(f"{DISK_FIRMWARE} is {firmware[:40]!r}, not bios or uefi")
    if problems:
        raise ImageError(f"the disk is damaged: {'; '.join(problems)}")
    return parts[0].digest, size, firmware


def read_created(file: ConfigFile, what: str) -> float | None:
    """When an image says that it was made; None where it does not."""
    if not file.created:
        return None
    try:
        created = datetime.fromisoformat(file.created)
    except ValueError as error:
        raise ImageError(f"{what}: {file.created[:60]!r} is not a time") from error
    # Go's zero time, year 1, is how some builders leave the time out.
    return created.timestamp() if created.year > 1 else None


def port_of(text: str) -> str:
    """`80/tcp` of "80" or "80/tcp". Raises ValueError with the reason."""
    found = _PORT.fullmatch(text)
    if not found or not 1 <= int(found[1]) <= 65535:
        raise ValueError(f"exposed port {text[:60]!r} is not one such as 80/tcp")
    return f"{int(found[1])}/{found[2] or 'tcp'}"
