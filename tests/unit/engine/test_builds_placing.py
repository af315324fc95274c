"""COPY and ADD without a daemon: where files go in a root that is there; hostile contexts and archives."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from bulkhead.engine.builds.placing import Manner, Placement, owner_of
from bulkhead.engine.builds.selecting import choose, digest
from bulkhead.errors import ImageError, Refused
from bulkhead.images import Bounds, ImageStore
from bulkhead.images.view import View, components
from tests.unit.images.lab import entry, folder, make_tar, symlink

Files = Callable[..., View]
PLAIN = Manner(owner=None, keep_owners=False, mode=None, latest=1000, clamp=True, unpack=False)
ADDED = Manner(owner=None, keep_owners=False, mode=None, latest=1000, clamp=True, unpack=True)
BOUNDS = Bounds(keep_free=0)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images", tmp_path / "cache", bounds=BOUNDS)


@pytest.fixture
def files(store: ImageStore) -> Iterator[Files]:
    """Makes the view of a tar's files."""
    with ExitStack() as always:

        def make(*entries: tuple[tarfile.TarInfo, bytes]) -> View:
            path = always.enter_context(store.workshop.context(iter([make_tar(*entries)])))
            return View([always.enter_context(path.open("rb")).fileno()])

        yield make


def copied(
    root: View, context: View, sources: Sequence[str], target: str, manner: Manner = PLAIN
) -> dict[str, tarfile.TarInfo]:
    """The layer of a COPY, by name."""
    data = tar_of(root, context, sources, target, manner)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def tar_of(root: View, context: View, sources: Sequence[str], target: str, manner: Manner = PLAIN) -> bytes:
    chosen = [each for source in sources for each in choose(context, source, what="the context")]
    placement = Placement(root, manner)
    directory = target.endswith("/") or any(each.is_directory for each in chosen)
    placement.place(chosen, components(target), is_directory=directory)
    return b"".join(placement.layer(BOUNDS))


def test_a_file_a_directory_and_their_parents(files: Files) -> None:
    root = files(folder("srv", 0o711, uid=5, gid=6))
    context = files(entry("a", b"1", mode=0o640, uid=1000, mtime=5000), folder("d", 0o700), entry("d/b", b"2"))
    found = copied(root, context, ["a"], "/srv/new/name")
    assert list(found) == ["srv", "srv/new", "srv/new/name"]
    assert (found["srv"].mode, found["srv"].uid, found["srv"].gid) == (0o711, 5, 6)
    assert (found["srv/new"].mode, found["srv/new"].uid) == (0o755, 0)
    file = found["srv/new/name"]
    assert (file.mode, file.uid, file.mtime) == (0o640, 0, 1000)
    assert list(copied(root, context, ["a"], "/srv/")) == ["srv", "srv/a"]
    assert list(copied(root, context, ["a"], "/srv")) == ["srv", "srv/a"]
    assert list(copied(root, context, ["d"], "/x")) == ["x", "x/b"]
    assert list(copied(root, context, ["d", "a"], "/x/")) == ["x", "x/a", "x/b"]


def test_owners_and_modes(files: Files) -> None:
    root = files(folder("etc"), entry("etc/passwd", b"web:x:33:34::/:\n"), entry("etc/group", b"www:x:44:\n"))
    context = files(folder("d"), entry("d/b", b"2"), symlink("d/l", "b"))
    manner = Manner(owner=(7, 8), keep_owners=False, mode=0o700, latest=0, clamp=False, unpack=False)
    found = copied(root, context, ["d"], "/x/y", manner)
    assert {(member.uid, member.gid) for member in found.values()} == {(7, 8)}
    assert found["x/y/b"].mode == 0o700
    assert owner_of("web", root) == (33, 33)
    assert owner_of("web:www", root) == (33, 44)
    assert owner_of("5:6", root) == (5, 6)
    assert owner_of("5", root) == (5, 5)
    with pytest.raises(Refused, match="user 'nobody' is not in"):
        owner_of("nobody", root)


def test_links_of_the_image_lead_inside_it(files: Files) -> None:
    """A merged /usr stays one, and a link to a directory outside is one to the image's own."""
    root = files(folder("usr"), folder("usr/lib"), symlink("lib", "usr/lib"), symlink("out", "/../../usr"))
    context = files(folder("t"), folder("t/lib"), entry("t/lib/so", b"1"), entry("f", b"2"))
    assert sorted(copied(root, context, ["t"], "/")) == ["usr", "usr/lib", "usr/lib/so"]
    assert sorted(copied(root, context, ["f"], "/lib/")) == ["usr", "usr/lib", "usr/lib/f"]
    assert sorted(copied(root, context, ["f"], "/out/")) == ["usr", "usr/f"]


def test_links_of_the_context_lead_inside_it(files: Files) -> None:
    context = files(
        symlink("up", "../../../etc"), symlink("abs", "/d"), folder("d"), entry("d/x", b"1"), symlink("d/l", "/etc")
    )
    with pytest.raises(Refused, match="'up' is not in the context"):
        choose(context, "up", what="the context")
    found = copied(View([]), context, ["abs"], "/y/")
    assert sorted(found) == ["y", "y/l", "y/x"]
    assert found["y/l"].issym() and found["y/l"].linkname == "/etc"
    with pytest.raises(Refused, match="not in the context"):
        choose(context, "../../etc/passwd", what="the context")
    circle = files(symlink("a", "b"), symlink("b", "a"))
    with pytest.raises(ImageError, match="more than 40 links"):
        choose(circle, "a", what="the context")


