"""Disks as images: what is recognised, what an attacker can put into a disk file, what a crash leaves."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard

from bulkhead.errors import HostError, ImageError, Refused
from bulkhead.host import jailed, processes
from bulkhead.images import Bounds, ImageStore, diskfiles, diskformats, documents, partitions
from tests.harness.abilities import require
from tests.unit.images import oci

MIB = 1 << 20
SIZE = 64 * MIB
SECRET = "only for root"


@pytest.fixture(autouse=True)
def _programs() -> None:
    require("root", "qemu-img", "bwrap", "sfdisk")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store", tmp_path / "cache", bounds=Bounds(keep_free=0))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk with a partition table and some data."""
    return raw_disk(tmp_path / "disk.raw")


def raw_disk(path: Path, table: str = "label: gpt\nsize=8MiB\nsize=8MiB, type=U\n") -> Path:
    """A raw disk with this partition table, bytes that cannot be compressed, and holes."""
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at in (17 * MIB, 40 * MIB):
            file.seek(at + 12345)
            file.write(os.urandom(200_000))
    subprocess.run(["sfdisk", "-q", path], input=table.encode(), check=True, capture_output=True)
    return path


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def convert(disk: Path, form: str, *options: str) -> Path:
    target = disk.with_suffix(f".{form}")
    qemu_img("convert", "-f", "raw", "-O", form, *options, disk, target)
    return target


