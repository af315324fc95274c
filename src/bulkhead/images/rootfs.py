"""An image of one layer, made from a root file system's tar: an import, or a bootstrap's result."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bulkhead.errors import ImageError, Unavailable
from bulkhead.events import Progress, Step
from bulkhead.images import documents, unikernels
from bulkhead.images.config import DEFAULT_PATH, ImageConfig
from bulkhead.images.ingest import Ingest

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm", "riscv64": "riscv64"}


def add_rootfs(
    ingest: Ingest,
    chunks: Iterable[bytes],
    *,
    names: Sequence[str],
    config: ImageConfig,
    source: str,
    progress: Progress,
    architecture: str = "",
    created: float | None = None,
) -> str:
    """Take in a root file system's tar. Returns the manifest's digest.

    Where the configuration has no PATH and no command, docker's PATH and a shell are put in. `architecture` "": as
    the tar's own shell is built, else this host's. `source` says in the history where it came from.
    """
    layer, found = ingest.add_layer(chunks, must_end=True)
    for note in found.notes:
        progress(Step(f"passed over: {note}"))
    when = documents.time_text(time.time() if created is None else created)
    document = {
        "architecture": architecture or found.architecture or host_architecture(),
        "os": "linux",
        "created": when,
        "config": _completed(config).to_document(),
        "rootfs": {"type": "layers", "diff_ids": [found.diff_id]},
        "history": [{"created": when, "created_by": source}],
    }
    return ingest.add_image(documents.dump(document), [layer], [found.key], names)


def add_unikernel(
    ingest: Ingest,
    chunks: Iterable[bytes],
    *,
    names: Sequence[str],
    config: ImageConfig,
    annotations: Mapping[str, str],
    source: str,
) -> str:
    """Take in a unikernel's layer and make its image. Returns the manifest's digest.

    Raises ImageError where the annotations or what they name are no unikernel that QEMU boots.
    """
    layer, found = ingest.add_layer(chunks, must_end=True)
    said = unikernels.said(annotations, {})
    if said is None:
        raise ImageError("the annotations name no kernel")
    ingest.check_unikernel(said, [found.key])
    when = documents.time_text(time.time())
    document = {
        "architecture": host_architecture(),
        "os": "linux",
        "created": when,
        "config": config.to_document(),
        "rootfs": {"type": "layers", "diff_ids": [found.diff_id]},
        "history": [{"created": when, "created_by": source}],
    }
    return ingest.add_image(documents.dump(document), [layer], [found.key], names, annotations=annotations)


def host_architecture() -> str:
    """What this host runs, in Go's words."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise Unavailable(f"machine type {machine!r} has no name known to images")
    return _ARCHITECTURES[machine]


def _completed(config: ImageConfig) -> ImageConfig:
    if not any(entry.startswith("PATH=") for entry in config.env):
        config = replace(config, env=(DEFAULT_PATH, *config.env))
    if not config.cmd and not config.entrypoint:
        config = replace(config, cmd=("/bin/sh",))
    return config
