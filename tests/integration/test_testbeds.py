"""autopkgtest-virt-bulkhead: the protocol behind each wall, and autopkgtest itself on top of it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.harness.abilities import require
from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.kernels import kernel_layout
from tests.integration.lives import until, with_image

PROGRAM = BULKHEAD.with_name("autopkgtest-virt-bulkhead")
SIZE = ("--memory", "256M", "--cpus", "1", "--disk", "512M")
DEBIAN, BUILDD, SYSTEM = "bed-debian", "bed-buildd", "bed-system"


class Server:
    """One run of the server."""

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [str(PROGRAM), *arguments],
            env=daemon.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == ["ok"]

    def answer(self) -> list[str]:
        """The next line that it says."""
        assert self.process.stdout
        return self.process.stdout.readline().split()

    def ask(self, *words: str) -> list[str]:
        """What it answers to a command, without the ok."""
        assert self.process.stdin
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        assert answer[:1] == ["ok"], answer
        return answer[1:]

    def run(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the testbed, as a caller of the protocol does: with an environment of its own."""
        prefix = [unquote(word) for word in self.ask("print-execute-command")[0].split(",")]
        return subprocess.run(
            [*prefix, *command], input=stdin, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, check=False
        )


@contextmanager
def server(daemon: Daemon, *arguments: str) -> Iterator[Server]:
    """A server that has quit in order in the end."""
    made = Server(daemon, *arguments)
    try:
        yield made
        assert made.process.stdin
        made.process.stdin.write("quit\n")
        made.process.stdin.flush()
        assert made.process.wait(120) == 0
    finally:
        made.process.kill()
        made.process.wait()
        for pipe in (made.process.stdin, made.process.stdout):
            if pipe:
                pipe.close()


@pytest.fixture
def beds(shared_daemon: Daemon, rootfs_tar: Callable[[str], Path]) -> Daemon:
    """A daemon with a small Debian."""
    require("autopkgtest")
    return with_image(shared_daemon, rootfs_tar("debian"), DEBIAN)


def gone(daemon: Daemon) -> bool:
    """Whether no instance is left."""
    return daemon.json("ps", "-a", "--format", "json") == []


