"""What a person does with a machine that runs: its root gains nothing by trickery, and figures are right."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import tarfile
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bulkhead.model import Address
from tests.harness.abilities import require
from tests.harness.daemon import Daemon
from tests.harness.namespaces import in_network
from tests.integration.frames import frames
from tests.integration.lives import SECONDS, client, state, until
from tests.integration.machines import IMAGE, SIZE, hypervisor, run, with_machines

MIB = 1 << 20
MANY, AT_ONCE = 20, 4
SENDER_SOURCE = Path(__file__).with_name("frames.c")
HOSTILE = r"""
mkdir -p /evil/deep /secret && cd /evil && echo own > /secret/passwd
ln -s /etc/passwd absolute; ln -s ../../../../../../etc/passwd above; ln -s / root; ln -s loop loop
mkfifo pipe; mknod device b 7 0; mknod memory c 1 1; mknod "$(printf 'new\nline')" c 1 3
echo plain > deep/file; ln deep/file hard; touch -- --checkpoint=1 'a;b' "$(printf '\033[2Jx')"
chmod 6755 deep/file; ln -s /secret way
"""
"""A tree whose owner wants what copies it to read, write or run something of the host's."""


@pytest.fixture(scope="module")
def vms(module_daemon: Daemon, busybox_tar: Path) -> Iterator[Daemon]:
    """The daemon with an image and a kernel, and templates of SIZE without a network."""
    with_machines(module_daemon, busybox_tar)
    module_daemon.cli("run", "--rm", "--isolation", "vm", *SIZE, "--network", "none", IMAGE, "true")
    templates = module_daemon.config.cache_dir / "templates"
    until("a template was made", lambda: list(templates.glob("*/key.json")))
    yield module_daemon


@pytest.fixture
def bulkhead(shared_daemon: Daemon, vms: Daemon) -> Daemon:
    """The same, cleared after each test."""
    assert shared_daemon is vms
    return shared_daemon


def test_copies_both_ways(bulkhead: Daemon, tmp_path: Path) -> None:
    run(bulkhead, "box", f"{HOSTILE} echo ready; sleep 100000", "--network", "none")
    until("its files are there", lambda: "ready" in bulkhead.cli("logs", "box").stdout)
    # There and back, large and with a link.
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/file").write_bytes(data := os.urandom(300_000))
    (tree / "link").symlink_to("deep/file")
    bulkhead.cli("cp", tree, "box:/tmp")
    bulkhead.cli("cp", "box:/tmp/tree", tmp_path / "back")
    assert (tmp_path / "back/deep/file").read_bytes() == data
    assert (tmp_path / "back/link").readlink() == Path("deep/file")
    check_what_comes_out(bulkhead, tmp_path)
    check_what_goes_in(bulkhead, tmp_path)
    assert state(bulkhead, "box") == "running"


