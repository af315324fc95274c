"""The image that a helper machine for broken disks runs: made when it is first needed, and again for another kernel."""

from __future__ import annotations

import io
from collections.abc import Mapping

from bulkhead.boot import debian, rescue
from bulkhead.config import Config
from bulkhead.engine import kernels
from bulkhead.errors import NotFound, Refused
from bulkhead.events import Progress, Step
from bulkhead.images import Image, ImageStore

RELEASE_ANNOTATION = "org.bulkhead.kernel.release"
VERSION_ANNOTATION = "org.opencontainers.image.version"


def prepare(images: ImageStore, config: Config, progress: Progress) -> Image:
    """The image, with modules of the kernel that machines boot (kernel/debian, which is made where it is not there).

    Takes a moment when it is there already, else a minute and the host's apt. Raises Refused, HostError, Unavailable.
    """
    kernel = _kernel(images, config, progress)
    release = kernel.annotations.get(RELEASE_ANNOTATION, "")
    recipe, (layer, digest) = rescue.recipe(release), rescue.script()
    labels = _labels(images)
    if labels.get(rescue.RECIPE) != recipe:
        _bootstrap(images, config, kernel, recipe, progress)
        labels = {}
    if labels.get(rescue.SCRIPT) != digest:
        changes = [f"LABEL {rescue.SCRIPT}={digest}"]
        return images.import_onto(rescue.NAME, io.BytesIO(layer), name=rescue.NAME, changes=changes)
    return images.resolve(rescue.NAME)


def replaced(images: ImageStore) -> list[str]:
    """Digests of images that were made for this and have lost their name to a newer one."""
    return [image.digest for image in images.list() if not image.references and rescue.RECIPE in image.config.labels]


def _labels(images: ImageStore) -> Mapping[str, str]:
    try:
        return images.resolve(rescue.NAME).config.labels
    except NotFound:
        return {}


def _bootstrap(images: ImageStore, config: Config, kernel: Image, recipe: str, progress: Progress) -> None:
    release = kernel.annotations.get(RELEASE_ANNOTATION, "")
    version = kernel.annotations.get(VERSION_ANNOTATION, "")
    if not release or not version:
        what = f"image {kernels.DEFAULT} does not say which of Debian's kernels it is: its modules cannot be had"
        raise Refused(what, hint="bulkhead image kernel debian")
    progress(Step("making the image of the helper machine, once"))
    deb = debian.download(debian.find(version), config.cache_dir / "apt" / "kernels", progress)
    images.bootstrap(
        rescue.RELEASE,
        packages=rescue.PACKAGES,
        name=rescue.NAME,
        config={"labels": {rescue.RECIPE: recipe}, "entrypoint": (rescue.PROGRAM,)},
        hooks=rescue.Tools(release, deb).hooks,
        progress=progress,
    )


def _kernel(images: ImageStore, config: Config, progress: Progress) -> Image:
    try:
        return images.resolve(kernels.DEFAULT)
    except NotFound:
        return kernels.make(images, config, "debian", version=None, name=None, progress=progress)