@pytest.mark.parametrize(("level", "able"), [("chroot", set()), ("container", {"revert-full-system"})])
def test_a_session(beds: Daemon, tmp_path: Path, level: str, able: set[str]) -> None:
    with server(beds, "--isolation", level, *SIZE, DEBIAN) as bed:
        (scratch,) = bed.ask("open")
        assert {*bed.ask("capabilities")} == {"revert", "root-on-testbed"} | able
        said = bed.run("sh", "-c", "id -u; cat; echo wrong >&2; exit 7", stdin="passed on\n")
        assert (said.returncode, said.stdout, said.stderr) == (7, "0\npassed on\n", "wrong\n")
        assert bed.run("sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
        assert bed.run("/no/such/program").returncode == 127
        assert bed.run("sh", "-c", "exit 125").returncode == 125
        _copies(bed, scratch, tmp_path)
        bed.run("sh", "-c", "echo used > /etc/mark; rm /etc/os-release; sleep 1000 &")
        assert bed.ask("revert") == [scratch]
        assert bed.run("sh", "-c", "cat /etc/mark; ls /etc/os-release").stdout == "/etc/os-release\n"
        assert bed.ask("close") == []
        assert gone(beds)
        assert bed.ask("open") == [scratch]
    assert gone(beds)


def _copies(bed: Server, scratch: str, directory: Path) -> None:
    down, up = directory / "down", directory / "up"
    down.mkdir()
    (down / "a file").write_text("content")
    (down / "link").symlink_to("a file")
    assert bed.ask("copydown", f"{down}/", f"{scratch}/tree/") == []
    assert bed.run("cat", f"{scratch}/tree/link").stdout == "content"
    assert bed.ask("copyup", f"{scratch}/tree/", f"{up}/") == []
    assert (up / "link").readlink() == Path("a file")
    assert (up / "a file").read_text() == "content"


def test_a_machine_reboots_and_keeps_its_files(beds: Daemon) -> None:
    if "kernel/debian" not in beds.cli("image", "ls").stdout:
        beds.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    with server(beds, "--isolation", "vm", "--network", "none", *SIZE, DEBIAN) as bed:
        (scratch,) = bed.ask("open")
        assert {*bed.ask("capabilities")} == {"revert", "root-on-testbed", "revert-full-system", "reboot"}
        assert (
            bed.run("sh", "-c", f"echo kept > /etc/mark; echo too > {scratch}/mark; touch /dev/shm/mark").returncode
            == 0
        )
        bed.ask("reboot")
        said = bed.run("sh", "-c", f"cat /etc/mark {scratch}/mark; ls /dev/shm")
        assert (said.returncode, said.stdout) == (0, "kept\ntoo\n")
        bed.ask("revert")
        assert bed.run("test", "-e", "/etc/mark").returncode == 1


def test_a_system_starts_services_and_reboots(beds: Daemon, rootfs_tar: Callable[[str], Path]) -> None:
    with_image(beds, rootfs_tar("system"), SYSTEM)
    with server(beds, "--init", "system", *SIZE, SYSTEM) as bed:
        bed.ask("open")
        assert {"isolation-container", "reboot", "revert-full-system"} <= {*bed.ask("capabilities")}
        assert bed.run("systemctl", "start", "ssh").returncode == 0
        assert bed.run("sh", "-c", "echo kept > /etc/mark; touch /run/mark").returncode == 0
        bed.ask("reboot")
        said = bed.run("sh", "-c", "cat /etc/mark; ls /run/mark")
        assert said.stdout == "kept\n"


def test_a_testbed_goes_with_its_server(beds: Daemon) -> None:
    made = Server(beds, "--isolation", "container", *SIZE, DEBIAN)
    made.ask("open")
    assert not gone(beds)
    os.kill(made.process.pid, signal.SIGKILL)
    made.process.wait()
    until("the room is removed", lambda: gone(beds))
    assert made.process.stdin
    assert made.process.stdout
    made.process.stdin.close()
    made.process.stdout.close()


def test_a_testbed_that_is_gone_is_no_failed_test(beds: Daemon) -> None:
    with server(beds, "--isolation", "container", *SIZE, DEBIAN) as bed:
        bed.ask("open")
        beds.clear()
        said = bed.run("true")
        assert said.returncode == 255
        assert "autopkgtest-virt-bulkhead" in said.stderr
        bed.ask("revert")
        assert bed.run("true").returncode == 0


def test_what_says_nothing_of_a_testbed_is_refused(beds: Daemon) -> None:
    words = ["--rm", "--restart", "always", "--isolation", "unikernel", "-u", "nobody", DEBIAN, "true"]
    done = subprocess.run([str(PROGRAM), *words], env=beds.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    for word in ("--rm", "--restart", "unikernel", "--user nobody", "a command"):
        assert f"{word}" in done.stderr


PACKAGE = {
    "control": "Source: tiny\nMaintainer: Nobody <nobody@example.org>\nStandards-Version: 4.6.2\n\n"
    "Package: tiny\nArchitecture: all\nDescription: nothing\n",
    "changelog": "tiny (1) unstable; urgency=low\n\n  * New.\n\n"
    " -- Nobody <nobody@example.org>  Mon, 01 Jan 2024 00:00:00 +0000\n",
    "tests/control": "Tests: root\nDepends:\nRestrictions: needs-root\n\nTests: breaks\nDepends:\nRestrictions: "
    "breaks-testbed, needs-root\n\nTests: clean\nDepends:\n\nTests: services\nDepends:\nRestrictions: "
    "isolation-container\n",
    "tests/root": "#!/bin/sh\nset -e\ntest $(id -u) = 0\n",
    "tests/breaks": "#!/bin/sh\nset -e\nrm -r /usr/share/doc\ntouch /etc/mark\n",
    "tests/clean": "#!/bin/sh\nset -e\ntest -e /usr/share/doc\n! test -e /etc/mark\ntest $(id -u) != 0\n",
    "tests/services": "#!/bin/sh\nfalse\n",
}


def test_autopkgtest_runs_a_package_s_tests(beds: Daemon, rootfs_tar: Callable[[str], Path], tmp_path: Path) -> None:
    with_image(beds, rootfs_tar("buildd"), BUILDD)
    for name, text in PACKAGE.items():
        path = tmp_path / "tiny" / "debian" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    argv = ["autopkgtest", "--no-built-binaries", str(tmp_path / "tiny"), "--", str(PROGRAM), *SIZE, BUILDD]
    done = subprocess.run(argv, env=beds.environment(), capture_output=True, text=True, check=False)
    results = dict(line.split()[:2] for line in done.stdout.splitlines() if " PASS" in line or " SKIP" in line)
    wanted = {"root": "PASS", "breaks": "PASS", "clean": "PASS", "services": "SKIP"}
    assert {name: results.get(name) for name in wanted} == wanted, done.stdout + done.stderr
    assert done.returncode == 2, "some tests were skipped"
    assert gone(beds)
