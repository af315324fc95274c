"""Unikernels through the daemon and the command line: others', and those that are made of images and programs."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.harness import unikernels
from tests.harness.daemon import Daemon
from tests.harness.images import rootfs_tar
from tests.harness.kernels import kernel_layout
from tests.integration.lives import state, until, with_image
from tests.unit.images.lab import entry, folder, make_tar, symlink
from tests.unit.images.oci import Layout

pytestmark = pytest.mark.timeout(1800)
LEAST = ("--isolation", "unikernel", "--memory", "8M", "--cpus", "1", "--disk", "16M", "--network", "none")


@pytest.fixture
def others(shared_daemon: Daemon, tmp_path: Path) -> Daemon:
    """The daemon with two unikernels that somebody else has made."""
    known = shared_daemon.cli("image", "ls").stdout
    for name, multiboot in (("pvh", False), ("multiboot", True)):
        if f"others/{name}" not in known:
            kernel = unikernels.banner(tmp_path, multiboot=multiboot)
            shared_daemon.cli("image", "import", "--unikernel", kernel, f"others/{name}")
    return shared_daemon


def test_others_say_a_line_and_tell_how_they_end(others: Daemon) -> None:
    kinds = {image["references"][0]: image["kind"] for image in others.json("image", "ls", "--format", "json")}
    assert kinds["others/pvh:latest"] == kinds["others/multiboot:latest"] == "unikernel"
    for name in ("pvh", "multiboot"):
        done = others.cli("run", "--rm", *LEAST, f"others/{name}", "e5", "some words", check=False)
        assert done.returncode == 5, done
        assert unikernels.SAYS in done.stdout and 'e5 "some words"' in done.stdout
    assert others.cli("run", "--rm", *LEAST, "others/pvh", "o", check=False).returncode == 0


def test_a_program_of_a_distribution(others: Daemon) -> None:
    """Memtest86+ as Debian packs it: a Linux-boot image that drives the hardware by itself."""
    kernel = Path("/boot/memtest86+x64.bin")
    assert others.cli("image", "import", "--unikernel", kernel, "others/memtest").returncode == 0
    size = ("--isolation", "unikernel", "--memory", "24M", "--cpus", "1", "--disk", "16M", "--network", "none")
    others.cli("run", "-d", "--name", "memtest", *size, "others/memtest", "console=ttyS0,115200")
    for word in ("Memtest86+", "Testing: "):
        until(word, lambda word=word: word in others.cli("logs", "memtest").stdout)  # type: ignore[misc]
    (row,) = others.json("stats", "--no-stream", "--format", "json")
    assert row["memory"] < 160 << 20
    others.cli("rm", "-f", "memtest")


def test_a_life(others: Daemon) -> None:
    others.cli("run", "-d", "--name", "one", *LEAST, "others/pvh")
    until("its banner", lambda: unikernels.SAYS in others.cli("logs", "one").stdout)
    for words in (("exec", "one", "true"), ("cp", "one:/etc", "-")):
        done = others.cli(*words, check=False)
        assert done.returncode == 125 and "unikernel" in done.stderr, done
    (seen,) = others.json("inspect", "one")
    assert seen["spec"]["program"]["kernel"] == "/unikernel/kernel" if "spec" in seen else True
    others.kill9()
    others.start()
    assert state(others, "one") == "running"
    others.cli("pause", "one")
    others.cli("unpause", "one")
    others.cli("stop", "--time", "1", "one")
    assert others.json("inspect", "one")[0]["exit"]["signal"] == 9
    others.cli("start", "one")
    others.cli("rm", "-f", "one")


def test_an_oci_image_with_annotations(others: Daemon, tmp_path: Path) -> None:
    kernel, name = unikernels.banner(tmp_path).read_bytes(), "org.unikraft.kernel."
    layer = make_tar(folder("unikraft"), entry("unikraft/kernel", kernel), symlink("link", "unikraft/kernel"))

    def take(annotations: dict[str, str]) -> subprocess.CompletedProcess[str]:
        archive = Layout()
        archive.image(layer, name="others/kraft:1", manifest={"annotations": annotations})
        (tmp_path / "kraft.tar").write_bytes(archive.tar())
        return others.cli("image", "import", tmp_path / "kraft.tar", check=False)

    assert take({name + "image": "/unikraft/kernel", name + "cmdline": "e3 netdev.x=1"}).returncode == 0
    done = others.cli("run", "--rm", *LEAST, "others/kraft:1", "word", check=False)
    assert done.returncode == 3 and "e3 netdev.x=1 -- word" in done.stdout, done
    for wrong in ("/../../../etc/passwd", "unikraft/kernel", "/link", "/unikraft", "/none"):
        done = take({name + "image": wrong})
        assert done.returncode == 125 and "Traceback" not in done.stderr, done
    assert "Traceback" not in others.log()


def test_its_disk_is_kept_by_snapshots(others: Daemon) -> None:
    others.cli("run", "-d", "--name", "two", *LEAST, "others/pvh")
    assert "-kernel" in others.cli("run", "--dry-run", *LEAST, "others/pvh").stdout
    others.cli("snapshot", "create", "two", "first")
    others.cli("run", "-d", "--name", "clone", "--from", "two/first")
    until("its banner", lambda: unikernels.SAYS in others.cli("logs", "clone").stdout)
    others.cli("rm", "-f", "clone", "two")


def test_what_has_no_meaning_is_refused_all_at_once(others: Daemon, tmp_path: Path) -> None:
    asked = ("-t", "-e", "A=b", "-v", "data:/data", "-w", "/x", "--user", "7", "--memory", "7M")
    done = others.cli("run", *LEAST, *asked, "others/pvh", 'a"b', check=False)
    assert done.returncode == 125
    for word in ("--env", "--volume", "--workdir", "--user"):
        assert word in done.stderr, done.stderr
    done = others.cli("run", "--memory", "8M", "others/pvh", check=False)
    assert done.returncode == 125 and "--isolation unikernel" in done.stderr
    (tmp_path / "text").write_text("no kernel")
    done = others.cli("image", "import", "--unikernel", tmp_path / "text", check=False)
    assert done.returncode == 125 and "no kernel that QEMU boots" in done.stderr


SIZE = ("--isolation", "unikernel", "--memory", "128M", "--cpus", "1")


@pytest.fixture
def makers(shared_daemon: Daemon) -> Daemon:
    """The daemon with a kernel."""
    if "kernel/debian" not in shared_daemon.cli("image", "ls").stdout:
        shared_daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    return shared_daemon


def fetch(daemon: Daemon, port: int) -> str:
    """What a published port answers, as soon as it does."""
    url = f"http://127.0.0.1:{port}/"
    argv = ["nsenter", "-t", str(daemon.sandbox.pid), "-n", "curl", "-s", "-m", "20", url]
    return until(f"port {port}", lambda: subprocess.run(argv, capture_output=True, text=True, check=False).stdout)


def test_a_static_program(makers: Daemon, tmp_path: Path) -> None:
    program = unikernels.server(tmp_path)
    asked = ("--unikernel", "-t", "made/server", "-e", "WORD=hello", "-u", "33:44", "-w", "/run", program)
    assert makers.cli("build", *asked).stdout == "made/server:latest\n"
    done = makers.cli("run", "--rm", *SIZE, "--network", "none", "made/server", "exit", "42", check=False, timeout=600)
    assert done.returncode == 42 and "uid 33 in /run says hello" in done.stdout, done
    makers.cli("run", "-d", "--name", "web", *SIZE, "-p", "8085:8080", "made/server")
    assert "served by" in fetch(makers, 8085)
    assert "listening" in makers.cli("logs", "web").stdout
    makers.cli("stop", "--time", "60", "web", timeout=120)
    ended = makers.json("inspect", "web")[0]["exit"]
    assert (ended["code"], ended["error"]) == (7, ""), ended
    makers.cli("rm", "web")


def test_an_image(makers: Daemon, busybox_tar: Path) -> None:
    with_image(makers, busybox_tar, "uni-busybox")
    words = ("sh", "-c", "true")
    done = makers.cli("build", "--unikernel", "-t", "x", "uni-busybox", "no-such-program", *words, check=False)
    assert done.returncode == 125 and "no-such-program" in done.stderr
    makers.cli(
        *("build", "--unikernel", "-t", "made/httpd", "--keep", "/etc", "uni-busybox"),
        *("httpd", "-f", "-p", "80", "-h", "/etc"),
    )
    makers.cli("run", "-d", "--name", "files", *SIZE, "-p", "8086:80", "made/httpd")
    url = ["nsenter", "-t", str(makers.sandbox.pid), "-n", "curl", "-s", "-m", "20", "http://127.0.0.1:8086/passwd"]
    until("httpd", lambda: "root" in subprocess.run(url, capture_output=True, text=True, check=False).stdout)
    makers.cli("rm", "-f", "files")


_ASK_REDIS = """
import socket
with socket.create_connection(("127.0.0.1", 8087), 20) as store:
    store.sendall(b"SET a 12345\\r\\nGET a\\r\\nCONFIG GET dir\\r\\nQUIT\\r\\n")
    while data := store.recv(4096):
        print(data.decode())
