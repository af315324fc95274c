"""What the API needs of the engine's catalogs: images, registries, plans, networks, snapshots.

What they return becomes JSON as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from bulkhead.engine.registries import Access as Credentials
from bulkhead.engine.unikernel_builds import Order
from bulkhead.events import Progress
from bulkhead.model import Instance, NamedPlan, Network, PlanRequest, Snapshot


class Images(Protocol):
    """The image store. What it returns is turned into JSON as it is (models, dataclasses, dicts)."""

    def list(self) -> Sequence[object]:
        """Every image: references, digest, architecture, size (bytes), created (s), layers."""

    def inspect(self, reference: str) -> object:
        """One image with its configuration and layers. Raises NotFound."""

    def import_file(
        self, source: Path | BinaryIO, *, name: str | None, changes: Sequence[str] = (), progress: Progress
    ) -> object:
        """Read an archive: a file of the host, or a stream that can only be read forwards.
        `changes`: instructions such as "CMD nginx", for the tar of a root file system.
        """

    def load(self, source: Path | BinaryIO, *, all_platforms: bool, progress: Progress) -> Sequence[object]:
        """Take in every image of an archive: `image` and its `names` there."""

    def prepare_rescue(self, progress: Progress) -> object:
        """The image that a helper machine for broken disks runs; made where it is not there."""

    def import_onto(
        self, base: str, stream: BinaryIO, *, name: str | None, changes: Sequence[str] = (), progress: Progress
    ) -> object:
        """Make an image of the image `base` and a layer on top, a tar that can only be read forwards."""

    def import_unikernel(
        self, source: Path | BinaryIO, *, name: str | None, cmdline: str, kind: str, progress: Progress
    ) -> object:
        """Read a kernel with its application in it."""

    def build_unikernel(self, order: Order, progress: Progress) -> object:
        """Make a unikernel of an image or of a static program."""

    def bootstrap(
        self,
        release: str,
        *,
        packages: Sequence[str],
        name: str | None,
        architecture: str | None,
        mirrors: Sequence[str],
        config: Mapping[str, object],
        progress: Progress,
    ) -> object:
        """Make an image from a distribution's packages. `config`: keys of the OCI image's configuration."""

    def bootstrap_disk(
        self,
        release: str,
        *,
        packages: Sequence[str],
        name: str | None,
        size: int | None,
        firmware: str | None,
        progress: Progress,
    ) -> object:
        """Make the disk of a machine that boots by itself from a distribution's packages. None: the usual."""

    def make_kernel(
        self, distribution: str, *, trim: bool, version: str | None, name: str | None, progress: Progress
    ) -> object:
        """Make a kernel for virtual machines from a distribution's package, or from its source, trimmed to what guests
        need. None: the newest, the usual name.
        """

    def save(self, references: Sequence[str], *, form: str) -> Iterator[bytes]:
        """Images as one archive. What is wrong is told before it begins."""

    def tag(self, reference: str, targets: Sequence[str]) -> object:
        """Give an image more names; which they are."""

    def remove(self, reference: str, *, force: bool) -> object:
        """Drop a name, and the image with its last name; what has been removed."""

    def publish(self, reference: str, *, public: bool) -> str:
        """Let every tenant see an image of the operator's, or no longer; its name in whole."""

    def published(self) -> Sequence[str]:
        """Names of images that every tenant sees."""

    def prune(self, *, everything: bool) -> object:
        """Drop what nothing needs (`everything`: also named images without an instance); what has been removed."""


class Registries(Protocol):
    """What can be done with registries. Credentials come with each request and are not kept."""

    def sources(self, reference: str, *, push: bool) -> Sequence[Mapping[str, object]]:
        """Where an image may come from or go to: registry, repository, name, mirror."""

    def pull(
        self, reference: str, *, policy: str, platform: str | None, access: Credentials, progress: Progress
    ) -> object:
        """Have an image in the store."""

    def pull_all(self, reference: str, *, access: Credentials, progress: Progress) -> Sequence[object]:
        """Have every platform's image of a list in the store, each under a name of its own."""

    def push(
        self,
        reference: str,
        destination: str | None,
        *,
        compression: str | None,
        all_platforms: bool,
        access: Credentials,
        progress: Progress,
    ) -> object:
        """Give an image away."""

    def tags(self, repository: str, *, access: Credentials) -> Sequence[str]: ...
    def referrers(self, reference: str, *, access: Credentials) -> Sequence[Mapping[str, object]]: ...
    def login(self, registry: str, *, access: Credentials) -> str: ...


class Plans(Protocol):
    """The named plans."""

    def list(self) -> Sequence[NamedPlan]: ...
    def get(self, name: str) -> NamedPlan: ...
    def create(self, name: str, asked: PlanRequest) -> NamedPlan: ...
    def remove(self, name: str) -> None: ...


class Networks(Protocol):
    """The networks; None for a subnet: one from the pool; None for a tenant: of whoever asks."""

    def list(self) -> Sequence[Network]: ...
    def get(self, name: str) -> Network: ...
    def create(self, name: str, *, subnet4: str | None, subnet6: str | None, tenant: str | None) -> Network: ...
    def remove(self, name: str) -> None: ...


class Snapshots(Protocol):
    """The snapshots. `ref` is an instance's name, id or the beginning of one; None for a list: of all."""

    def list(self, ref: str | None = None) -> Sequence[Snapshot]: ...
    def get(self, ref: str, name: str) -> Snapshot: ...
    def create(self, ref: str, *, name: str | None, memory: bool, progress: Progress) -> Snapshot: ...
    def restore(self, ref: str, name: str, *, force: bool, memory: bool, progress: Progress) -> Instance: ...
    def remove(self, ref: str, name: str) -> None: ...
