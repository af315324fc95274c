"""Files copied out of and into instances, running and stopped, in spite of the links in them."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkhead.agent.copying import copy_in, copy_out
from bulkhead.agent.files import Files
from bulkhead.agent.session import SOCKET, Session
from bulkhead.errors import BulkheadError, NotFound
from bulkhead.isolation.base import Bundle
from tests.integration.isolation.lab import Lab

LARGE = os.urandom(3_000_000)


@contextmanager
def files_of(bundle: Bundle) -> Iterator[Files]:
    """A file session of an instance."""
    with Session.connect(bundle.directory / SOCKET) as session:
        files = Files(session)
        yield files
        files.close()


@contextmanager
def held(lab: Lab, bundle: Bundle) -> Iterator[Files]:
    """A file session of an instance that does not run."""
    handle = lab.driver.hold(bundle)
    try:
        with files_of(bundle) as files:
            yield files
    finally:
        lab.driver.stop(bundle.directory, handle, signal="KILL", timeout=5)
        lab.driver.delete(bundle.directory, bundle.spec.id)


def members(stream: Iterator[bytes]) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """What is in a tar stream."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        found = {info.name: (info, archive.extractfile(info) if info.isreg() else None) for info in archive}
        return {name: (info, file.read() if file else b"") for name, (info, file) in found.items()}


def archive_of(**content: bytes | str) -> io.BytesIO:
    """A tar stream: bytes become files, texts links."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, value in content.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.uid, info.gid, info.mode, info.mtime = 33, 44, 0o640, 1_000_000_000
            if isinstance(value, str):
                info.type, info.linkname = tarfile.SYMTYPE, value
                archive.addfile(info)
            else:
                info.size = len(value)
                archive.addfile(info, io.BytesIO(value))
    made.seek(0)
    return made


@pytest.mark.parametrize("level", ["lab", "chroot_lab"])
def test_there_and_back(level: str, request: pytest.FixtureRequest) -> None:
    lab: Lab = request.getfixturevalue(level)
    with lab.running() as instance, files_of(instance.bundle) as files:
        copy_in(files, archive_of(large=LARGE, sub__small=b"x", link="/etc/passwd"), "/tmp")
        seen = instance.execute(
            "sh", "-c", "wc -c < /tmp/large; stat -c '%u %g %a %Y' /tmp/large; readlink /tmp/link"
        ).lines
        assert seen == [str(len(LARGE)), "33 44 640 1000000000", "/etc/passwd"]
        found = members(copy_out(files, "/tmp"))
    assert set(found) == {"tmp", "tmp/large", "tmp/sub", "tmp/sub/small", "tmp/link"}
    assert found["tmp/large"][1] == LARGE
    assert (found["tmp/large"][0].uid, found["tmp/large"][0].gid, found["tmp/large"][0].mtime) == (
        33,
        44,
        1_000_000_000,
    )
    assert found["tmp/link"][0].linkname == "/etc/passwd"


@pytest.mark.parametrize("level", ["lab", "chroot_lab"])
def test_stopped_instances(level: str, request: pytest.FixtureRequest) -> None:
    lab: Lab = request.getfixturevalue(level)
    bundle = lab.bundle(["sh", "-c", "cat /tmp/given; echo made > /tmp/made"])
    with held(lab, bundle) as files:
        copy_in(files, archive_of(given=b"given\n"), "/tmp")
    handle = lab.driver.start(bundle)
    assert lab.wait(bundle, handle).output == "given\n"
    lab.driver.delete(bundle.directory, bundle.spec.id)
    with held(lab, bundle) as files:
        assert members(copy_out(files, "/tmp/made"))["made"][1] == b"made\n"
        with pytest.raises(NotFound):
            list(copy_out(files, "/tmp/missing"))


def test_links_of_a_workload_lead_nowhere(lab: Lab) -> None:
    """A workload's links to the host's files, in the path and at its end (CVE-2019-14271's class)."""
    (lab.outside_dir / "secret").write_text("secret")
    script = f"""
    ln -s {lab.outside_dir} /tmp/out; ln -s {lab.outside_dir}/secret /tmp/file; ln -s /proc/self/root/tmp /tmp/magic
    ln -s {"../" * 20}{lab.outside_dir} /tmp/up; echo ready; sleep 1000
    """
    with lab.running("sh", "-c", script) as instance:
        instance.log(until="ready")
        with files_of(instance.bundle) as files:
            for path in ("/tmp/out/secret", "/tmp/up/secret", "/proc/1/root/outside", "/tmp/magic/../../outside"):
                with pytest.raises(BulkheadError):
                    list(copy_out(files, path))
            assert members(copy_out(files, "/tmp/file"))["file"][0].issym()
            for directory in ("/tmp/out", "/tmp/up"):
                with pytest.raises(BulkheadError):
                    copy_in(files, archive_of(evil=b"x"), directory)
            copy_in(files, archive_of(file=b"replaced"), "/tmp")
            assert files.read("/tmp/file", 0, 100) == b"replaced"
    assert sorted(path.name for path in lab.outside_dir.iterdir()) == ["secret"]
    assert (lab.outside_dir / "secret").read_text() == "secret"


def test_nothing_belongs_to_a_user_outside_of_the_range(lab: Lab) -> None:
    with lab.running() as instance, files_of(instance.bundle) as files:
        with pytest.raises(BulkheadError):
            files.create("/tmp/x", mode=0o644, uid=70_000, gid=0)
        files.create("/tmp/y", mode=0o644, uid=65_535, gid=65_535)
        assert files.stat("/tmp/y").uid == 65_535
    made = instance.bundle.directory / "disk/upper/tmp/y"
    assert made.stat().st_uid == 65_535


def test_the_session_has_no_more_rights_than_root_inside(lab: Lab) -> None:
    with lab.running() as instance, files_of(instance.bundle) as files:
        for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"):
            with pytest.raises(BulkheadError):
                files.write(path, 0, b"x")
        names = {entry.name for entry in files.list("/")}
    assert "outside" not in names
    assert "etc" in names


def test_a_directory_of_many_entries(lab: Lab) -> None:
    def mutate(root: Path) -> None:
        (root / "many").mkdir()
        for number in range(3000):
            (root / "many" / f"file-{number:05}-{'n' * 100}").touch()

    with lab.running(image=mutate) as instance, files_of(instance.bundle) as files:
        names = [entry.name for entry in files.list("/many")]
    assert len(names) == len(set(names)) == 3000
