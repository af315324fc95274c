"""Imports of every kind of file, and of files that lie."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from bulkhead.errors import HostError, ImageError, Refused
from bulkhead.events import Step
from bulkhead.images import Bounds, Image, ImageConfig, ImageStore
from bulkhead.images.bounds import check_space
from tests.harness.abilities import require
from tests.unit.images import oci
from tests.unit.images.lab import entry, folder, make_tar, symlink
from tests.unit.images.oci import Layout, digest, docker_archive, small_layer

ROOTFS = make_tar(folder("."), folder("bin"), entry("bin/sh", b"\x7fELF\1\1\1" + bytes(9) + b"\2\0\3\0" + b"x" * 5000))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store", tmp_path / "cache", bounds=Bounds(keep_free=0))


def put(tmp_path: Path, data: bytes, name: str = "file") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def files(tmp_path: Path) -> list[str]:
    """All that is in the store but its fixed parts."""
    root = tmp_path / "store"
    fixed = {"oci-layout", "index.json", "lock", "ingest/lock"}
    return sorted({str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} - fixed)


def test_a_root_file_system(tmp_path: Path, store: ImageStore) -> None:
    steps: list[Step] = []
    changes = ['CMD ["nginx", "-g"]', "ENV A=1 B=2", "EXPOSE 80", "USER www", "LABEL x=y", "STOPSIGNAL SIGQUIT"]
    image = store.import_file(put(tmp_path, ROOTFS), name="web", changes=changes, progress=steps.append)
    assert image.references == ("web:latest",)
    assert image.architecture == "386"
    assert image.config == ImageConfig(
        cmd=("nginx", "-g"),
        env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1", "B=2"),
        exposed_ports=("80/tcp",),
        user="www",
        labels={"x": "y"},
        stop_signal="SIGQUIT",
    )
    (layer,) = image.layers
    assert layer.diff_id == digest(ROOTFS)
    assert layer.erofs == store.erofs_path(layer.diff_id)
    assert image.size == layer.size == layer.erofs.stat().st_size
    assert (tmp_path / "store/blobs/sha256" / digest(ROOTFS)[7:]).read_bytes() == ROOTFS
    assert steps[-1].done == len(ROOTFS)


@pytest.mark.parametrize(
    ("pack", "kept"),
    [
        (gzip.compress, "+gzip"),
        (zstandard.ZstdCompressor().compress, "+zstd"),
        (lzma.compress, ""),
        (bz2.compress, ""),
        (bytes, ""),
    ],
)
def test_compressed_root_file_systems(
    tmp_path: Path, store: ImageStore, pack: Callable[[bytes], bytes], kept: str
) -> None:
    packed = pack(ROOTFS)
    image = store.import_file(put(tmp_path, packed), name="x")
    assert image.layers[0].diff_id == digest(ROOTFS)
    manifest = json.loads((tmp_path / "store/blobs/sha256" / image.digest[7:]).read_bytes())
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == oci.LAYER + kept
    assert layer["digest"] == (digest(packed) if kept else digest(ROOTFS))
    # The same layer again, in another form: one EROFS file.
    store.import_file(put(tmp_path, ROOTFS), name="y")
    assert len(list((tmp_path / "store/erofs").iterdir())) == 1


def test_the_command_and_path_of_a_root_file_system_without_any(tmp_path: Path, store: ImageStore) -> None:
    image = store.import_file(put(tmp_path, ROOTFS))
    assert image.references == ()
    assert image.config.cmd == ("/bin/sh",)
    assert store.resolve(image.digest[:20]).digest == image.digest


def test_from_a_stream(tmp_path: Path, store: ImageStore) -> None:
    image = store.import_stream(io.BytesIO(gzip.compress(ROOTFS)), name="a:1")
    assert image.layers[0].diff_id == digest(ROOTFS)
    assert len(files(tmp_path)) == 4


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["archive", "directory", "archive.gz", "stream"])
def test_oci(tmp_path: Path, store: ImageStore, form: str, packed: bool) -> None:
    layout = Layout()
    lower, upper = small_layer("one"), small_layer("two")
    expected = layout.image(lower, upper, name="team/app:1", packed=packed, run={"Cmd": ["x"], "Env": None})
    if form == "directory":
        for name, data in layout.finished().items():
            path = tmp_path / "oci" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        image = store.import_file(tmp_path / "oci")
    elif form == "stream":
        image = store.import_stream(io.BytesIO(layout.tar()))
    else:
        data = gzip.compress(layout.tar()) if form.endswith("gz") else layout.tar()
        image = store.import_file(put(tmp_path, data))
    assert image.digest == expected
    assert image.references == ("team/app:1",)
    assert image.config.cmd == ("x",)
    assert image.created == 1714564800.0
    assert [layer.diff_id for layer in image.layers] == [digest(lower), digest(upper)]
    assert len(files(tmp_path)) == 6


@pytest.mark.parametrize("links", [False, True])
def test_docker_archives(tmp_path: Path, store: ImageStore, links: bool) -> None:
    layers = [small_layer("one"), small_layer("two"), small_layer("one")]
    image = store.import_file(
        put(tmp_path, docker_archive(layers, names=["docker.io/library/a:1", "b:2"], links=links))
    )
    assert image.references == ("a:1", "b:2")
    assert [layer.diff_id for layer in image.layers] == list(map(digest, layers))
    assert image.config.cmd == ("/bin/true",)
    assert len(files(tmp_path)) == 2 + 2 + 2


@pytest.mark.parametrize(("config", "layer"), [("sha256:{config}", "{layer}.tar.gz"), ("config.json", "a/layer.tar")])
def test_docker_archives_of_other_builders(tmp_path: Path, store: ImageStore, config: str, layer: str) -> None:
    data = small_layer()
    about = oci.dump({"architecture": "amd64", "rootfs": {"diff_ids": [digest(data)]}})
    names = [config.format(config=digest(about)[7:]), layer.format(layer=digest(data)[7:])]
    manifest = [{"Config": names[0], "RepoTags": None, "Layers": [names[1]]}]
    packed = gzip.compress(data) if layer.endswith("gz") else data
    parts = [entry(names[1], packed), entry(names[0], about), entry("manifest.json", oci.dump(manifest))]
    image = store.import_file(put(tmp_path, make_tar(*parts)), name="built:1")
    assert [layer.diff_id for layer in image.layers] == [digest(data)]


def test_a_root_file_system_with_files_named_as_an_archives(tmp_path: Path, store: ImageStore) -> None:
    files = [entry("manifest.json", b"{}"), entry("oci-layout", b"{}"), folder("usr"), entry("usr/x")]
    image = store.import_file(put(tmp_path, make_tar(folder("."), *files)))
    assert image.config.cmd == ("/bin/sh",)


def test_names_given_and_names_in_archives(tmp_path: Path, store: ImageStore) -> None:
    layout = Layout()
    layout.image(small_layer(), name="v1")
    path = put(tmp_path, layout.tar())
    with pytest.raises(Refused, match="a tag without a name"):
        store.import_file(path)
    assert store.import_file(path, name="mine").references == ("mine:latest",)
    layout.entries[0]["annotations"] = {"io.containerd.image.name": "docker.io/library/x:2", "other": "y"}
    assert store.import_file(put(tmp_path, layout.tar())).references == ("mine:latest", "x:2")
    layout.image(small_layer("more"), name="second:1")
    assert store.import_file(put(tmp_path, layout.tar())).references == ("mine:latest", "x:2")
    assert store.resolve("second:1").references == ("second:1",)
    with pytest.raises(Refused, match="2 images"):
        store.import_file(put(tmp_path, layout.tar()), name="both")
    with pytest.raises(Refused, match="changes apply"):
        store.import_file(path, name="mine", changes=["CMD x"])


def test_the_image_for_this_host_is_taken_from_a_list(tmp_path: Path, store: ImageStore) -> None:
    layout = Layout()
    for architecture in ("riscv64", "amd64", "unknown"):
        layout.image(small_layer(architecture), config={"architecture": architecture})
        layout.entries[-1]["platform"] = {"architecture": architecture, "os": "linux"}
    index = oci.dump({"schemaVersion": 2, "manifests": layout.entries})
    descriptor = layout.blob(index, "application/vnd.oci.image.index.v1+json")
    layout.entries = [{**descriptor, "annotations": {"org.opencontainers.image.ref.name": "multi:1"}}]
    assert store.import_file(put(tmp_path, layout.tar())).architecture == "amd64"


def _change(layout: Layout, part: str, **changes: object) -> None:
    """Change a document of the layout's one image, and every digest that leads to it."""
    manifest = json.loads(layout.files.pop(f"blobs/sha256/{layout.entries[0]['digest'][7:]}"))
    if part == "config":
        config = json.loads(layout.files.pop(f"blobs/sha256/{manifest['config']['digest'][7:]}"))
        manifest["config"] = layout.blob(oci.dump({**config, **changes}), oci.CONFIG)
    else:
        manifest |= changes
    layout.entries[0] |= layout.blob(oci.dump(manifest), oci.MANIFEST)


