"""The JSON documents of OCI images and docker archives, checked: index, manifest, config.

All of it comes from outside: bounded, every needed field there and of its type, digests well formed. Fields that
are not needed are passed over, since the specifications demand that of readers.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from bulkhead.errors import ImageError
from bulkhead.images.bounds import Bounds

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
LAYER_TYPES = (
    OCI_LAYER,
    OCI_LAYER + "+gzip",
    OCI_LAYER + "+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
)
REF_NAME = "org.opencontainers.image.ref.name"
KIND = "org.bulkhead.kind"
"""Annotation of a manifest: what the image is where it is no root file system, such as "kernel"."""
BLOB_PREFIX = "application/vnd.bulkhead."
"""Media types of the layers of such an image: files, kept as they are."""
CONTAINERD_NAME = "io.containerd.image.name"

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=1 << 17)]
T = TypeVar("T")
ROOTFS = "rootfs"
"""The kind of an ordinary image: layers of files that make a root file system."""
DISK = "disk"
"""The kind of an image that is a machine's disk."""
UNIKERNEL = "unikernel"
"""The kind of an image whose annotations name a kernel in its layers. In a manifest it is a root file system."""
KINDS = (ROOTFS, "kernel", DISK)
DISK_TYPE = "application/vnd.bulkhead.disk.raw+zstd"
"""The media type of a disk's one blob."""
DISK_SIZE, DISK_FIRMWARE = "org.bulkhead.disk.size", "org.bulkhead.disk.firmware"
"""Annotations of a disk's manifest: its bytes as a guest sees them; "bios" or "uefi"."""


def _none_is(empty: type) -> BeforeValidator:
    """Go writes an empty list or map as null."""
    return BeforeValidator(lambda value: empty() if value is None else value)


Texts = Annotated[tuple[Text, ...], _none_is(tuple)]
Keys = Annotated[dict[Text, Any], _none_is(dict)]
Labels = Annotated[dict[Text, Text], _none_is(dict)]
Line = Annotated[Text, _none_is(str)]


class Document(BaseModel):
    """The base: immutable, camel-case names through aliases."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Platform(Document):
    """What an image runs on, in Go's words: "amd64", "386"."""

    architecture: Line = ""
    os: Line = ""
    variant: Line = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(Document):
    """A pointer to a blob."""

    media_type: Line = Field(default="", alias="mediaType")
    digest: Digest
    size: int = Field(ge=0, le=1 << 50)
    annotations: Labels = {}
    platform: Platform | None = None


class Index(Document):
    """index.json, or the list of an image for several platforms."""

    manifests: Annotated[tuple[Descriptor, ...], _none_is(tuple)] = ()


class Manifest(Document):
    """An image: its config and layers, the lowest first."""

    media_type: Line = Field(default="", alias="mediaType")
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], _none_is(tuple)] = ()
    annotations: Annotated[dict[Text, Text], _none_is(dict)] = {}

    @property
    def kind(self) -> str:
        """What it is; "rootfs" where it says nothing else."""
        return self.annotations.get(KIND, ROOTFS)


class RunConfig(Document):
    """How an image wants to be run."""

    user: Line = Field(default="", alias="User")
    exposed_ports: Keys = Field(default={}, alias="ExposedPorts")
    env: Texts = Field(default=(), alias="Env")
    entrypoint: Texts = Field(default=(), alias="Entrypoint")
    cmd: Texts = Field(default=(), alias="Cmd")
    volumes: Keys = Field(default={}, alias="Volumes")
    workdir: Line = Field(default="", alias="WorkingDir")
    labels: Labels = Field(default={}, alias="Labels")
    stop_signal: Line = Field(default="", alias="StopSignal")
    shell: Texts = Field(default=(), alias="Shell")
    healthcheck: dict[str, Any] | None = Field(default=None, alias="Healthcheck")


class RootFs(Document):
    """The uncompressed layers."""

    diff_ids: Annotated[tuple[Digest, ...], _none_is(tuple)] = ()


class ConfigFile(Document):
    """An image's config document."""

    architecture: Line = ""
    os: Line = ""
    created: Line = ""
    config: Annotated[RunConfig, _none_is(RunConfig)] = RunConfig()
    rootfs: RootFs


class DockerImage(Document):
    """One entry of a docker archive's manifest.json."""

    config: Text = Field(alias="Config")
    names: Texts = Field(default=(), alias="RepoTags")
    layers: Texts = Field(default=(), alias="Layers")


DOCKER_IMAGES: TypeAdapter[tuple[DockerImage, ...]] = TypeAdapter(tuple[DockerImage, ...])


def read(adapter: type[T] | TypeAdapter[T], data: bytes, what: str, bounds: Bounds) -> T:
    """A checked document. Raises ImageError with everything that is wrong with it."""
    if len(data) > bounds.document:
        raise ImageError(f"{what} has {len(data)} bytes, at most {bounds.document} are allowed")
    try:
        found = (adapter if isinstance(adapter, TypeAdapter) else TypeAdapter(adapter)).validate_python(
            json.loads(data), context=None
        )
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in error.errors()[:5]]
        raise ImageError(f"{what} is damaged: {'; '.join(wrong)}") from error
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is not JSON: {error}") from error
    return found


def dump(document: object) -> bytes:
    """The same document always gives the same bytes, so that it has one digest."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def digest_of(data: bytes) -> str:
    """`sha256:` and the hex digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def time_text(seconds: float) -> str:
    """A time, in seconds since the epoch, as documents have it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