def test_patterns(files: Files) -> None:
    context = files(entry("a.c", b""), entry("b.c", b""), entry("b.h", b""), folder("d"), entry("d/x.c", b""))
    assert sorted(copied(View([]), context, ["*.c"], "/s/")) == ["s", "s/a.c", "s/b.c"]
    assert sorted(copied(View([]), context, ["*/x.[a-c]"], "/s/")) == ["s", "s/x.c"]
    with pytest.raises(Refused, match="not in the context"):
        choose(context, "*.py", what="the context")
    with pytest.raises(Refused, match="several files are copied to one"):
        copied(View([]), context, ["*.c"], "/s")


def test_exclusion(files: Files) -> None:
    context = files(folder("d"), entry("d/a.c", b""), folder("d/sub"), entry("d/sub/b.c", b""), entry("d/k", b""))
    chosen = choose(context, "d", what="the context", exclude=("*.c", "sub"))
    assert [below for source in chosen for below, _, _ in source.files()] == [(b"k",)]


def test_files_and_directories_in_each_others_way(files: Files) -> None:
    root = files(folder("dir"), folder("dir/name"), entry("file", b""))
    context = files(entry("name", b"1"), folder("d"), folder("d/file"), entry("d/file/x", b""))
    with pytest.raises(Refused, match="cannot take the place of the directory"):
        copied(root, context, ["name"], "/dir/")
    with pytest.raises(Refused, match="which is a file in the image"):
        copied(root, context, ["d"], "/")
    with pytest.raises(Refused, match="is a file in the image"):
        copied(root, context, ["name"], "/file/")
    with pytest.raises((Refused, ImageError), match=r"not a directory|file in the image"):
        copied(root, context, ["name"], "/file/x")


def test_what_content_is_counts(files: Files) -> None:
    one = files(folder("d"), entry("d/a", b"1", mtime=1))
    same = files(folder("d"), entry("d/a", b"1", mtime=2, uid=5))
    for other in (entry("d/a", b"2"), entry("d/a", b"1", mode=0o600), entry("d/b", b"1")):
        assert known(files(folder("d"), other)) != known(one)
    assert known(one) == known(same)
    assert digest(choose(one, "d", what="it"), owners=True) != digest(choose(same, "d", what="it"), owners=True)


def known(view: View) -> str:
    return digest(choose(view, "d", what="it"), owners=False)


# --- ADD


def archive_context(files: Files, data: bytes) -> View:
    return files(entry("in.tar", data))


@pytest.mark.parametrize("packed", [False, True])
def test_archives_are_unpacked(files: Files, packed: bool) -> None:
    inner = make_tar(folder("./a"), entry("./a/b", b"1", uid=5), symlink("l", "/etc/passwd"))
    context = archive_context(files, gzip.compress(inner) if packed else inner)
    found = copied(View([]), context, ["in.tar"], "/opt/", ADDED)
    assert list(found) == ["opt", "opt/a", "opt/a/b", "opt/l"]
    assert found["opt/a/b"].uid == 5
    assert list(copied(View([]), context, ["in.tar"], "/opt/")) == ["opt", "opt/in.tar"]


def test_what_is_no_archive_is_copied(files: Files) -> None:
    for data in (b"", b"x" * 2000, gzip.compress(b"no tar"), b"\x1f\x8bbroken", bytes(1024)):
        found = copied(View([]), archive_context(files, data), ["in.tar"], "/opt/", ADDED)
        assert list(found) == ["opt", "opt/in.tar"]


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        (entry("../../etc/cron.d/x", b"1"), "leads out of it"),
        (entry("a/../../x", b"1"), "leads out of it"),
        (entry("etc/.wh.passwd", b""), "stands for a removed file"),
        (folder(".wh.etc/x"), "stands for a removed file"),
    ],
)
def test_archives_that_attack(files: Files, attack: tuple[tarfile.TarInfo, bytes], why: str) -> None:
    with pytest.raises(ImageError, match=why):
        tar_of(View([]), archive_context(files, make_tar(attack)), ["in.tar"], "/opt/", ADDED)


def test_an_archive_that_goes_through_its_own_link(files: Files, store: ImageStore) -> None:
    inner = make_tar(symlink("d", "/etc"), entry("d/x", b"1"))
    data = tar_of(View([]), archive_context(files, inner), ["in.tar"], "/opt/", ADDED)
    with (
        pytest.raises(ImageError, match=r"link to nowhere|leads through"),
        store.workshop.make("sha256:" + "1" * 64, iter([data]), (), 0.0),
    ):
        pass


def test_a_context_cannot_remove_anything(files: Files, store: ImageStore) -> None:
    context = files(folder("d"), entry("d/.wh.passwd", b""), folder("e"), entry("e/.wh..wh..opq", b""))
    for source in ("d", "e"):
        layer = copied(View([]), context, [source], "/etc/")
        assert not [name for name in layer if ".wh." in name]
    assert stat.S_ISDIR(context.find((b"d",)).mode)  # type: ignore[union-attr]