def _with_blob(layout: Layout, **changes: object) -> None:
    """Change what the manifest says about the image's one layer."""
    manifest = json.loads(layout.files[f"blobs/sha256/{layout.entries[0]['digest'][7:]}"])
    _change(layout, "manifest", layers=[{**manifest["layers"][0], **changes}])


def _other_layer(layout: Layout) -> None:
    layout.files[_BLOB] = small_layer("file", b"CONTENT")


def _other_manifest(layout: Layout) -> None:
    name = f"blobs/sha256/{layout.entries[0]['digest'][7:]}"
    layout.files[name] = layout.files[name].replace(b"2", b"3")


def _missing_layer(layout: Layout) -> None:
    del layout.files[_BLOB]


def _many_layers(layout: Layout) -> None:
    manifest = json.loads(layout.files[f"blobs/sha256/{layout.entries[0]['digest'][7:]}"])
    _change(layout, "config", rootfs={"diff_ids": [digest(small_layer())] * 200})
    _change(layout, "manifest", layers=manifest["layers"] * 200)


def _nested(layout: Layout) -> None:
    layout.entries = [layout.blob(b"{}", "application/vnd.oci.image.index.v1+json")]


_BLOB = f"blobs/sha256/{digest(small_layer())[7:]}"
_LIES: dict[str, Callable[[Layout], None]] = {
    f"{digest(small_layer())} has in truth the digest": _other_layer,
    "manifest.*has in truth the digest": _other_manifest,
    "layer.*were promised": lambda layout: _with_blob(layout, size=512),
    "manifest.*were promised": lambda layout: layout.entries[0].update(size=5),
    "its config says": lambda layout: _change(layout, "config", rootfs={"diff_ids": ["sha256:" + "0" * 64]}),
    "names 0 layers, the manifest 1": lambda layout: _change(layout, "config", rootfs={"diff_ids": []}),
    "lacks its layer": _missing_layer,
    "encrypted', which is not known": lambda layout: _with_blob(layout, mediaType="tar+encrypted"),
    "which is no image's": lambda layout: layout.entries[0].update(mediaType="application/octet-stream"),
    r"manifests\.0\.digest: String": lambda layout: layout.entries[0].update(digest="sha256:../../../etc/passwd"),
    r"manifests\.0\.size: Input": lambda layout: layout.entries[0].update(size=-1),
    r"manifests\.0\.size: Field": lambda layout: layout.entries[0].pop("size"),
    "not for Linux": lambda layout: _change(layout, "config", os="windows"),
    "'yesterday' is not a time": lambda layout: _change(layout, "config", created="yesterday"),
    "exposed port": lambda layout: _change(layout, "config", config={"ExposedPorts": {"70000/tcp": {}}}),
    "has no name": lambda layout: _change(layout, "config", config={"Env": ["=x"]}),
    r"config\.Cmd\.0": lambda layout: _change(layout, "config", config={"Cmd": ["a\0b"]}),
    r"config\.Cmd: ": lambda layout: _change(layout, "config", config={"Cmd": "sh"}),
    "at most 127": _many_layers,
    "for several architectures": _nested,
    "holds no images": lambda layout: layout.entries.clear(),
}
_ANY = entry("blobs/sha256/" + "0" * 64)
_LYING: dict[str, bytes] = {
    "nested too deep|is not JSON": make_tar(_ANY, entry("index.json", b"[" * 200_000)),
    "is not JSON": make_tar(_ANY, entry("index.json", b"{")),
    "at most 4194304": make_tar(_ANY, entry("index.json", b'{"manifests":[' + b" " * (5 << 20) + b"]}")),
    "neither a file nor a link": make_tar(_ANY, entry("device", kind=tarfile.CHRTYPE)),
    "link without end": make_tar(_ANY, symlink("index.json", "oci-layout"), symlink("oci-layout", "index.json")),
}


