"""Importing a root file system."""

from __future__ import annotations

import os
from collections.abc import Callable

from bench.archives import ImportArchive
from bench.contest import Cast, Sizes, compete, say
from bench.figures import Figure
from bench.peers.base import CommandLine
from bench.peers.bulkhead import Bulkhead
from bench.peers.docker import Docker
from bench.peers.podman import Podman

LIMIT = 1.0
"""Of podman's time."""
IMAGE = "bench-import"


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """The same archive for all, changed in one small file before every import, so that nothing is known already."""
    megabytes = sizes.import_bytes // 1_000_000
    figure = Figure(
        "import",
        f"Importing a {megabytes} MB tar",
        "The whole command; the archive is in the page cache and differs from all before it, written data is flushed "
        "before each import, the image is removed after it, untimed.",
    )
    say(f"import: cutting an archive of {megabytes} MB")
    archive = ImportArchive(cast.scene.scratch / "import.tar", cast.scene.archive, sizes.import_bytes)
    contenders = []
    for kind in (Bulkhead, Podman, Docker):
        contenders += cast.contend(figure, kind, kind.name, _importer(archive))
    compete(figure, contenders, sizes.imports)
    figure.want_ratio("whole command / podman's", "bulkhead", "podman", LIMIT)
    archive.path.unlink()
    return figure


def _importer(archive: ImportArchive) -> Callable[[CommandLine], float]:
    def once(engine: CommandLine) -> float:
        archive.renew()
        os.sync()
        took = engine.import_tar(archive.path, IMAGE)
        engine.remove_image(IMAGE)
        return took

    return once