def check_what_comes_out(daemon: Daemon, tmp_path: Path) -> None:
    """Links arrive as links or not at all, nothing is followed, no device and no set-uid bit is made."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "before").write_text("before")
    daemon.cli("cp", "box:/evil", out, check=False)
    for path in out.rglob("*"):
        assert path.is_symlink() or path.is_dir() or path.is_file() or path.is_fifo(), f"{path} is a device"
        assert path.is_symlink() or not path.stat().st_mode & 0o6000, f"{path} is set-uid"
    assert (out / "before").read_text() == "before"
    # A second time over the links that the first one has left.
    daemon.cli("exec", "box", "sh", "-c", "cd /evil; rm root way; mkdir root way; echo x > root/bulkhead-was-here")
    daemon.cli("cp", "box:/evil", out, check=False)
    assert not Path("/bulkhead-was-here").exists()
    done = daemon.cli("cp", "box:/evil/above", tmp_path / "above", check=False)
    assert not (tmp_path / "above").exists() or "busybox" not in done.stdout
    daemon.cli("exec", "box", "sh", "-c", "cd /evil; rm -r root way; ln -s / root; ln -s /secret way")


def check_what_goes_in(daemon: Daemon, tmp_path: Path) -> None:
    """A path through the guest's links ends in the guest; a stream with a path out of its directory is refused."""
    (tmp_path / "mine").write_text("mine")
    daemon.cli("cp", tmp_path / "mine", "box:/evil/way/file")
    daemon.cli("cp", tmp_path / "mine", "box:/evil/root/rooted")
    assert daemon.cli("exec", "box", "cat", "/secret/file", "/rooted").stdout == "minemine"
    assert not Path("/rooted").exists() and not Path("/secret").exists()
    before = daemon.cli("exec", "box", "cat", "/etc/passwd").stdout
    for name, kind, link in (
        ("../../etc/passwd", tarfile.REGTYPE, ""),
        ("/etc/passwd", tarfile.REGTYPE, ""),
        ("hard", tarfile.LNKTYPE, "../../etc/passwd"),
    ):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, link, 0 if link else 3
            archive.addfile(entry, None if link else io.BytesIO(b"bad"))
        done = daemon.cli("cp", "-", "box:/tmp/tree", stdin=packed.getvalue(), check=False)
        assert done.returncode != 0 or daemon.cli("exec", "box", "cat", "/etc/passwd").stdout == before
    assert daemon.cli("exec", "box", "cat", "/etc/passwd").stdout == before


def test_stats_move_in_the_right_direction(bulkhead: Daemon) -> None:
    run(bulkhead, "counted", "sleep 100000")

    def look() -> dict[str, Any]:
        (row,) = bulkhead.json("stats", "--no-stream", "--format", "json", "counted")
        return dict(row)

    def inside(script: str) -> None:
        bulkhead.cli("exec", "counted", "sh", "-c", script)

    first = look()
    assert first["memory_limit"] > 128 * MIB and 0 < first["pids"] <= first["pids_limit"]
    gateway = bulkhead.json("inspect", "counted")[0]["address"]["gateway4"]
    inside(f"ping -q -c 10 -i 0.1 -s 1400 {gateway}")
    pinged = look()
    for way in ("sent", "received"):
        assert pinged[way] - first[way] >= 10 * 1400
    inside("dd if=/dev/urandom of=/file bs=1M count=20 conv=fsync 2>/dev/null")
    written = look()
    assert written["disk_used"] - pinged["disk_used"] >= 16 * MIB
    assert written["disk_written"] - pinged["disk_written"] >= 16 * MIB
    assert written["disk_used"] <= written["disk_size"]
    inside("dd if=/dev/urandom of=/dev/shm/x bs=1M count=30 2>/dev/null")
    filled = look()
    assert filled["memory"] - first["memory"] >= 16 * MIB
    assert filled["memory"] <= filled["memory_limit"]
    inside("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")
    busy = look()
    assert busy["cpu_seconds"] > filled["cpu_seconds"] > first["cpu_seconds"] > 0
    assert busy["cpu_seconds"] - first["cpu_seconds"] <= (busy["when"] - first["when"]) * 3


class Screen:
    """This side of a terminal."""

    def __init__(self, master: int) -> None:
        self.master, self.seen = master, ""

    def size(self, rows: int, columns: int) -> None:
        """Change the window."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def ask(self, text: str, pattern: str) -> str:
        """Type until the answer comes: a new size arrives after it was changed."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen!r}"
            os.write(self.master, text.encode())
            while select.select([self.master], [], [], 0.5)[0]:
                self.seen += os.read(self.master, 4096).decode(errors="replace")
        self.seen = ""
        return found[0]