def changed(path: Path, at: int, data: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    return path


def is_empty(store: ImageStore, tmp_path: Path) -> bool:
    left = [*(tmp_path / "store/erofs").iterdir(), *(tmp_path / "store/blobs/sha256").iterdir()]
    return not left and not store.list() and [p.name for p in (tmp_path / "store/ingest").iterdir()] in ([], ["lock"])


# --- what is taken in


@pytest.mark.parametrize("form", ["raw", "qcow2", "compressed qcow2", "old qcow2", "vmdk", "stream vmdk", "zst"])
def test_a_disk_comes_out_as_it_went_in(form: str, store: ImageStore, disk: Path, tmp_path: Path) -> None:
    made: dict[str, Callable[[], Path]] = {
        "raw": lambda: disk,
        "qcow2": lambda: convert(disk, "qcow2"),
        "compressed qcow2": lambda: convert(disk, "qcow2", "-c", "-o", "compression_type=zstd"),
        "old qcow2": lambda: convert(disk, "qcow2", "-o", "compat=0.10"),
        "vmdk": lambda: convert(disk, "vmdk"),
        "stream vmdk": lambda: convert(disk, "vmdk", "-o", "subformat=streamOptimized"),
        "zst": lambda: compressed(disk),
    }
    image = store.import_file(made[form](), name="disk/mine")
    assert (image.kind, image.references, image.layers) == ("disk", ("disk/mine:latest",), ())
    assert image.disk is not None
    assert (image.disk.size, image.disk.firmware) == (SIZE, "uefi")
    assert image.disk.path.read_bytes() == disk.read_bytes()
    assert image.disk.path.stat().st_blocks * 512 < 4 * MIB
    assert image.blob(documents.DISK_TYPE).size < MIB
    assert store.inspect("disk/mine")["Annotations"] == {
        "org.bulkhead.kind": "disk",
        "org.bulkhead.disk.size": str(SIZE),
        "org.bulkhead.disk.firmware": "uefi",
    }
    info = image.disk.path.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (0, 0, 0o600)


def compressed(disk: Path) -> Path:
    target = disk.with_suffix(".raw.zst")
    target.write_bytes(zstandard.ZstdCompressor().compress(disk.read_bytes()))
    return target


def test_a_disk_from_a_stream(store: ImageStore, disk: Path) -> None:
    with convert(disk, "qcow2").open("rb") as stream:
        image = store.import_stream(stream)
    assert image.disk is not None
    assert image.disk.path.read_bytes() == disk.read_bytes()


def test_the_same_disk_is_kept_once_and_goes_with_its_last_image(store: ImageStore, disk: Path, tmp_path: Path) -> None:
    first = store.import_file(disk, name="disk/one")
    second = store.import_file(convert(disk, "qcow2"), name="disk/two")
    assert first.disk == second.disk
    assert len(list((tmp_path / "store/erofs").iterdir())) == 1
    for image in {first.digest, second.digest}:
        store.remove(image, force=True)
    assert is_empty(store, tmp_path)


def test_a_disk_that_is_lost_is_unpacked_again(store: ImageStore, disk: Path) -> None:
    image = store.import_file(disk, name="disk/mine")
    assert image.disk is not None
    os.truncate(image.disk.path, MIB)
    assert store.recover() == [f"unpacked disk {image.blobs[0].digest} again"]
    assert image.disk.path.read_bytes() == disk.read_bytes()
    assert store.recover() == []
    image.disk.path.unlink()
    image.blobs[0].path.unlink()
    (said,) = [line for line in store.recover() if line.startswith("dropped image")]
    assert "lost" in said
    assert store.list() == []


def test_changes_are_for_root_file_systems(store: ImageStore, disk: Path) -> None:
    with pytest.raises(Refused, match="this is a disk"):
        store.import_file(disk, changes=["CMD sh"])


GPT = "label: gpt\n"
ESP = "size=8MiB, type=U\n"


@pytest.mark.parametrize(
    ("table", "code", "wanted"),
    [
        (GPT + "size=8MiB\n", b"", "bios"),
        (GPT + ESP, b"", "uefi"),
        (GPT + ESP, b"\xeb\x63", "bios"),
        ("label: dos\nsize=8MiB, type=83\n", b"", "bios"),
        ("label: dos\nsize=8MiB, type=ef\n", b"", "uefi"),
    ],
)
def test_firmware(table: str, code: bytes, wanted: str, tmp_path: Path) -> None:
    disk = changed(raw_disk(tmp_path / "disk", table), 0, code)
    with disk.open("rb") as file:
        assert partitions.firmware(file.fileno()) == wanted


@pytest.mark.parametrize(
    "numbers", [(1 << 62, 128, 128), (2, 1 << 31, 128), (2, 128, 0), (2, 128, 1 << 31), (1 << 39, 1024, 1024)]
)
def test_a_lying_partition_table_is_passed_over(numbers: tuple[int, int, int], tmp_path: Path) -> None:
    disk = changed(raw_disk(tmp_path / "disk", GPT + ESP), 512 + 72, struct.pack("<QII", *numbers))
    with disk.open("rb") as file:
        assert partitions.firmware(file.fileno()) == "bios"


# --- attacks and damage


def with_backing(tmp_path: Path) -> Path:
    qemu_img("create", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", tmp_path / "x", "64M")
    return tmp_path / "x"


def with_data_file(tmp_path: Path) -> Path:
    os.chdir(tmp_path)
    qemu_img("create", "-f", "qcow2", "-o", "data_file=shadow,data_file_raw=on", "x", "64M")
    return tmp_path / "x"


def with_data_file_name(tmp_path: Path) -> Path:
    """The name alone, without the feature that makes QEMU use it."""
    qemu_img("create", "-f", "qcow2", tmp_path / "x", "64M")
    extension = struct.pack(">II", 0x44415441, 11) + b"/etc/shadow".ljust(16, b"\0") + bytes(8)
    return changed(tmp_path / "x", 112, extension)


def vmdk(tmp_path: Path, old: bytes, new: bytes) -> Path:
    qemu_img("create", "-f", "vmdk", tmp_path / "x", "64M")
    data = (tmp_path / "x").read_bytes()
    assert old in data
    padded = data.replace(old, new + b"\n#" if len(new) < len(old) else new, 1)
    # The descriptor has room behind it; what follows stays where it is.
    end = data.index(b"\0", data.index(b"# Disk DescriptorFile"))
    grown = len(padded) - len(data)
    (tmp_path / "x").write_bytes(padded[: end + grown] + padded[end + 2 * grown :])
    return tmp_path / "x"


def flat_vmdk(tmp_path: Path) -> Path:
    (tmp_path / "x").write_text(
        '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
        'RW 131072 FLAT "/etc/shadow" 0\n'
    )
    return tmp_path / "x"


def qcow2_with(at: int, data: bytes) -> Callable[[Path], Path]:
    def make(tmp_path: Path) -> Path:
        qemu_img("create", "-f", "qcow2", tmp_path / "x", "64M")
        return changed(tmp_path / "x", at, data)

    return make


def vmdk_with(at: int, data: bytes) -> Callable[[Path], Path]:
    return lambda tmp_path: changed(vmdk(tmp_path, b"x", b"y"), at, data)


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a backing file": (with_backing, "backing file"),
    "a data file": (with_data_file, "another file"),
    "a data file's name": (with_data_file_name, "another file"),
    "endless header extensions": (qcow2_with(104, b"\xff" * 512), r"no end|another file"),
    "an unknown feature": (qcow2_with(72, struct.pack(">Q", 1 << 40)), "features"),
    "marked as damaged": (qcow2_with(72, struct.pack(">Q", 2)), "marked as damaged"),
    "encryption": (qcow2_with(32, struct.pack(">I", 2)), "encrypted"),
    "an old version": (qcow2_with(4, struct.pack(">I", 1)), "version 1"),
    "clusters of a TiB": (qcow2_with(20, struct.pack(">I", 40)), "clusters"),
    "a disk of an EiB": (qcow2_with(24, struct.pack(">Q", 1 << 60)), "more than 64G"),
    "a disk of nothing": (qcow2_with(24, bytes(8)), "no disk has"),
    "a table that is its own": (qcow2_with(40, struct.pack(">Q", 7 << 40)), "damaged"),
    "a table of 2^32": (qcow2_with(36, b"\xff" * 4), "damaged"),
    "a VMDK of other files": (flat_vmdk, "other files"),
    "a VMDK of an extent elsewhere": (lambda path: vmdk(path, b'"x"', b'"/etc/shadow"'), "other files"),
    "a VMDK of two extents": (lambda path: vmdk(path, b'"x"\n', b'"x"\nRW 8 FLAT "y" 0\n'), "other files"),
    "a VMDK of a flat extent": (lambda path: vmdk(path, b"SPARSE", b"VMFS33"), "other files"),
    "a VMDK with a parent": (lambda path: vmdk(path, b"parentCID=ffffffff", b"parentCID=12345678"), "parent"),
    "a VMDK with a parent's name": (
        lambda path: vmdk(path, b"createType", b'parentFileNameHint="/etc/shadow"\ncreateType'),
        "parent",
    ),
    "a VMDK of two kinds": (
        lambda path: vmdk(path, b"createType", b'createType="monolithicFlat"\ncreateType'),
        "not one whole file",
    ),
    "a VMDK without a size": (vmdk_with(12, bytes(8)), "no size"),
    "a VMDK with a descriptor far away": (vmdk_with(28, struct.pack("<QQ", 1 << 50, 1)), r"not one whole|other files"),
    "a VMDK with a descriptor of a GiB": (vmdk_with(28, struct.pack("<QQ", 1, 1 << 21)), "descriptor"),
    "a VMDK of tables beyond its end": (vmdk_with(48, struct.pack("<QQ", 1 << 30, 1 << 30)), "truncated"),
    "LUKS": (lambda path: written(path, b"LUKS\xba\xbe" + bytes(SIZE)), "encrypted"),
    "a VHDX": (lambda path: written(path, b"vhdxfile" + bytes(SIZE)), "VHDX"),
    "a tiny raw disk": (lambda path: written(path, bytes(510) + b"\x55\xaa"), "no disk has"),
}


def written(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "x").write_bytes(data)
    return tmp_path / "x"


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_disk_is_refused_and_leaves_nothing(
    attack: str, store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, said = HOSTILE[attack]
    with pytest.raises(ImageError, match=said):
        store.import_file(make(tmp_path), name="disk/evil")
    assert is_empty(store, tmp_path)


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk"])
def test_a_truncated_disk_is_refused_and_leaves_nothing(
    form: str, store: ImageStore, disk: Path, tmp_path: Path
) -> None:
    file = disk if form == "raw" else convert(disk, form)
    os.truncate(file, file.stat().st_size - 400_000)
    with pytest.raises(ImageError, match=r"damaged|truncated"):
        store.import_file(file)
    assert is_empty(store, tmp_path)


def test_a_disk_that_outgrows_the_host_is_ended(disk: Path, tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    store = ImageStore(
        tmp_path / "store", tmp_path / "cache", bounds=Bounds(keep_free=room.f_bavail * room.f_frsize + (1 << 40))
    )
    with pytest.raises(ImageError, match="would leave less"):
        store.import_file(convert(disk, "qcow2"))
    assert is_empty(store, tmp_path)


_SLOW_IMPORT = """
import sys
from pathlib import Path
from bulkhead.images import Bounds, ImageStore, diskfiles
diskfiles._PROGRAM, diskfiles.checking = "/usr/bin/sleep", lambda form: ("1000",)
store = ImageStore(Path(sys.argv[1]), Path(sys.argv[2]), bounds=Bounds(keep_free=0))
store.import_file(Path(sys.argv[3]))
"""


def jailed_processes() -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if f"Uid:\t{jailed.USER}\t" in status.read_text():
                found.append(int(status.parent.name))
    return found


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_import_that_is_killed_leaves_nothing(store: ImageStore, disk: Path, tmp_path: Path) -> None:
    others = set(jailed_processes())
    argv = [
        sys.executable,
        "-c",
        _SLOW_IMPORT,
        *map(str, (tmp_path / "store", tmp_path / "cache", convert(disk, "qcow2"))),
    ]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as importer:
        try:
            wait_until(lambda: bool(set(jailed_processes()) - others))
            mine = set(jailed_processes()) - others
        finally:
            importer.kill()
    wait_until(lambda: not set(jailed_processes()) & mine)
    assert [line.split(" (")[0] for line in store.recover()] == ["removed an unfinished import"]
    assert is_empty(store, tmp_path)


# --- images of disks in archives


def disk_archive(tmp_path: Path, blob: bytes, **annotations: str) -> Path:
    said = {
        "org.bulkhead.kind": "disk",
        "org.bulkhead.disk.size": str(SIZE),
        "org.bulkhead.disk.firmware": "bios",
        **{f"org.bulkhead.disk.{key}": value for key, value in annotations.items()},
    }
    layout = oci.Layout()
    part = layout.blob(blob, documents.DISK_TYPE)
    diff_ids = {"rootfs": {"type": "layers", "diff_ids": [part["digest"]]}}
    layout.image(config=diff_ids, manifest={"layers": [part], "annotations": said})
    (tmp_path / "archive.tar").write_bytes(layout.tar())
    return tmp_path / "archive.tar"


def frames(disk: Path) -> bytes:
    with disk.open("rb") as file:
        return b"".join(diskfiles.packed(file.fileno(), SIZE))


def test_a_disk_in_an_archive(store: ImageStore, disk: Path, tmp_path: Path) -> None:
    image = store.import_file(disk_archive(tmp_path, frames(disk)), name="disk/mine")
    assert image.disk is not None
    assert image.disk.path.read_bytes() == disk.read_bytes()
    assert image.disk.path.stat().st_blocks * 512 < 4 * MIB
    assert image.digest != store.import_file(disk).digest


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"size": str(SIZE - 512)}, "more than"),
        ({"size": str(SIZE + 512)}, "truncated"),
        ({"size": str(1 << 60)}, "not a size"),
        ({"size": "-512"}, "not a size"),
        ({"size": "1000"}, "not a size"),
        ({"size": "٥١٢"}, "not a size"),
        ({"firmware": "coreboot"}, "not bios or uefi"),
    ],
)
def test_a_disk_that_is_not_what_it_says(
    about: dict[str, str], said: str, store: ImageStore, disk: Path, tmp_path: Path
) -> None:
    archive = disk_archive(tmp_path, frames(disk), **about)
    with pytest.raises(ImageError, match=said):
        store.import_file(archive)
    assert is_empty(store, tmp_path)


