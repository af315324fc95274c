"""Images as the engine's users see them: the store, with what instances need of it kept from removal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from bulkhead.engine import kernels, rescuing, systems, unikernel_builds
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.errors import Conflict, NotFound, Refused
from bulkhead.events import Progress, Step
from bulkhead.images import Image, saving
from bulkhead.images.documents import ROOTFS
from bulkhead.images.loading import Loaded
from bulkhead.images.naming import as_name
from bulkhead.model import Isolation, Spec
from bulkhead.tenancy import acting
from bulkhead.tenancy.names import SEPARATOR

BUILD = "(a build)"
"""What a build is called among the users of an image."""


class ImageCatalog:
    """The images of this host."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.images
        self._whole = context.all_images

    def list(self) -> Sequence[Image]:
        """Every image."""
        return self._store.list()

    def resolve(self, reference: str) -> Image:
        """The image that a user means. Raises NotFound."""
        return self._store.resolve(reference)

    def inspect(self, reference: str) -> dict[str, object]:
        """One image with its configuration and layers."""
        return self._store.inspect(reference)

    def import_onto(
        self, base: str, stream: BinaryIO, *, name: str | None, changes: Sequence[str] = (), progress: Progress
    ) -> Image:
        """Make an image of the image `base` and a layer on top, a tar that can only be read forwards."""
        image = self._store.import_onto(base, stream, name=name, changes=changes, progress=_crashing(progress))
        checkpoint("import.stored")
        return image

    def import_file(
        self, source: Path | BinaryIO, *, name: str | None, changes: Sequence[str] = (), progress: Progress
    ) -> Image:
        """Read an archive: a file of the host, or a stream that can only be read forwards."""
        if isinstance(source, Path):
            return self._store.import_file(source, name=name, changes=changes, progress=progress)
        image = self._store.import_stream(source, name=name, changes=changes, progress=_crashing(progress))
        checkpoint("import.stored")
        return image

    def load(self, source: Path | BinaryIO, *, all_platforms: bool, progress: Progress) -> Sequence[Loaded]:
        """Take in every image of an archive, under the names that it has there."""
        loaded = self._store.load(source, all_platforms=all_platforms, progress=_crashing(progress))
        checkpoint("import.stored")
        return loaded

    def import_unikernel(
        self, source: Path | BinaryIO, *, name: str | None, cmdline: str, kind: str, progress: Progress
    ) -> Image:
        """Read a kernel that is a file of its own, with its application in it."""
        return self._store.import_unikernel(source, name=name, cmdline=cmdline, type_=kind, progress=progress)

    def build_unikernel(self, order: unikernel_builds.Order, progress: Progress) -> Image:
        """Make a unikernel of an image or of a static program."""
        return unikernel_builds.build(self._store, self._context.config, order, progress)

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
    ) -> Image:
        """Make an image from a distribution's packages."""
        return self._store.bootstrap(
            release,
            packages=packages,
            name=name,
            architecture=architecture,
            config=config,
            mirrors=mirrors,
            progress=progress,
        )

    def bootstrap_disk(
        self,
        release: str,
        *,
        packages: Sequence[str],
        name: str | None,
        size: int | None,
        firmware: str | None,
        progress: Progress,
    ) -> Image:
        """Make the disk of a machine that boots by itself from a distribution's packages."""
        return systems.make(
            self._store,
            self._context.config,
            release,
            packages=packages,
            name=name,
            size=size,
            firmware=firmware,
            progress=progress,
        )

    def make_kernel(
        self, distribution: str, *, trim: bool, version: str | None, name: str | None, progress: Progress
    ) -> Image:
        """Make a kernel for virtual machines from a distribution's package, or from its source, trimmed."""
        make = kernels.trim if trim else kernels.make
        return make(self._store, self._context.config, distribution, version=version, name=name, progress=progress)

    def save(self, references: Sequence[str], *, form: str) -> Iterator[bytes]:
        """Images as one archive. Raises NotFound, Refused before anything is written."""
        layout = self._store.layout
        found = [(self._store.resolve(wanted), wanted) for wanted in references]
        saving.check([image for image, _ in found], form)
        named: dict[str, tuple[Image, tuple[str, ...]]] = {}
        for image, wanted in found:
            names = tuple(name for name in image.references if name in (wanted, f"{wanted}:latest"))
            before = named.get(image.digest, (image, ()))[1]
            named[image.digest] = (image, tuple(dict.fromkeys((*before, *names))))
        return saving.archive(layout, list(named.values()), form)

    def tag(self, reference: str, targets: Sequence[str]) -> object:
        """Give an image more names."""
        return self._store.tag(reference, targets)

    def prepare_rescue(self, progress: Progress) -> Image:
        """The image that a helper machine for broken disks runs; made where it is not there."""
        image = rescuing.prepare(self._store, self._context.config, progress)
        checkpoint("rescue.made")
        self.forget_replaced()
        return image

    def forget_replaced(self) -> Sequence[str]:
        """Remove images of helper machines that a newer one has replaced; what was done, in words."""
        done: list[str] = []
        for old in rescuing.replaced(self._store):
            with suppress(Conflict, NotFound):  # one of it runs
                done += self._store.remove(old, in_use=self._in_use())
        return done

    def remove(self, reference: str, *, force: bool) -> object:
        """Drop a name, and the image with its last name."""
        with self._context.building.guard:
            try:
                digest = self._store.resolve(reference).digest
                removed = self._store.remove(reference, in_use=self._in_use(own=True), force=force)
                if self._whole is not self._store:
                    self._drop_unneeded(digest)
            except Conflict as error:
                if BUILD in error.what:
                    raise Conflict(error.what, hint="it is free when the build has ended") from error
                raise
            self._unmount_unneeded()
        return removed

    def prune(self, *, everything: bool) -> object:
        """Drop what nothing needs."""
        building = self._context.building
        with building.guard:
            removed = self._store.prune(in_use=self._in_use(), held=building.layers(), all_images=everything)
            self._unmount_unneeded()
        return removed

    def publish(self, reference: str, *, public: bool) -> str:
        """Let every tenant see the image of this name of the default tenant, or no longer; the name in whole."""
        image = self._store.resolve(reference)
        names = [name for name in image.references if SEPARATOR not in name]
        name = as_name(reference) if as_name(reference) in names else (names[0] if len(names) == 1 else "")
        if not name:
            hint = f"say one of {', '.join(names)}" if names else "give it a name: bulkhead image tag"
            raise Refused(f"{reference} is no name of an image of the operator's", hint=hint)
        acting.touched("image", name)
        self._context.state.publish_image(name, public=public)
        return name

    def published(self) -> Sequence[str]:
        """Names of images that every tenant sees."""
        return sorted(self._context.state.public_images())

    def _drop_unneeded(self, digest: str) -> None:
        """Of an image that a tenant has no name of any more: all of it, where nobody else has one or needs it."""
        with suppress(Conflict, NotFound):
            if not self._whole.resolve(digest).references:
                self._whole.remove(digest, in_use=self._in_use())

    def _in_use(self, *, own: bool = False) -> Mapping[str, Sequence[str]]:
        """Names of instances and snapshots by the digest of their image, and of the kernel that a VM boots.

        `own`: of this tenant's alone; other tenants keep what they use in any case.
        """
        found: dict[str, tuple[str, ...]] = dict.fromkeys(self._context.building.images(), (BUILD,))
        state = self._context.state
        users = [(instance.spec.name, instance.spec) for instance in state.instances()]
        users += [(snapshot.reference, snapshot.spec) for snapshot in state.snapshots()]
        if own and self._whole is not self._store:
            users = [(name, spec) for name, spec in users if spec.tenant == self._context.tenant]
        for name, spec in users:
            for digest in self._needed_by(spec):
                found[digest] = (*found.get(digest, ()), name)
        return found

    def _needed_by(self, spec: Spec) -> Iterator[str]:
        yield spec.image_digest
        if spec.isolation is Isolation.VM:
            with suppress(NotFound, Refused):  # it is gone already, and a start would say so
                if self._whole.resolve(spec.image_digest).kind == ROOTFS:
                    yield kernels.find(self._whole, spec.kernel or None).digest

    def _unmount_unneeded(self) -> None:
        """A layer's file that is gone is still held by its mount, and so is its kernel in a template."""
        images = self._whole.list()
        known = {layer.diff_id for image in images for layer in image.layers}
        self._context.layers.recover(known | self._context.building.layers())
        self._context.templates.keep({image.digest for image in images})


def _crashing(progress: Progress) -> Progress:
    """The same, and a point to die at while a stream comes in."""

    def tell(step: Step) -> None:
        progress(step)
        if step.done:
            checkpoint("import.receiving")

    return tell
