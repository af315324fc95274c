"""Finding, removing, repairing: the store's own life."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bulkhead.errors import Conflict, ImageError, NotFound, Refused
from bulkhead.host.workspace import workspace
from bulkhead.images import Bounds, ImageStore
from tests.unit.images.lab import entry, folder, make_tar
from tests.unit.images.oci import Layout, digest, small_layer
from tests.unit.images.test_images_import import ROOTFS, files, put

BOUNDS = Bounds(keep_free=0)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return another(tmp_path)


def another(tmp_path: Path) -> ImageStore:
    """The store as another process would open it."""
    return ImageStore(tmp_path / "store", tmp_path / "cache", bounds=BOUNDS)


def two_layers(tmp_path: Path, store: ImageStore, name: str, upper: str) -> str:
    layout = Layout()
    layout.image(small_layer("base"), small_layer(upper), name=name)
    return store.import_file(put(tmp_path, layout.tar())).digest


def test_an_image_is_found_by_what_people_type(tmp_path: Path, store: ImageStore) -> None:
    made = store.import_file(put(tmp_path, ROOTFS), name="team/app:1")
    store.import_file(put(tmp_path, ROOTFS), name="debian")
    hexadecimal = made.digest[7:]
    for name in (
        "team/app:1",
        "docker.io/team/app:1",
        f"team/app@{made.digest}",
        made.digest,
        hexadecimal,
        hexadecimal[:6],
        made.digest[:13],
    ):
        assert store.resolve(name).digest == made.digest, name
    assert store.resolve("debian") is store.resolve("debian:latest")
    assert store.resolve("docker.io/library/debian").references == ("debian:latest",)


def test_what_is_not_found(tmp_path: Path, store: ImageStore) -> None:
    with pytest.raises(NotFound) as caught:
        store.resolve("debian:bookworm")
    assert "bootstrap" in caught.value.hint
    image = store.import_file(put(tmp_path, ROOTFS), name="debian:bookworm")
    with pytest.raises(NotFound) as caught:
        store.resolve("debian:bokworm")
    assert caught.value.hint == "did you mean debian:bookworm?"
    for name in ("x", "abcdef", f"other@{image.digest}", f"debian@sha256:{'0' * 64}", "sha256:" + "0" * 64):
        with pytest.raises(NotFound):
            store.resolve(name)
    for name in ("", "Bad Name", "a@b"):
        with pytest.raises(Refused):
            store.resolve(name)
    with pytest.raises(NotFound):
        store.erofs_path("sha256:" + "0" * 64)


def test_a_beginning_that_fits_two_images_is_refused(tmp_path: Path, store: ImageStore) -> None:
    first = store.import_file(put(tmp_path, ROOTFS), name="a")
    index = tmp_path / "store/index.json"
    twin = first.digest[:-1] + ("0" if first.digest[-1] != "0" else "1")
    index.write_text(index.read_text().replace("}]", f'}},{{"digest":"{twin}","size":1}}]'))
    with pytest.raises(Refused, match="2 images"):
        store.resolve(first.digest[7:20])
    assert store.resolve(first.digest).digest == first.digest


def test_a_name_moves_to_the_newer_image(tmp_path: Path, store: ImageStore) -> None:
    old = store.import_file(put(tmp_path, make_tar(folder("."), entry("old"))), name="app")
    new = store.import_file(put(tmp_path, make_tar(folder("."), entry("new"))), name="app")
    assert store.resolve("app").digest == new.digest
    assert store.resolve(old.digest).references == ()
    assert {image.digest for image in store.list()} == {old.digest, new.digest}
    assert store.prune().digests == (old.digest,)
    assert [image.digest for image in store.list()] == [new.digest]


def test_warm_answers_come_from_memory(tmp_path: Path, store: ImageStore) -> None:
    made = store.import_file(put(tmp_path, ROOTFS), name="app")
    assert store.resolve("app") is store.resolve("app")
    blob = tmp_path / "store/blobs/sha256" / made.digest[7:]
    blob.rename(tmp_path / "gone")
    assert store.resolve("app") is store.resolve("app:latest")
    with pytest.raises(ImageError, match="lacks blob"):
        another(tmp_path).resolve("app")
    (tmp_path / "gone").rename(blob)
    another(tmp_path).import_file(put(tmp_path, ROOTFS), name="second")
    assert store.resolve("second").references == ("second:latest",)
    another(tmp_path).remove("second")
    with pytest.raises(NotFound):
        store.resolve("second")


def test_documents_are_verified_when_they_are_read(tmp_path: Path, store: ImageStore) -> None:
    made = store.import_file(put(tmp_path, ROOTFS), name="app")
    blob = tmp_path / "store/blobs/sha256" / made.digest[7:]
    blob.write_bytes(blob.read_bytes().replace(b"2", b"3"))
    with pytest.raises(ImageError, match="damaged"):
        another(tmp_path).resolve("app")


def test_an_entry_that_somebody_else_wrote_is_no_image(tmp_path: Path, store: ImageStore) -> None:
    made = store.import_file(put(tmp_path, ROOTFS), name="app")
    index = tmp_path / "store/index.json"
    index.write_text(index.read_text().replace("bulkhead.layers", "x"))
    with pytest.raises(ImageError, match="has 1 layers, its index entry 0"):
        another(tmp_path).resolve(made.digest)


def test_inspect(tmp_path: Path, store: ImageStore) -> None:
    made = store.import_file(put(tmp_path, ROOTFS), name="app", changes=["EXPOSE 80", "LABEL a=b"])
    shown = store.inspect("app")
    assert shown["Id"] == made.digest
    assert shown["RepoTags"] == ["app:latest"]
    assert shown["RepoDigests"] == [f"app@{made.digest}"]
    assert shown["RootFS"] == {"Type": "layers", "Layers": [digest(ROOTFS)]}
    assert isinstance(shown["Config"], dict)
    assert shown["Config"]["ExposedPorts"] == {"80/tcp": {}}
    json.dumps(shown)


def test_removal_keeps_what_others_need(tmp_path: Path, store: ImageStore) -> None:
    first = two_layers(tmp_path, store, "a:1", "one")
    second = two_layers(tmp_path, store, "b:1", "two")
    shared = store.resolve("a:1").layers[0].erofs
    assert store.remove("a:1") == ["untagged: a:1", f"deleted: {first}"]
    assert shared.exists()
    assert len(files(tmp_path)) == 2 + 2 + 2
    assert store.resolve("b:1").digest == second
    store.remove(second)
    assert files(tmp_path) == []
    with pytest.raises(NotFound):
        store.remove("b:1")


def test_an_image_of_several_names(tmp_path: Path, store: ImageStore) -> None:
    layout = Layout()
    made = layout.image(small_layer(), name="")
    for name in ("a:1", "b:1", "c:1"):
        store.import_file(put(tmp_path, layout.tar()), name=name)
    assert store.resolve("a:1").references == ("a:1", "b:1", "c:1")
    assert store.remove("a:1", in_use={made: ["web"]}) == ["untagged: a:1"]
    with pytest.raises(Conflict, match="several names"):
        store.remove(made)
    with pytest.raises(Conflict, match="used by instance web"):
        store.remove(made, in_use={made: ["web"]}, force=True)
    assert store.remove(made[7:20], force=True) == ["untagged: b:1", "untagged: c:1", f"deleted: {made}"]
    assert files(tmp_path) == []


def test_what_an_instance_uses_stays(tmp_path: Path, store: ImageStore) -> None:
    made = two_layers(tmp_path, store, "a:1", "one")
    with pytest.raises(Conflict) as caught:
        store.remove("a:1", in_use={made: ["web"]})
    assert "rm web" in caught.value.hint
    with pytest.raises(Conflict, match=r"12 instances i0, i1, .*i7, \.\.\."):
        store.remove("a:1", in_use={made: [f"i{number}" for number in range(12)]})
    pruned = store.prune(in_use={made}, all_images=True)
    assert (pruned.digests, pruned.freed) == ((), 0)
    pruned = store.prune(all_images=True)
    assert pruned.digests == (made,)
    assert pruned.freed > 0
    assert files(tmp_path) == []


def test_a_damaged_image_does_not_take_others_with_it(tmp_path: Path, store: ImageStore) -> None:
    two_layers(tmp_path, store, "a:1", "one")
    second = two_layers(tmp_path, store, "b:1", "two")
    (tmp_path / "store/blobs/sha256" / second[7:]).write_bytes(b"{}")
    before = files(tmp_path)
    store.import_file(put(tmp_path, ROOTFS), name="c")
    # What the damaged image needs is not known, so nothing is deleted yet.
    store.remove("c")
    assert set(before) < set(files(tmp_path))
    done = another(tmp_path).recover()
    assert any(line.startswith(f"dropped image {second}") for line in done)
    assert [image.references for image in another(tmp_path).list()] == [("a:1",)]
    assert len(files(tmp_path)) == 6


def test_lost_layers_are_made_again(tmp_path: Path, store: ImageStore) -> None:
    layout = Layout()
    leaning = make_tar(entry("etc/x"))
    layout.image(small_layer(), leaning, small_layer("top"), name="a:1", packed=True)
    image = store.import_file(put(tmp_path, layout.tar()))
    contents = [layer.erofs.read_bytes() for layer in image.layers]
    image.layers[0].erofs.unlink()
    image.layers[1].erofs.write_bytes(contents[1][:4096])
    image.layers[2].erofs.write_bytes(bytes(len(contents[2])))
    done = another(tmp_path).recover()
    assert [line.split()[0] for line in done] == ["made"] * 3
    assert [layer.erofs.read_bytes() for layer in another(tmp_path).resolve("a:1").layers] == contents
    assert another(tmp_path).recover() == []


@pytest.mark.parametrize("keys", ["", "sha256:" + "0" * 64])
def test_an_index_entry_of_another_program_is_completed(tmp_path: Path, store: ImageStore, keys: str) -> None:
    """Whoever else writes the index leaves out what the layers' EROFS files are known by."""
    two_layers(tmp_path, store, "a:1", "one")
    image = two_layers(tmp_path, store, "b:1", "two")
    before = [layer.diff_id for layer in store.resolve("b:1").layers]
    index = tmp_path / "store/index.json"
    document = json.loads(index.read_text())
    for number, manifest in enumerate(document["manifests"]):
        manifest["annotations"].pop("bulkhead.layers")
        if keys and manifest["digest"] == image:
            manifest["annotations"]["bulkhead.layers"] = keys
        elif number:
            store.resolve("b:1").layers[1].erofs.unlink()
    index.write_text(json.dumps(document))
    done = another(tmp_path).recover()
    assert len([line for line in done if "its index entry did not have its layers" in line]) == 2
    assert any(f"{image} (b:1)" in line for line in done)
    assert not any("dropped" in line for line in done)
    assert {image.references for image in another(tmp_path).list()} == {("a:1",), ("b:1",)}
    assert [layer.diff_id for layer in another(tmp_path).resolve("b:1").layers] == before
    assert all(layer.erofs.exists() for layer in another(tmp_path).resolve("b:1").layers)
    assert another(tmp_path).recover() == []