def test_a_bomb_is_no_larger_than_it_says(store: ImageStore, tmp_path: Path) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(4 * MIB)) * 1000
    with pytest.raises(ImageError, match="more than"):
        store.import_file(disk_archive(tmp_path, bomb))
    assert is_empty(store, tmp_path)


# --- the jail


def in_jail(script: str, given: dict[str, jailed.Given], **bounds: int) -> str:
    limits = jailed.Bounds(**{"memory": 1 << 30, "file": MIB, "cpu_seconds": 5, **bounds})
    return processes.run(jailed.command(["/usr/bin/sh", "-c", script], given=given, bounds=limits)).decode()


def test_in_the_jail_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("given")
    os.chown(tmp_path / "mine", jailed.USER, jailed.USER)
    (tmp_path / "mine").chmod(0o600)
    seen = in_jail(
        "/usr/bin/id -u; /usr/bin/id -G; /usr/bin/cat /mine; echo; cd /; echo *; "
        "/usr/bin/cat /etc/shadow /proc/1/cmdline /mine/../etc/shadow 2>&1; "
        "echo x 2>&1 > /mine; echo x 2>&1 > /new; /usr/bin/touch /usr/new 2>&1; ulimit -f; echo $$",
        {"/mine": jailed.Given(tmp_path / "mine")},
    )
    lines = seen.splitlines()
    assert lines[:4] == [str(jailed.USER), str(jailed.USER), "given", "dev lib lib64 mine usr"]
    assert "root:" not in seen
    assert (tmp_path / "mine").read_text() == "given"
    assert int(lines[-1]) <= 5
    assert lines[-2] == str(MIB // 512)


@pytest.mark.parametrize(
    "script",
    [
        "/usr/bin/head -c 2000000 /dev/urandom > /out",
        "/usr/bin/python3 -c 'bytearray(200 << 20)'",
        "while :; do :; done",
    ],
)
def test_what_a_jailed_program_takes_is_bounded(script: str, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    os.chown(tmp_path / "out", jailed.USER, jailed.USER)
    given = {"/out": jailed.Given(tmp_path / "out", write=True)}
    with pytest.raises(HostError, match="failed with"):
        in_jail(script, given, memory=64 * MIB, cpu_seconds=1)
    assert (tmp_path / "out").stat().st_size <= MIB


def test_a_disk_that_names_a_secret_gets_nothing_of_it_even_unchecked(tmp_path: Path) -> None:
    """The second wall: what the check would let through finds no other file."""
    (tmp_path / "secret").write_text(SECRET.ljust(MIB, "."))
    source, target = tmp_path / "source", tmp_path / "target"
    qemu_img("create", "-f", "qcow2", "-b", tmp_path / "secret", "-F", "raw", source)
    target.touch()
    diskfiles.convert(diskformats.DiskFile("qcow2", MIB), source, target, Bounds(keep_free=0), lambda step: None)
    assert SECRET.encode() not in target.read_bytes()


def test_qemu_img_is_told_the_format() -> None:
    for words in (diskfiles.checking("qcow2"), diskfiles.conversion("qcow2")):
        (source,) = [word for word in words if word.startswith("json:")]
        assert '"driver": "qcow2"' in source
        assert '"backing": null' in source
