"""Images made by hand: OCI layouts and docker archives, honest or with one lie."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.unit.images.lab import entry, folder, make_tar, symlink

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
Json = dict[str, Any]


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def small_layer(name: str = "file", content: bytes = b"content") -> bytes:
    return make_tar(folder("."), folder("etc"), entry(f"etc/{name}", content))


@dataclass
class Layout:
    """An OCI layout in memory, files by name; `tar` and `write` put it somewhere."""

    files: dict[str, bytes] = field(default_factory=lambda: {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'})
    entries: list[Json] = field(default_factory=list)

    def blob(self, data: bytes, media_type: str) -> Json:
        self.files[f"blobs/sha256/{digest(data)[7:]}"] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def image(
        self,
        *layers: bytes,
        name: str = "test:1",
        packed: bool = False,
        config: Json | None = None,
        run: Json | None = None,
        manifest: Json | None = None,
        annotation: str = "org.opencontainers.image.ref.name",
    ) -> str:
        """Add an image; `config` and `manifest` replace parts of these documents. Returns its manifest's digest."""
        about: Json = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-05-01T12:00:00Z",
            "config": run or {},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            **(config or {}),
        }
        blobs = [
            self.blob(gzip.compress(layer, mtime=0) if packed else layer, LAYER + ("+gzip" if packed else ""))
            for layer in layers
        ]
        document: Json = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(dump(about), CONFIG),
            "layers": blobs,
            **(manifest or {}),
        }
        descriptor = self.blob(dump(document), MANIFEST)
        self.entries.append({**descriptor, **({"annotations": {annotation: name}} if name else {})})
        return digest(dump(document))

    def finished(self) -> dict[str, bytes]:
        return {**self.files, "index.json": dump({"schemaVersion": 2, "manifests": self.entries})}

    def tar(self) -> bytes:
        return make_tar(folder("blobs"), folder("blobs/sha256"), *(entry(n, d) for n, d in self.finished().items()))


def docker_archive(
    layers: Sequence[bytes], *, names: Sequence[str] = ("test:1",), links: bool = False, config: Json | None = None
) -> bytes:
    """A docker archive; `links`: each layer behind a link, as old docker and skopeo write them."""
    about = dump(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            **(config or {}),
        }
    )
    files = [entry(f"{digest(about)[7:]}.json", about)]
    paths = []
    for layer in layers:
        name = digest(layer)[7:]
        paths.append(f"{name}/layer.tar" if links else f"{name}.tar")
        if links:
            files.append(symlink(f"{name}/layer.tar", f"../{name}.tar"))
        files.append(entry(f"{name}.tar", layer))
    manifest = [{"Config": f"{digest(about)[7:]}.json", "RepoTags": list(names), "Layers": paths}]
    return make_tar(*files, entry("manifest.json", dump(manifest)))


def dump(document: object) -> bytes:
    return json.dumps(document).encode()