def test_attach_on_a_terminal(bulkhead: Daemon) -> None:
    run(bulkhead, "console", "while read line; do $line; done; exit 8", "-i", "-t", "--network", "none")
    master, slave = pty.openpty()
    try:
        screen = Screen(master)
        screen.size(31, 97)
        with client(bulkhead, "attach", "console", stdin=slave, stdout=slave) as process:
            screen.ask("tty\n", r"/dev/(pts/|console|hvc|tty)")
            screen.ask("stty size\n", r"31 97")
            screen.size(40, 120)
            process.send_signal(signal.SIGWINCH)
            screen.ask("stty size\n", r"40 120")
            os.write(master, b"\x10\x11")
            assert process.wait(SECONDS) == 0
        assert state(bulkhead, "console") == "running"
        with client(bulkhead, "attach", "console", stdin=slave, stdout=slave) as process:
            screen.ask("hostname\n", bulkhead.json("inspect", "console")[0]["config"]["hostname"])
            os.write(master, b"\x04")
            assert process.wait(SECONDS) == 8
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.timeout(900)
def test_many_at_once_all_answer(bulkhead: Daemon) -> None:
    """Each from the template, each somebody else."""
    names = [f"many-{number}" for number in range(MANY)]

    def start(name: str) -> None:
        bulkhead.cli(
            "run", "-d", "--name", name, "--isolation", "vm", *SIZE, "--network", "none", IMAGE, "sleep", "1000"
        )

    def ask(name: str) -> str:
        return bulkhead.cli("exec", name, "sh", "-c", "hostname; head -c 8 /dev/urandom | od -An -tx1").stdout

    with ThreadPoolExecutor(AT_ONCE) as workers:
        list(workers.map(start, names))
        pids = {hypervisor(bulkhead, name) for name in names}
        said = list(workers.map(ask, names))
    assert len(pids - {0}) == MANY
    assert all(b"-incoming" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
    hostnames = [bulkhead.json("inspect", name)[0]["config"]["hostname"] for name in names]
    assert [each.split()[0] for each in said] == hostnames
    assert len({each.split("\n", 1)[1] for each in said}) == MANY
    bulkhead.cli("rm", "-f", *names, timeout=SECONDS * 3)
    until("all have ended", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_neighbours_find_it_and_are_not_fooled(bulkhead: Daemon, tmp_path: Path) -> None:
    """By name from a VM to a container and back. Its root sends frames of its own making: the false ones go nowhere."""
    require("gcc")
    serve = "mkdir /w; hostname > /w/index.html; exec httpd -f -h /w"
    run(bulkhead, "machine", serve)
    for name in ("box", "watcher"):
        plan = ("--memory", "64M", "--cpus", "1", "--disk", "64M")
        bulkhead.cli("run", "-d", "--name", name, *plan, IMAGE, "sh", "-c", serve)
    told = {name: bulkhead.json("inspect", name)[0] for name in ("machine", "box", "watcher")}
    for asker, asked in (("machine", "box"), ("box", "machine")):
        fetch = ("exec", asker, "wget", "-qO-", f"http://{asked}/index.html")
        until(f"{asker} reaches {asked}", lambda fetch=fetch: bulkhead.cli(*fetch, check=False).returncode == 0)
        assert bulkhead.cli(*fetch).stdout.strip() == told[asked]["config"]["hostname"]
    subprocess.run(["gcc", "-O1", "-static", "-o", tmp_path / "frames", SENDER_SOURCE], check=True)
    bulkhead.cli("cp", tmp_path / "frames", "machine:/frames")
    true, false = frames(Address(**told["machine"]["address"]), Address(**told["box"]["address"]))
    packed = b"".join(struct.pack(">H", len(each)) + each for each in [*false, *true])

    def listener() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        made.bind(("eth0", 0))
        made.settimeout(2)
        return made

    with in_network(f"/proc/{told['watcher']['pid']}/ns/net", listener) as receiver:
        sent = bulkhead.cli("exec", "-i", "machine", "/frames", stdin=packed).stdout
        assert int(sent) == len(true) + len(false)
        seen = []
        try:
            while len([each for each in seen if each in true]) < len(true):
                seen.append(receiver.recv(2000))
            while True:
                seen.append(receiver.recv(2000))
        except TimeoutError:
            pass
    assert [each for each in seen if each in [*true, *false]] == true
