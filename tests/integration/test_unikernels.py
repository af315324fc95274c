"""Unikernels through the daemon and the command line: others', and those that are made of images and programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness import unikernels
from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout
from tests.integration.lives import state, until, with_image

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
