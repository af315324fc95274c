"""cloud-init's seed: what is in it, and what is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bulkhead.boot import seed
from bulkhead.boot.seed import MAX_FILE, Seed
from bulkhead.errors import Refused
from bulkhead.host.workspace import workspace
from tests.harness.abilities import require


def written(what: Seed, target: Path) -> Path:
    require("mkfs.vfat", "mcopy")
    with workspace(target.parent / "work") as (work, _):
        seed.write(what, target, work=work)
    return target


def read(image: Path, name: str) -> bytes:
    return subprocess.run(["mtype", "-i", image, f"::/{name}"], check=True, capture_output=True).stdout


def test_what_cloud_init_finds(tmp_path: Path) -> None:
    image = written(Seed("i-1", "web.example", b"#!/bin/sh\n", b"version: 2\n"), tmp_path / "seed.img")
    label = subprocess.run(["mlabel", "-s", "-i", image], check=True, capture_output=True, text=True).stdout
    assert "CIDATA" in label
    assert json.loads(read(image, "meta-data")) == {"instance-id": "i-1", "local-hostname": "web.example"}
    assert read(image, "user-data") == b"#!/bin/sh\n"
    assert read(image, "network-config") == b"version: 2\n"
    assert image.stat().st_mode & 0o777 == 0o600


def test_a_seed_without_a_network_and_the_largest(tmp_path: Path) -> None:
    image = written(Seed("i", "h", b"#" * MAX_FILE), tmp_path / "seed.img")
    assert len(read(image, "user-data")) == MAX_FILE
    names = subprocess.run(["mdir", "-b", "-i", image], check=True, capture_output=True, text=True).stdout.split()
    assert names == ["::/meta-data", "::/user-data"]
    assert written(Seed("i", "h", b"#", b"#" * MAX_FILE), image).stat().st_size == 4 << 20


def test_the_same_seed_is_the_same_file(tmp_path: Path) -> None:
    one, two = (written(Seed("i", "h", b"#"), tmp_path / name) for name in "12")
    assert one.read_bytes() == two.read_bytes()


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    wrong = Seed('i"\n- x', "a host", b"x" * (MAX_FILE + 1), b"x" * (MAX_FILE + 1))
    with pytest.raises(Refused) as caught:
        seed.write(wrong, tmp_path / "seed.img", work=tmp_path)
    assert len(caught.value.problems) == 4
    assert not list(tmp_path.iterdir())
    for name in ("", "-a", "a-", "a\n", "a" * 300, "ä"):
        with pytest.raises(Refused):
            Seed("i", name).files()
