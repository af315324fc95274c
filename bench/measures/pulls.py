"""Pulling an image from a registry."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench import processes, timing
from bench.archives import ImportArchive
from bench.contest import Cast, Sizes, compete, say
from bench.figures import Figure
from bench.peers.base import CommandLine
from bench.peers.bulkhead import Bulkhead
from bench.peers.docker import Docker
from bench.peers.podman import Podman

LIMIT = 0.8
"""Of podman's time."""
LAYERS = 6
PORT = 5055
IMAGE = f"127.0.0.1:{PORT}/six:1"
_OCI = "application/vnd.oci.image"


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """The same image for all, from docker-registry on loopback."""
    size = 2 * sizes.import_bytes
    figure = Figure(
        "pull",
        f"Pulling a {size // 1_000_000} MB image of {LAYERS} layers",
        "The whole command; layers are gzip, the registry is on loopback and has them in the page cache, written data "
        "is flushed before each pull, the image is removed after it, untimed.",
    )
    directory = cast.scene.directory("registry")
    say(f"pull: making an image of {size // 1_000_000} MB")
    with _registry(directory):
        _push(_layout(directory, cast.scene.archive, size), directory)
        contenders = []
        for kind in (Bulkhead, Podman, Docker):
            contenders += cast.contend(figure, kind, kind.name, _puller())
        compete(figure, contenders, sizes.imports)
    figure.want_ratio("whole command / podman's", "bulkhead", "podman", LIMIT)
    return figure


def _puller() -> Callable[[CommandLine], float]:
    def once(engine: CommandLine) -> float:
        os.sync()
        took = engine.pull(IMAGE)
        engine.remove_image(IMAGE)
        return took

    return once


@contextmanager
def _registry(directory: Path) -> Iterator[None]:
    program = timing.find("docker-registry", "docker-registry")
    config, log = directory / "config.yml", directory / "log"
    storage = {"filesystem": {"rootdirectory": str(directory / "data")}}
    config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": f"127.0.0.1:{PORT}"}}))
    with ExitStack() as stack:
        with log.open("wb") as file:
            server = subprocess.Popen([program, "serve", str(config)], stdout=file, stderr=file)
        stack.callback(processes.end, server, signal.SIGTERM)
        timing.wait_until(_listens, what="docker-registry", log=log)
        yield


def _listens() -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", PORT), timeout=1):
        return True
    return False


def _layout(directory: Path, root: Path, size: int) -> Path:
    """An OCI layout of one image, its layers cut from a root file system."""
    layout = directory / "layout"
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"{_OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    archive = ImportArchive(directory / "layer.tar", root, size // LAYERS)
    layers, diff_ids = [], []
    for _ in range(LAYERS):
        archive.renew()
        plain = archive.path.read_bytes()
        diff_ids.append(f"sha256:{hashlib.sha256(plain).hexdigest()}")
        layers.append(put(gzip.compress(plain, 6, mtime=0), "layer.v1.tar+gzip"))
    archive.path.unlink()
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    about = {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", "layers": layers}
    document = {**about, "config": put(json.dumps(config).encode(), "config.v1+json")}
    manifest = put(json.dumps(document).encode(), "manifest.v1+json")
    named = {**manifest, "annotations": {"org.opencontainers.image.ref.name": "six"}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout


def _push(layout: Path, directory: Path) -> None:
    skopeo = timing.find("skopeo", "skopeo")
    copy = [skopeo, "--tmpdir", str(directory), "copy", "-q", "--dest-tls-verify=false"]
    subprocess.run([*copy, f"oci:{layout}:six", f"docker://{IMAGE}"], check=True)
