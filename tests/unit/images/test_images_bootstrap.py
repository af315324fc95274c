"""Bootstraps: what mmdebstrap is asked for, and what becomes of what it says, with a stand-in for it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from bulkhead.errors import HostError, ImageError, Refused, Unavailable
from bulkhead.events import Step
from bulkhead.host import processes
from bulkhead.images import Bounds, ImageStore, bootstrap
from bulkhead.images.bootstrap import Recipe, command, plan
from tests.unit.images.oci import digest
from tests.unit.images.test_images_import import ROOTFS, files


def test_plans() -> None:
    recipe = plan("debian:bookworm", packages=["nginx-light", "g++=4:12.2"], architecture="386", files={"/etc/x": b""})
    assert recipe == Recipe("bookworm", ("nginx-light", "g++=4:12.2"), "i386", {"/etc/x": b""})
    assert recipe.default_name == "debian:bookworm-i386-nginx-light-g---4-12.2"
    assert plan("trixie", files={}).default_name == "debian:trixie"


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(Refused) as caught:
        plan(
            "ubuntu:noble",
            packages=["nginx", "--variant=extract", "a,b", "?essential", "../x"],
            architecture="x86 64",
            files={"relative": b"", "/a/../b": b""},
            mirrors=["not a mirror", "http://mirror/debian", "deb [trusted=no] http://mirror/debian bookworm main"],
        )
    assert len(caught.value.problems) == 1 + 4 + 1 + 2 + 1


def test_the_command(tmp_path: Path) -> None:
    argv = command(
        Recipe("bookworm", ("nginx-light",), "i386", {}),
        debs=tmp_path / "a b/debs",
        lists=tmp_path / "lists",
        work=tmp_path / "work",
        options=["--aptopt=x"],
    )
    assert argv.index("unshare") < argv.index("--mount") < argv.index("mmdebstrap")
    assert argv[-2:] == ["bookworm", "-"]
    assert "--include=nginx-light" in argv
    assert "--skip=check/qemu" in argv
    assert f"--setup-hook=sync-in '{tmp_path}/a b/debs' /var/cache/apt/archives" in argv
    assert "--aptopt=x" in argv


_STAND_IN = """#!/bin/sh
trap 'exit 9' TERM
echo "$@" > {tmp}/argv
env > {tmp}/environment
mkdir "$TMPDIR/mmdebstrap.x"
echo "I: running apt-get update..." >&2
echo "I: using $TMPDIR as tempdir" >&2
{rest}
"""


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store", tmp_path / "cache", bounds=Bounds(keep_free=0))


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    """Put a script in mmdebstrap's place, and one that knows a mirror and a proxy in apt's."""
    (tmp_path / "rootfs.tar").write_bytes(ROOTFS)
    scripts = {
        "mmdebstrap": _STAND_IN.format(tmp=tmp_path, rest=rest.format(tmp=tmp_path)),
        "apt-get": "#!/bin/sh\n"
        "echo bookworm main http://mirror/debian/ Debian\n"
        "echo bookworm contrib http://mirror/debian/ Debian\n"
        "echo bookworm-security main http://mirror/security/ Debian\n"
        "echo bookworm main http://elsewhere/ Somebody\n",
        "apt-config": "#!/bin/sh\necho 'Acquire::http::Proxy \"http://proxy:3128\";'\necho 'APT::Other \"x\";'\n",
    }
    for name, text in scripts.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    find = processes.find

    def found(program: str) -> Path | None:
        return tmp_path / "bin" / program if program in scripts else find(program)

    monkeypatch.setattr(processes, "find", found)
    # unshare looks mmdebstrap up in the PATH that programs get.
    monkeypatch.setattr(processes, "SAFE_PATH", f"{tmp_path}/bin:{processes.SAFE_PATH}")


def test_an_image_is_made(tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "cp $TMPDIR/files.tar {tmp}; cat {tmp}/rootfs.tar")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("https_proxy", "http://p")
    steps: list[Step] = []
    image = store.bootstrap(
        "debian:bookworm",
        packages=["nginx-light"],
        config={"command": ["nginx"], "ports": ["80", "443/tcp"], "stop_signal": "SIGQUIT", "user": None},
        files={"/etc/a": b"1", "/usr/bin/b": b"#!/bin/sh\n"},
        progress=steps.append,
    )
    assert image.references == ("debian:bookworm-nginx-light",)
    assert image.layers[0].diff_id == digest(ROOTFS)
    assert image.created == 1700000000.0
    assert image.config.cmd == ("nginx",)
    assert image.config.exposed_ports == ("443/tcp", "80/tcp")
    labels = [step.label for step in steps]
    assert "running apt-get update..." in labels
    assert not any("tempdir" in label for label in labels)
    said = (tmp_path / "argv").read_text()
    assert "deb http://mirror/debian/ bookworm main contrib deb http://mirror/security/ bookworm-security main" in said
    assert 'Acquire::http::Proxy "http://proxy:3128"' in said
    assert "elsewhere" not in said
    environment = (tmp_path / "environment").read_text()
    assert "SOURCE_DATE_EPOCH=1700000000" in environment
    assert "https_proxy=http://p" in environment
    with tarfile.open(tmp_path / "files.tar") as archive:
        assert [(entry.name, entry.mode) for entry in archive] == [("etc/a", 0o644), ("usr/bin/b", 0o755)]
    assert sorted(path.name for path in (tmp_path / "cache/work").iterdir()) == ["lock"]


def test_mirrors_that_are_given_are_the_only_ones(
    tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "cat {tmp}/rootfs.tar")
    store.bootstrap("bookworm", name="mine", mirrors=["http://given/debian"])
    assert (tmp_path / "argv").read_text().rstrip().endswith("bookworm - http://given/debian")


_FAILURES = {
    "be made: Unable to locate package x$": (
        "echo 'E: Unable to locate package x' >&2; echo 'E: mmdebstrap failed to run' >&2; exit 25",
        HostError,
    ),
    "failed with 3": ("exit 3", HostError),
    "no space": ("head -c 3000 {tmp}/rootfs.tar; echo 'E: no space' >&2; exit 1", HostError),
    "it is truncated": ("head -c 3000 {tmp}/rootfs.tar", ImageError),
    "no end mark": ("true", ImageError),
    "not a tar": ("head -c 2000 /dev/zero | tr '\\0' x; sleep 600 & wait", ImageError),
}


@pytest.mark.parametrize("reason", _FAILURES)
def test_failures_leave_nothing(
    tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    script, error = _FAILURES[reason]
    stand_in(tmp_path, monkeypatch, script)
    with pytest.raises(error, match=reason):
        store.bootstrap("bookworm")
    assert files(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "cache/work").iterdir()) == ["lock"]


@pytest.mark.parametrize("when", ["running apt-get update...", "reading the root file system"])
def test_a_caller_that_gives_up_ends_mmdebstrap(
    tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    stand_in(tmp_path, monkeypatch, "sleep 600 & cat {tmp}/rootfs.tar; echo I: x >&2; wait")

    class Gone(Exception):
        pass

    def leave(step: Step) -> None:
        if step.label == when:
            raise Gone

    with pytest.raises(Gone):
        store.bootstrap("bookworm", progress=leave)
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if str(tmp_path).encode() in _read(path)]
    assert files(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "cache/work").iterdir()) == ["lock"]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def test_streams_of_programs() -> None:
    lines: list[str] = []
    argv = ["sh", "-c", "printf one; echo said >&2; printf two; test $A = b"]
    with processes.stream(argv, on_line=lines.append, env={"A": "b"}) as chunks:
        assert b"".join(chunks) == b"onetwo"
    assert lines == ["said"]
    with processes.stream(argv, on_line=lines.append, env={"A": "c"}) as chunks, pytest.raises(HostError, match="said"):
        list(chunks)
    with (
        pytest.raises(Unavailable, match="is not installed"),
        processes.stream(["no-such-program"], on_line=print, env={}),
    ):
        pass


def test_a_stream_of_much_output_on_both_sides_does_not_stall() -> None:
    lines: list[str] = []
    argv = ["sh", "-c", "seq 20000 >&2; seq 200000; seq 20000 >&2"]
    with processes.stream(argv, on_line=lines.append, env={}) as chunks:
        assert sum(map(len, chunks)) == len("".join(f"{number}\n" for number in range(1, 200001)))
    assert len(lines) == 40000


def test_tars_of_files_have_the_time_that_was_asked_for() -> None:
    with tarfile.open(fileobj=io.BytesIO(bootstrap._tar({"/b": b"2", "/a": b"1"}, 7))) as archive:
        assert [(entry.name, entry.mtime, entry.uid) for entry in archive] == [("a", 7, 0), ("b", 7, 0)]
