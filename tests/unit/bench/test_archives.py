from __future__ import annotations

import io
import tarfile
from pathlib import Path

from bench.archives import MARKER, ImportArchive


def _root(path: Path) -> Path:
    with tarfile.open(path, "w") as root:
        for name, size in (("b/large", 50_000), ("b/small", 100), ("a", 3000)):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = size, 77
            root.addfile(member, io.BytesIO(bytes(size)))
        for name, target in (("link", "a"), ("dangling", "b/large")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.LNKTYPE, target
            root.addfile(link)
    return path


def test_the_same_root_gives_the_same_archive_of_the_size(tmp_path: Path) -> None:
    root = _root(tmp_path / "root.tar")
    one, two = (ImportArchive(tmp_path / name, root, 40_960) for name in ("one.tar", "two.tar"))
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.size == 40_960
    with tarfile.open(one.path) as cut:
        names = cut.getnames()
        assert names[:7] == [MARKER, "a", "b/small", "link", "copy1/a", "copy1/b/small", "copy1/link"]
        assert names[-1] == "bench-padding"
        assert not any("large" in name or "dangling" in name for name in names)
        assert all(member.mtime == 0 for member in cut)


def test_renewing_changes_one_file_alone(tmp_path: Path) -> None:
    archive = ImportArchive(tmp_path / "one.tar", _root(tmp_path / "root.tar"), 40_960)
    before = archive.path.read_bytes()
    archive.renew()
    after = archive.path.read_bytes()
    assert len(after) == len(before)
    assert [number for number, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]] == [
        *range(tarfile.BLOCKSIZE, tarfile.BLOCKSIZE + 8)
    ]
    with tarfile.open(archive.path) as cut:
        marker = cut.extractfile(MARKER)
        assert marker is not None
        assert marker.read().startswith(b"00000001")