def _lying(lie: Callable[[Layout], None]) -> bytes:
    layout = Layout()
    layout.image(small_layer())
    lie(layout)
    return layout.tar()


@pytest.mark.parametrize("reason", [*_LIES, *_LYING])
def test_archives_that_lie(tmp_path: Path, store: ImageStore, reason: str) -> None:
    path = put(tmp_path, _LYING.get(reason) or _lying(_LIES[reason]))
    with pytest.raises(ImageError, match=reason) as caught:
        store.import_file(path)
    assert str(path) in caught.value.what
    assert files(tmp_path) == []
    assert store.list() == []


def test_docker_archives_that_lie(tmp_path: Path, store: ImageStore) -> None:
    good = docker_archive([small_layer()])
    for bad, reason in {
        docker_archive([small_layer()], config={"rootfs": {"diff_ids": ["sha256:" + "1" * 64]}}): "its config says",
        good.replace(b'"amd64"', b'"AMD64"'): "has in truth the digest",
        good.replace(b'.tar"]', b'.TAR"]'): "lacks its part",
    }.items():
        with pytest.raises(ImageError, match=reason):
            store.import_file(put(tmp_path, bad))
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"plain text, no tar",
        ROOTFS[: 3 * 512 + 5120],
        ROOTFS[: len(ROOTFS) // 2],
        gzip.compress(ROOTFS)[:-20],
        zstandard.ZstdCompressor().compress(ROOTFS)[:-600],
        make_tar(folder("d"), entry("d/../../x")),
        make_tar(entry("blobs", b"not a directory")),
    ],
)
def test_bad_root_file_systems_leave_nothing(tmp_path: Path, store: ImageStore, data: bytes) -> None:
    try:
        store.import_file(put(tmp_path, data), name="x")
    except ImageError:
        assert files(tmp_path) == []
        with pytest.raises(ImageError):
            store.import_stream(io.BytesIO(data), name="x")
        assert files(tmp_path) == []
    else:
        assert b"not a directory" in data


