"""An image made of another one and a layer on top, as a tar in OCI's form: whiteouts in it take away what is below."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence

from bulkhead.errors import ImageError, Refused
from bulkhead.events import Progress, Step
from bulkhead.images import documents
from bulkhead.images.changes import changed
from bulkhead.images.config import read_config
from bulkhead.images.documents import ROOTFS
from bulkhead.images.ingest import Ingest
from bulkhead.images.layout import Index


def add_onto(
    ingest: Ingest,
    index: Index,
    base: str,
    chunks: Iterable[bytes],
    *,
    names: Sequence[str],
    changes: Sequence[str],
    source: str,
    progress: Progress,
) -> str:
    """Take in a layer over those of the image with the manifest `base`. Returns the new manifest's digest.

    `changes` are instructions such as "CMD nginx"; what they do not name is as it was. Raises Refused for a base that
    has no layers, ImageError for what is damaged or hostile.
    """
    manifest, file = ingest.layout.documents(base)
    if manifest.kind != ROOTFS:
        raise Refused(f"image {base} is a {manifest.kind}: no layer goes onto it", hint="name a root file system")
    if len(manifest.layers) >= ingest.layout.bounds.layers:
        raise ImageError(f"image {base} has {len(manifest.layers)} layers, no more are allowed")
    below = index.layers_of(base)
    ingest.keep_layers(manifest.layers, below)
    layer, found = ingest.add_layer(chunks, below=below, must_end=True)
    for note in found.notes:
        progress(Step(f"passed over: {note}"))
    when = documents.time_text(time.time())
    config = changed(read_config(file.config, f"config of {base}"), changes)
    document = json.loads(ingest.layout.read_document(manifest.config.digest))
    document["created"] = when
    document["config"] = config.to_document()
    document["rootfs"] = {"type": "layers", "diff_ids": [*file.rootfs.diff_ids, found.diff_id]}
    document["history"] = [*(document.get("history") or []), {"created": when, "created_by": source}]
    return ingest.add_image(documents.dump(document), [*manifest.layers, layer], [*below, found.key], names)