def test_an_image_that_cannot_be_repaired_is_dropped(tmp_path: Path, store: ImageStore) -> None:
    image = store.import_file(put(tmp_path, ROOTFS), name="a")
    image.layers[0].erofs.unlink()
    (tmp_path / "store/blobs/sha256" / digest(ROOTFS)[7:]).write_bytes(b"short")
    done = another(tmp_path).recover()
    assert "is lost" in done[0]
    assert "(a:latest)" in done[0]
    assert another(tmp_path).list() == []
    assert files(tmp_path) == []


def test_an_image_that_has_only_lost_its_blob_works_on(tmp_path: Path, store: ImageStore) -> None:
    store.import_file(put(tmp_path, ROOTFS), name="a")
    (tmp_path / "store/blobs/sha256" / digest(ROOTFS)[7:]).unlink()
    (line,) = another(tmp_path).recover()
    assert "import it again" in line
    assert another(tmp_path).resolve("a").layers[0].erofs.exists()
    store.import_file(put(tmp_path, ROOTFS), name="a")
    assert another(tmp_path).recover() == []


def test_recovery_removes_what_a_crash_left(tmp_path: Path, store: ImageStore) -> None:
    store.import_file(put(tmp_path, ROOTFS), name="a")
    root = tmp_path / "store"
    left = root / "ingest/0123456789abcdef"
    left.mkdir()
    (left / "draft-1").write_bytes(b"x")
    (left / "lock").touch()
    (root / "index.json.new").write_bytes(b"{")
    (root / "blobs/sha256" / ("0" * 64)).write_bytes(b"x")
    (root / "erofs" / ("0" * 64 + ".erofs")).write_bytes(b"x")
    (tmp_path / "cache/work/feed").mkdir(parents=True)
    with workspace(root / "ingest") as (at_work, _):
        assert len(another(tmp_path).recover()) == 4
        assert at_work.exists()
    assert sorted(path.name for path in (root / "ingest").iterdir()) == ["lock"]
    assert len(files(tmp_path)) == 4
    assert another(tmp_path).recover() == []