def test_what_cannot_be_imported(tmp_path: Path, store: ImageStore) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"neither an index\.json"):
        store.import_file(tmp_path / "empty")
    for path in (tmp_path / "missing", Path("/dev/null")):
        with pytest.raises(Refused):
            store.import_file(path)
    for name in ("BAD", "sha256:" + "0" * 64):
        with pytest.raises(Refused):
            store.import_file(put(tmp_path, ROOTFS), name=name)
    with pytest.raises(Refused) as caught:
        store.import_file(put(tmp_path, ROOTFS), changes=["FROM x", "EXPOSE http", "CMD"])
    assert len(caught.value.problems) == 3
    assert files(tmp_path) == []


def test_links_in_a_directory_are_not_followed(tmp_path: Path, store: ImageStore) -> None:
    layout = Layout()
    layout.image(small_layer())
    root = tmp_path / "oci"
    for name, data in layout.finished().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "blobs").rename(tmp_path / "elsewhere")
    (root / "blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match="is a symlink"):
        store.import_file(root)
    assert files(tmp_path) == []


def test_a_caller_that_gives_up_leaves_nothing(tmp_path: Path, store: ImageStore) -> None:
    class Gone(Exception):
        pass

    def leave(step: Step) -> None:
        if step.done:
            raise Gone

    with pytest.raises(Gone):
        store.import_file(put(tmp_path, ROOTFS), name="x", progress=leave)
    assert files(tmp_path) == []


def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path, store: ImageStore) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 2000:
                raise ConnectionResetError(104, "Connection reset by peer")
            return super().read(1500)

    with pytest.raises(HostError, match="Connection reset"):
        store.import_stream(Broken(ROOTFS), name="x")
    assert files(tmp_path) == []


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store", tmp_path / "cache", bounds=Bounds(keep_free=1 << 60))
    with pytest.raises(ImageError, match="free") as caught:
        store.import_file(put(tmp_path, ROOTFS))
    assert "prune" in caught.value.hint
    assert files(tmp_path) == []
    check_space(tmp_path, Bounds(keep_free=0))


def test_images_of_other_tools(tmp_path: Path, store: ImageStore) -> None:
    require("skopeo", "umoci")
    work = tmp_path / "work"
    work.mkdir()

    def run(*argv: str) -> None:
        subprocess.run(argv, cwd=work, check=True, capture_output=True)

    run("umoci", "init", "--layout", "oci")
    run("umoci", "new", "--image", "oci:v0")
    run("umoci", "unpack", "--image", "oci:v0", "one")
    for name, text in {"etc/keep": "k", "etc/drop": "d", "opt/old/file": "o"}.items():
        (work / "one/rootfs" / name).parent.mkdir(parents=True, exist_ok=True)
        (work / "one/rootfs" / name).write_text(text)
    (work / "one/rootfs/etc").chmod(0o711)
    run("umoci", "repack", "--image", "oci:v1", "one")
    run("umoci", "unpack", "--image", "oci:v1", "two")
    (work / "two/rootfs/etc/drop").unlink()
    (work / "two/rootfs/etc/new").write_text("n")
    run("umoci", "repack", "--image", "oci:v2", "two")
    run("skopeo", "copy", "-q", "oci:oci:v2", "docker-archive:docker.tar:test/app:2")
    run("skopeo", "copy", "-q", "oci:oci:v2", "oci-archive:oci.tar:test/app:3")
    run("skopeo", "copy", "-q", "--dest-compress-format", "zstd", "oci:oci:v2", "oci:zstd:test/app:4")
    images: list[Image] = [store.import_file(work / name) for name in ("docker.tar", "oci.tar", "zstd")]
    assert [image.references for image in images] == [("test/app:2",), ("test/app:3",), ("test/app:4",)]
    assert len({image.layers for image in images}) == 1
    assert len(images[0].layers) == 2
    assert len(list((tmp_path / "store/erofs").iterdir())) == 2
