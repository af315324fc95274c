"""Whiteouts, duplicates, links and directories that a layer leaves out: what an overlay of the layers shows."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkhead.images.below import Below
from bulkhead.images.node import EMPTY, Node, directory
from bulkhead.images.tree import Tree
from tests.harness.abilities import require
from tests.unit.images import lab
from tests.unit.images.lab import Shown, entry, folder, hardlink, make_tar, symlink


@pytest.fixture(autouse=True)
def _needs() -> None:
    require("root", "mount namespaces", "erofs", "overlay", "fsck.erofs")


def merged(tmp_path: Path, *layers: bytes) -> Shown:
    """What an overlay of these tars shows."""
    images: list[Path] = []
    for number, data in enumerate(layers):
        image = tmp_path / f"{number}.erofs"
        lab.pack(data, image, below=images)
        lab.fsck(image)
        images.append(image)
    with lab.overlaid(images, tmp_path / "mounts") as root:
        return lab.show(root)


def names(shown: Shown) -> list[str]:
    return sorted(set(shown) - {"."})


BASE = make_tar(
    folder("."),
    folder("tmp", 0o1777, mtime=7),
    folder("etc", 0o750, uid=3, gid=4, mtime=5, pax={"SCHILY.xattr.user.note": "kept"}),
    entry("etc/a", b"a"),
    entry("etc/b", b"b"),
    folder("old"),
    entry("old/x"),
    entry("old/y"),
    folder("usr"),
    folder("usr/lib", 0o711),
    entry("usr/lib/base"),
    symlink("lib", "usr/lib"),
    symlink("abs", "/usr/lib"),
)


def test_whiteouts_and_opaque_directories(tmp_path: Path) -> None:
    top = make_tar(entry("etc/.wh.a"), folder("old"), entry("old/.wh..wh..opq"), entry("old/z"), entry(".wh.tmp"))
    shown = merged(tmp_path, BASE, top)
    assert names(shown) == ["abs", "etc", "etc/b", "lib", "old", "old/z", "usr", "usr/lib", "usr/lib/base"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_name_removed_and_made_anew_in_one_layer(tmp_path: Path, order: int) -> None:
    for marks, files, expected in (
        ([entry(".wh.old")], [folder("old"), entry("old/z")], ["old", "old/z"]),
        ([entry(".wh.old")], [entry("old", b"now a file")], ["old"]),
        ([entry("etc/.wh.a")], [entry("etc/a", b"new")], ["etc", "etc/a", "etc/b"]),
    ):
        where = tmp_path / str(len(list(tmp_path.iterdir())))
        where.mkdir()
        shown = merged(where, BASE, make_tar(*(marks + files)[::order]))
        first = expected[0]
        assert [name for name in names(shown) if name.split("/")[0] == first] == expected


def test_a_removed_name_without_its_directory_entry(tmp_path: Path) -> None:
    shown = merged(tmp_path, BASE, make_tar(entry(".wh.old"), entry("old/z")))
    assert [name for name in names(shown) if name.startswith("old")] == ["old", "old/z"]


def test_directories_left_out_stay_as_they_are_below(tmp_path: Path) -> None:
    middle = make_tar(entry("tmp/one"))
    top = make_tar(entry("etc/c", b"c"), entry("tmp/two"), entry("fresh/deep/file"))
    alone = merged(tmp_path, BASE)
    (tmp_path / "more").mkdir()
    shown = merged(tmp_path / "more", BASE, middle, top)
    for name in ("tmp", "etc"):
        assert shown[name] == alone[name]
    assert shown["etc"]["xattrs"] == {"user.note": b"kept"}
    assert shown["fresh/deep"]["mode"] == "drwxr-xr-x"
    assert {"tmp/one", "tmp/two", "etc/a", "etc/c"} <= set(shown)


def test_links_below_are_followed_not_hidden(tmp_path: Path) -> None:
    files = [entry("lib/new", b"1"), entry("abs/other", b"2"), hardlink("lib/again", "lib/new"), entry("lib/.wh.base")]
    top = make_tar(*files)
    shown = merged(tmp_path, BASE, top)
    assert shown["lib"]["target"] == "usr/lib"
    assert shown["usr/lib"]["mode"] == "drwx--x--x"
    assert {name for name in shown if name.startswith("usr/lib/")} == {"usr/lib/new", "usr/lib/other", "usr/lib/again"}
    assert shown["usr/lib/new"]["nlink"] == 2


def test_what_is_removed_below_is_not_looked_at(tmp_path: Path) -> None:
    gone = make_tar(entry(".wh.etc"), entry(".wh.lib"), folder("old"), entry("old/.wh..wh..opq"))
    shown = merged(tmp_path, BASE, gone, make_tar(entry("etc/new"), entry("lib/new")))
    assert shown["etc"]["mode"] == shown["lib"]["mode"] == "drwxr-xr-x"
    assert shown["etc"]["owner"] == (0, 0)


def test_the_key_says_what_a_layer_leans_on(tmp_path: Path) -> None:
    def key(data: bytes, *below: bytes) -> str:
        images = []
        for number, lower in enumerate(below):
            lab.pack(lower, tmp_path / str(number))
            images.append(tmp_path / str(number))
        found = lab.pack(data, tmp_path / "top", below=images)
        assert (found.key == found.diff_id) is data.startswith(b"./")
        return found.key

    whole, leaning = make_tar(folder("."), folder("etc"), entry("etc/c")), make_tar(entry("etc/c"))
    other = make_tar(folder("."), folder("etc", 0o700))
    assert key(whole, BASE) == key(whole, other) == key(whole)
    assert key(leaning, BASE) == key(leaning, BASE, make_tar(folder("."), entry("else")))
    assert len({key(leaning, BASE), key(leaning, other), key(leaning)}) == 3


def test_links_in_a_layer_are_followed_inside_it(tmp_path: Path) -> None:
    data = make_tar(
        folder("."),
        folder("usr"),
        folder("usr/lib"),
        symlink("lib", "usr/lib"),
        symlink("up", "../../usr"),
        symlink("usr/back", "/lib"),
        entry("lib/one"),
        entry("up/lib/two"),
        entry("usr/back/three"),
        hardlink("four", "lib/one"),
    )
    shown = merged(tmp_path, data)
    assert {"usr/lib/one", "usr/lib/two", "usr/lib/three", "four"} <= set(shown)
    assert shown["four"]["same"] == ["four", "usr/lib/one"]


def test_the_last_entry_of_a_name_wins(tmp_path: Path) -> None:
    data = make_tar(
        folder(".", 0o700),
        folder("d", 0o700),
        entry("d/kept"),
        entry("f", b"first"),
        hardlink("still-first", "f"),
        entry("f", b"second"),
        folder("d", 0o711),
        folder("gone"),
        entry("gone/x"),
        entry("gone", b"a file now"),
        entry("became"),
        folder("became"),
        symlink("s", "d"),
        folder("s"),
        entry("s/inside"),
        folder(".", 0o755),
    )
    shown = merged(tmp_path, data)
    assert names(shown) == ["became", "d", "d/kept", "f", "gone", "s", "s/inside", "still-first"]
    assert shown["d"]["mode"] == "drwx--x--x"
    assert shown["f"]["content"] != shown["still-first"]["content"]
    assert shown["f"]["nlink"] == shown["still-first"]["nlink"] == 1


def test_names_that_mean_the_same(tmp_path: Path) -> None:
    data = make_tar(entry("/a/one"), entry("./a/two"), entry("a//three"), entry("a/./four"), folder("//a//", 0o700))
    shown = merged(tmp_path, data)
    assert names(shown) == ["a", "a/four", "a/one", "a/three", "a/two"]
    assert shown["a"]["mode"] == "drwx------"


Step = tuple[str, list[str]]
Model = dict[str, "Model | None"]
_STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.sampled_from(["file", "dir", "gone", "opaque"]),
        st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3),
    ),
    max_size=8,
)


def _applied(below: Model, steps: list[Step]) -> tuple[Model, list[Step]]:
    """A layer's changes made to nested dicts (None is a file), and those of them that a builder would write down.

    A builder says one thing about a name, and nothing about what is in a directory that it has removed.
    """
    top = _copied(below)
    made: list[Step] = []
    for kind, parts in steps:
        here: Model | None = top
        for part in parts[:-1]:
            here = here.get(part) if here is not None else None
        said = [done for _, done in made]
        closed = [done for how, done in made if how in ("file", "gone")]
        if here is None or parts in said or any(parts[: len(done)] == done for done in closed):
            continue
        name = parts[-1]
        inside = any(done[: len(parts)] == parts for done in said)
        if kind == "file" and not inside:
            here[name] = None
        elif kind == "dir" and here.get(name) is None:
            here[name] = {}
        elif kind == "gone" and name in here and not inside:
            del here[name]
        elif kind == "opaque" and here.get(name) is not None and not inside:
            here[name] = {}
        else:
            continue
        made.append((kind, parts))
    return top, made


def _copied(model: Model) -> Model:
    return {name: None if value is None else _copied(value) for name, value in model.items()}


def _flat(model: Model, prefix: str = "") -> dict[str, bool]:
    found: dict[str, bool] = {}
    for name, value in model.items():
        found[prefix + name] = value is not None
        if value is not None:
            found |= _flat(value, f"{prefix}{name}/")
    return found


def _as_tar(made: list[Step]) -> bytes:
    entries = [folder(".")]
    for kind, parts in made:
        path, parent = "/".join(parts), "/".join([*parts[:-1], ""])
        if kind == "file":
            entries.append(entry(path, path.encode()))
        elif kind == "gone":
            entries.append(entry(f"{parent}.wh.{parts[-1]}"))
        else:
            entries.append(folder(path))
            if kind == "opaque":
                entries.append(entry(f"{path}/.wh..wh..opq"))
    return make_tar(*entries)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers=st.lists(_STEPS, min_size=1, max_size=3))
def test_overlays_show_what_the_layers_say(tmp_path: Path, layers: list[list[Step]]) -> None:
    model: Model = {}
    tars = []
    for steps in layers:
        model, made = _applied(model, steps)
        tars.append(_as_tar(made))
    shown = merged(Path(tempfile.mkdtemp(dir=tmp_path)), *tars)
    assert {name: about["mode"][0] == "d" for name, about in shown.items() if name != "."} == _flat(model)


def test_a_tree_without_links_is_its_paths() -> None:
    tree = Tree(lab.ROOMY, Below([]))
    tree.put(b"a/b", directory())
    tree.put(b"a/b/c", Node(0o100644, content=EMPTY))
    assert tree.find(b"a/b/c") is not None
    assert tree.find(b"a/x") is None
    assert tree.find(b"/") is tree.root
    assert [path for path, _ in tree.leans_on()] == [b"a"]