_IMPORT = """
import os, signal, sys
from pathlib import Path
from bulkhead.host import workspace
from bulkhead.images import ImageStore, layout, ingest
root, file, point = sys.argv[1:]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
match point:
    case "unpacked": ingest._check = die
    case "placed": layout.Layout.write = die
    case "written": layout._replace = lambda path, data: (Path(f"{path}.new").write_bytes(data[:9]), die())
    case "named": workspace._remove = die
ImageStore(Path(root) / "store", Path(root) / "cache").import_file(Path(file), name="a")
"""


@pytest.mark.parametrize("point", ["unpacked", "placed", "written", "named"])
def test_a_killed_import_is_done_or_undone(tmp_path: Path, store: ImageStore, point: str) -> None:
    argv = [sys.executable, "-c", _IMPORT, str(tmp_path), str(put(tmp_path, ROOTFS)), point]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    done = another(tmp_path).recover()
    assert done
    assert another(tmp_path).recover() == []
    assert [image.references for image in store.list()] == ([("a:latest",)] if point == "named" else [])
    assert len(files(tmp_path)) == (4 if point == "named" else 0)


def test_imports_at_the_same_time(tmp_path: Path, store: ImageStore) -> None:
    layers = [small_layer(f"f{number}") for number in range(3)]
    paths = []
    for number in range(12):
        layout = Layout()
        layout.image(small_layer("base"), layers[number % 3], name=f"app:{number}", config={"created": None})
        paths.append(put(tmp_path, layout.tar(), f"file{number}"))
    stores = [store, another(tmp_path)]
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda pair: stores[pair[0] % 2].import_file(pair[1]), enumerate(paths)))
    assert {image.digest for image in made} == {image.digest for image in store.list()}
    assert len(store._layout.index().names) == 12
    assert len(list((tmp_path / "store/erofs").iterdir())) == 4
    assert another(tmp_path).recover() == []


def test_imports_while_the_same_is_removed(tmp_path: Path, store: ImageStore) -> None:
    """What an import found in the store may be removed before it commits; it has its own hold on it."""
    layout = Layout()
    layout.image(small_layer("base"), small_layer("top"), name="app:1")
    path = put(tmp_path, layout.tar())

    def cycle(number: int) -> None:
        mine = another(tmp_path)
        for _ in range(10):
            mine.import_file(path, name=f"app:{number}")
            mine.prune(in_use=())
            mine.remove(f"app:{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(cycle, range(4)))
    assert files(tmp_path) == []
    assert another(tmp_path).recover() == []


def test_the_store_is_an_oci_layout_that_others_can_read(tmp_path: Path, store: ImageStore) -> None:
    two_layers(tmp_path, store, "a:1", "one")
    argv = ["skopeo", "copy", "-q", f"oci:{tmp_path}/store:a:1", f"oci:{tmp_path}/copy:a:1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nobody_else_can_read_the_store(tmp_path: Path, store: ImageStore) -> None:
    assert os.stat(tmp_path / "store").st_mode & 0o777 == 0o700  # noqa: PTH116
