"""Which kernel a machine boots, and a trimmed one that is there already."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.boot import kernels as boot_kernels
from bulkhead.boot import trim
from bulkhead.config import Config
from bulkhead.engine import kernels
from bulkhead.errors import HostError, NotFound, Refused
from bulkhead.events import Progress, quiet
from bulkhead.images import Bounds, Image, ImageStore
from tests.unit.boot.kernel_parts import elf


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images", tmp_path / "cache", bounds=Bounds(keep_free=0))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(cache_dir=tmp_path / "cache")


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Builds without a compiler: the versions of the source that were built."""
    done: list[str] = []

    def build(images: ImageStore, wanted: trim.Build, work: Path, *, progress: Progress) -> Path:
        done.append(wanted.version)
        (work / "vmlinux").write_bytes(elf() + wanted.version.encode())
        (work / "release").write_text("6.1.192-bulkhead\n")
        return work

    monkeypatch.setattr(trim, "_offered", lambda wanted: wanted.partition("=")[2] or "6.1.192-2")
    monkeypatch.setattr(kernels, "build_trimmed", build)
    return done


def add(store: ImageStore, tmp_path: Path, *names: str) -> Image:
    parts = [(kind, tmp_path / name) for kind, name in ((boot_kernels.ELF_TYPE, "e"), (boot_kernels.INITRD_TYPE, "i"))]
    for _, path in parts:
        path.write_bytes(elf() + repr(names).encode())
    return store.add_files("kernel", parts, names=names, architecture="amd64", annotations={})


def test_the_trimmed_kernel_is_the_default_where_it_is_there(
    store: ImageStore, config: Config, builds: list[str], tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="no kernel image yet") as nothing:
        kernels.find(store, None)
    assert nothing.value.hint == "bulkhead image kernel debian"
    debian = add(store, tmp_path, "kernel/debian:6.1", "kernel/debian:latest")
    assert kernels.find(store, None).digest == debian.digest
    trimmed = kernels.trim(store, config, "debian", version=None, name=None, progress=quiet)
    assert kernels.find(store, None).digest == trimmed.digest
    assert kernels.find(store, "kernel/debian").digest == debian.digest
    with pytest.raises(NotFound):
        kernels.find(store, "kernel/other")


def test_the_same_recipe_is_built_once(store: ImageStore, config: Config, builds: list[str]) -> None:
    first = kernels.trim(store, config, "debian", version=None, name=None, progress=quiet)
    again = kernels.trim(store, config, "debian", version="6.1.192-2", name="kernel/mine", progress=quiet)
    assert again.digest == first.digest
    assert set(store.resolve("kernel/mine").references) == {
        "kernel/trim:6.1",
        "kernel/trim:latest",
        "kernel/mine:latest",
    }
    older = kernels.trim(store, config, "debian", version="6.1.176-1", name="kernel/old", progress=quiet)
    assert older.digest != first.digest
    assert builds == ["6.1.192-2", "6.1.176-1"]
    assert [path.name for path in (config.cache_dir / "work").iterdir()] == ["lock"]


def test_another_distribution_is_refused(store: ImageStore, config: Config, builds: list[str]) -> None:
    with pytest.raises(Refused, match="slackware"):
        kernels.trim(store, config, "slackware", version=None, name=None, progress=quiet)
    assert builds == []


def test_a_build_that_fails_says_what_was_built(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise HostError("debian:bookworm could not be made: no compiler", hint="look")

    monkeypatch.setattr(trim, "newest", lambda: "6.1.192-2")
    monkeypatch.setattr(trim, "check_room", lambda directory: None)
    monkeypatch.setattr(ImageStore, "bootstrapped", fail)
    build = trim.plan("debian", None, architecture="x86_64")
    with pytest.raises(HostError, match=r"trimmed kernel could not be built: .*no compiler") as failed:
        kernels.build_trimmed(store, build, tmp_path, progress=quiet)
    assert failed.value.hint == "look"
