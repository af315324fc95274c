"""Templates on disk and in memory; their makers."""

from __future__ import annotations

import json
import mmap
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.boot.templates import KEY, RAM, STATE, Makers, TemplateKey, Templates
from bulkhead.errors import HostError

SIZE = 4 << 20
ROOM = 64 << 20
A = TemplateKey("sha256:a", "sha256:b", "7.2", "tcg max", "", SIZE, 1, SIZE, 1, 2, 4, network=True)
B = replace(A, vcpus=2)


@pytest.fixture
def templates(tmp_path: Path) -> Iterator[Templates]:
    made = Templates(tmp_path / "templates", max_bytes=ROOM)
    yield made
    made.close()


def make(templates: Templates, key: TemplateKey, content: bytes = b"ready") -> None:
    with templates.making(key) as work:
        (work / STATE).write_bytes(b"device state")
        with (work / RAM).open("wb") as file:
            file.truncate(key.memory)
            file.seek(8192)
            file.write(content)
            # What a guest has cleared is zero, and takes room until it is punched out.
            file.seek(1 << 20)
            file.write(bytes(1 << 20))


def test_what_was_made_is_found_and_cannot_be_changed(templates: Templates) -> None:
    assert templates.find(A) is None
    make(templates, A)
    found = templates.find(A)
    assert found is not None
    again = os.open(f"/proc/self/fd/{found.ram}", os.O_RDWR)
    try:
        assert found.state.read_bytes() == b"device state"
        assert os.pread(found.ram, 6, 8191) == b"\0ready"
        assert os.fstat(found.ram).st_blocks * 512 <= 4096
        # As QEMU opens and maps it: writable, private.
        with mmap.mmap(again, SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as private:
            private[8192:8197] = b"other"
        assert os.pread(found.ram, 5, 8192) == b"ready"
        with pytest.raises(PermissionError):
            os.pwrite(again, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(again, SIZE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(again)
        os.close(found.ram)


def test_another_key_is_another_template(templates: Templates) -> None:
    make(templates, A)
    for changed in (
        replace(A, kernel="sha256:c"),
        replace(A, initrd="sha256:c"),
        replace(A, vmm="8.0"),
        replace(A, processor="kvm host"),
        replace(A, cpu_model="Nehalem"),
        replace(A, memory=2 * SIZE),
        replace(A, disks=4),
        replace(A, network=False),
        B,
    ):
        assert templates.find(changed) is None


def test_the_one_that_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    templates = Templates(tmp_path, max_bytes=60_000)
    for key in (A, B):
        make(templates, key, bytes(range(1, 255)) * 40)
    os.utime(tmp_path / A.name / KEY, (1, 1))
    make(templates, replace(A, vcpus=3), bytes(range(1, 255)) * 40)
    assert [item.key.vcpus for item in templates.stored()] == [3, 2]
    with pytest.raises(HostError, match="larger than what templates may take"):
        make(templates, replace(A, vcpus=4), b"x" * 100_000)
    assert [item.key.vcpus for item in templates.stored()] == [3, 2]
    templates.close()


def test_one_that_fails_leaves_nothing(templates: Templates, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), templates.making(A) as work:
        (work / RAM).write_bytes(b"half")
        raise RuntimeError
    assert templates.stored() == []
    assert list((tmp_path / "templates").rglob(RAM)) == []


@pytest.mark.parametrize("damage", ["key", "short ram", "no ram", "other key"])
def test_a_damaged_one_is_made_again(templates: Templates, tmp_path: Path, damage: str) -> None:
    make(templates, A)
    path = tmp_path / "templates" / A.name
    if damage == "key":
        (path / KEY).write_text("{")
    elif damage == "other key":
        (path / KEY).write_text(json.dumps({"kernel": "x"}))
    elif damage == "short ram":
        os.truncate(path / RAM, 4096)
    else:
        (path / RAM).unlink()
    assert templates.find(A) is None
    make(templates, A)
    found = templates.find(A)
    assert found is not None
    os.close(found.ram)


def test_those_of_an_old_kernel_and_what_a_crash_left_are_dropped(templates: Templates, tmp_path: Path) -> None:
    make(templates, A)
    make(templates, B)
    (tmp_path / "templates" / "half").mkdir()
    (tmp_path / "templates" / "half" / RAM).write_bytes(b"x")
    assert len(templates.retain(lambda key: key.vcpus == 2)) == 2
    assert [item.key for item in templates.stored()] == [B]
    assert templates.retain(lambda key: True) == []


def test_makers_make_each_once_and_try_a_failed_one_later() -> None:
    gate, made, failed = threading.Event(), [], []

    def make_one(key: TemplateKey) -> None:
        gate.wait(10)
        made.append(key)
        if key == B:
            raise HostError("no room")

    makers = Makers(make_one, failed=lambda key, error: failed.append((key, str(error))))
    for key in (A, A, B, A):
        makers.want(key)
    gate.set()
    makers.settle()
    assert made == [A, B]
    assert failed == [(B, "no room")]
    makers.want(B)
    makers.want(A)
    makers.settle()
    assert made == [A, B, A]
    makers.close()
    makers.want(A)
    makers.settle()
    assert made == [A, B, A]