"""


def test_redis(makers: Daemon) -> None:
    with_image(makers, rootfs_tar("servers"), "uni-servers")
    words = ("redis-server", "--save", "", "--bind", "0.0.0.0", "--protected-mode", "no")
    makers.cli("build", "--unikernel", "-t", "made/redis", "-w", "/tmp", "uni-servers", *words, timeout=600)
    makers.cli("run", "-d", "--name", "store", *SIZE, "--disk", "32M", "-p", "8087:6379", "made/redis")
    argv = ["nsenter", "-t", str(makers.sandbox.pid), "-n", sys.executable, "-c", _ASK_REDIS]
    found = until("redis", lambda: subprocess.run(argv, capture_output=True, text=True, check=False).stdout)
    assert "12345" in found and "/tmp" in found
    (row,) = makers.json("stats", "--no-stream", "--format", "json")
    assert row["memory"] > 0 and row["sent"] > 0
    makers.cli("stop", "--time", "60", "store", timeout=120)
    assert makers.json("inspect", "store")[0]["exit"]["code"] == 0
    until("a template", partial(has_template, makers, makers.json("image", "inspect", "made/redis")[0]["Id"]))
    makers.cli("start", "store")  # its disk takes the place of the template's
    until("redis", lambda: "12345" in subprocess.run(argv, capture_output=True, text=True, check=False).stdout)
    assert "cannot" not in makers.cli("logs", "store").stdout
    makers.cli("rm", "-f", "store")


def has_template(daemon: Daemon, digest: str) -> bool:
    """Whether a template of an image with this digest is there."""
    templates = daemon.config.cache_dir / "templates"
    return any(digest in path.read_text() for path in templates.glob("*/key.json"))


def test_from_a_template(makers: Daemon, tmp_path: Path) -> None:
    """Cold, then from a template: name, address, words, time and randomness are each one's own."""
    program = unikernels.server(tmp_path)
    makers.cli("build", "--unikernel", "-t", "made/again", program)
    size = ("--isolation", "unikernel", "--memory", "96M", "--cpus", "1")

    stored = partial(has_template, makers, makers.json("image", "inspect", "made/again")[0]["Id"])

    def ended(*words: str) -> str:
        done = makers.cli("run", "--rm", *size, *words, check=False, timeout=600)
        assert done.returncode == 9, done
        return done.stdout

    cold = ended("--no-template", "--hostname", "first", "made/again", "exit", "9")
    assert "first" in cold and not stored()
    ended("made/again", "exit", "9")
    until("a template was made", stored)
    said = [ended("--hostname", name, "made/again", "exit", "9") for name in ("second", "third")]
    assert "second" in said[0] and "third" in said[1], said
    assert "Linux version" not in said[0]
    drawn = [line.split() for text in (cold, *said) for line in text.splitlines() if "random" in line]
    assert len({words[-1] for words in drawn}) == 3, drawn
    assert all(abs(float(words[2]) - time.time()) < 600 for words in drawn), drawn
    makers.cli("run", "-d", "--name", "again", *size, "-p", "8088:8080", "made/again")
    assert "served by" in fetch(makers, 8088)
    makers.cli("stop", "--time", "60", "again", timeout=120)
    assert makers.json("inspect", "again")[0]["exit"]["code"] == 7
    makers.cli("start", "again")
    assert "served by" in fetch(makers, 8088)
    makers.cli("rm", "-f", "again")
    makers.cli("image", "rm", "made/again")
    assert not stored()
