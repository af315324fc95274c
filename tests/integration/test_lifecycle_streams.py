"""What goes in and out of instances: pipes, terminals, exec, logs, files; also while the daemon is away."""

from __future__ import annotations

import hashlib
import io
import os
import pty
import re
import select
import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.integration.lives import PLAN, SECONDS, client, state, until, with_image

LOOP = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"
WALLS = pytest.mark.parametrize("wall", ["chroot", "container"])
NUMBERS = 1_600_000
"""seq prints 11.6 MB up to here."""


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon that has the image busybox."""
    return with_image(shared_daemon, busybox_tar, "busybox")


def run(daemon: Daemon, name: str, script: str, *options: str, wall: str = "container") -> None:
    """Run a shell script detached; returns when it has said "ready"."""
    daemon.cli("run", "-d", "--name", name, "--isolation", wall, *PLAN, *options, "busybox", "sh", "-c", script)
    until(f"{name} is ready", lambda: "ready" in daemon.cli("logs", name).stdout)


# --- pipes


@WALLS
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_much_input_arrives_whole(bulkhead: Daemon, wall: str, verb: str) -> None:
    data = os.urandom(3 << 20)
    if verb == "run":
        how = ["run", "--rm", "-i", "--isolation", wall, *PLAN, "busybox"]
    else:
        run(bulkhead, "taker", LOOP, wall=wall)
        how = ["exec", "-i", "taker"]
    assert bulkhead.cli(*how, "sha256sum", stdin=data).stdout.split()[0] == hashlib.sha256(data).hexdigest()


@WALLS
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_much_output_reaches_a_slow_reader_whole(bulkhead: Daemon, wall: str, verb: str) -> None:
    if verb == "run":
        how = ["run", "--rm", "--isolation", wall, *PLAN, "busybox"]
    else:
        run(bulkhead, "talker", LOOP, wall=wall)
        how = ["exec", "talker"]
    digest = hashlib.sha256()
    with client(bulkhead, *how, "seq", "1", str(NUMBERS)) as process:
        assert process.stdout
        # The writer is far ahead of this all the time, and held up when every buffer in between is full.
        while portion := os.read(process.stdout.fileno(), 1 << 16):
            digest.update(portion)
            time.sleep(0.005)
        assert process.wait(SECONDS) == 0
    wanted = hashlib.sha256("".join(f"{number}\n" for number in range(1, NUMBERS + 1)).encode())
    assert digest.hexdigest() == wanted.hexdigest()


# --- exec


@WALLS
def test_exec_passes_on_code_user_directory_and_environment(bulkhead: Daemon, wall: str) -> None:
    run(bulkhead, "host", LOOP, wall=wall)
    script = "id -u; id -g; pwd; echo $A; echo err >&2; exit 42"
    done = bulkhead.cli("exec", "-u", "user", "-w", "/tmp", "-e", "A=b", "host", "sh", "-c", script, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (42, "1000\n1000\n/tmp\nb\n", "err\n")
    assert bulkhead.cli("exec", "host", "/no/such", check=False).returncode == 127
    assert bulkhead.cli("exec", "host", "/etc/not-executable", check=False).returncode == 126
    assert bulkhead.cli("exec", "host", "sh", "-c", "kill -9 $$", check=False).returncode == 137
    bulkhead.cli("exec", "-d", "host", "touch", "/tmp/made")
    until("it was made", lambda: bulkhead.cli("exec", "host", "test", "-e", "/tmp/made", check=False).returncode == 0)


# --- terminals


class Terminal:
    """This side of a terminal that a command runs on."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.seen = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def expect(self, pattern: str) -> str:
        """Read until the output since the last match has `pattern` in it."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.master], [], [], deadline - time.monotonic())
            assert ready, f"no {pattern!r} in {self.seen!r}"
            self.seen += os.read(self.master, 4096).decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return found[0]


@contextmanager
def terminal() -> Iterator[tuple[Terminal, int]]:
    """A terminal and the descriptor that a command gets."""
    master, slave = pty.openpty()
    try:
        yield Terminal(master), slave
    finally:
        os.close(master)
        os.close(slave)


@WALLS
def test_exec_on_a_terminal(bulkhead: Daemon, wall: str) -> None:
    run(bulkhead, "host", LOOP, wall=wall)
    with (
        terminal() as (screen, slave),
        client(bulkhead, "exec", "-it", "host", "sh", stdin=slave, stdout=slave) as process,
    ):
        screen.expect(r"# ")
        screen.type("tty; echo A$((40 + 2))\n")
        screen.expect(r"/dev/")
        screen.expect(r"A42")
        screen.type("exit 6\n")
        assert process.wait(SECONDS) == 6


def test_attach_and_detach_with_keys(bulkhead: Daemon) -> None:
    script = "echo ready; while read line; do echo got $line; done"
    run(bulkhead, "console", script, "-i", "-t")
    for keys, options in (("\x10\x11", []), ("\x01x", ["--detach-keys", "ctrl-a,x"])):
        with (
            terminal() as (screen, slave),
            client(bulkhead, "attach", *options, "console", stdin=slave, stdout=slave) as process,
        ):
            screen.type("hello\n")
            screen.expect("got hello")
            screen.type(keys)
            assert process.wait(SECONDS) == 0
    assert state(bulkhead, "console") == "running"


def test_attach_gives_output_and_the_exit_code(bulkhead: Daemon) -> None:
    run(bulkhead, "spoken", "echo ready; read line; echo got $line; exit 8", "-i")
    done = bulkhead.cli("attach", "spoken", stdin="word\n", check=False)
    assert (done.returncode, done.stdout) == (8, "got word\n")


# --- logs


def test_logs_tail_since_and_follow(bulkhead: Daemon) -> None:
    run(bulkhead, "chatty", "echo bad >&2; for n in 1 2 3; do echo line $n; done; echo ready; sleep 1000")
    # Two pipes: which of them is read first is not said.
    until("both were read", lambda: bulkhead.cli("logs", "chatty").stderr)
    done = bulkhead.cli("logs", "chatty")
    assert (done.stdout, done.stderr) == ("line 1\nline 2\nline 3\nready\n", "bad\n")
    tail = bulkhead.cli("logs", "--tail", "2", "chatty")
    assert tail.stdout + tail.stderr in ("line 3\nready\n", "ready\nbad\n")
    assert bulkhead.cli("logs", "--tail", "0", "chatty").stdout == ""
    assert bulkhead.cli("logs", "--since", "1h", "chatty").stdout == done.stdout
    assert bulkhead.cli("logs", "--since", str(time.time() + 3600), "chatty").stdout == ""
    with client(bulkhead, "logs", "-f", "--tail", "1", "chatty") as follower:
        assert follower.stdout
        assert follower.stdout.readline() in (b"ready\n", b"bad\n")
        bulkhead.cli("exec", "chatty", "sh", "-c", "echo late > /proc/1/fd/1")
        assert follower.stdout.readline() == b"late\n"
        bulkhead.cli("kill", "chatty")
        assert follower.stdout.read() == b""
        assert follower.wait(SECONDS) == 0


def test_a_log_is_rotated_and_followed_over_that(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    daemon = with_image(make_daemon(log_size=4096, log_files=3), busybox_tar, "busybox")
    daemon.cli("run", "-d", "--name", "long", *PLAN, "busybox", "sh", "-c", "sleep 0.2; seq 1 2000; sleep 1000")
    with client(daemon, "logs", "-f", "long") as follower:
        assert follower.stdout
        for line in follower.stdout:
            if line == b"2000\n":
                break
    bundle = Path(daemon.json("inspect", "long")[0]["bundle"])
    assert {path.name for path in bundle.glob("log*")} == {"log", "log.1", "log.2"}
    assert all(path.stat().st_size < 3 * 4096 for path in bundle.glob("log*"))
    kept = daemon.cli("logs", "long").stdout.split()
    assert kept == [str(number) for number in range(2001 - len(kept), 2001)]


# --- files


@WALLS
@pytest.mark.parametrize("running", [True, False])
def test_copies_both_ways(bulkhead: Daemon, tmp_path: Path, wall: str, running: bool) -> None:
    name = f"box-{wall}-{running}"
    bulkhead.cli("create", "--name", name, "--isolation", wall, *PLAN, "busybox", "sleep", "1000")
    if running:
        bulkhead.cli("start", name)
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_bytes(data := os.urandom(200_000))
    (tree / "link").symlink_to("deep/file")
    bulkhead.cli("cp", tree, f"{name}:/tmp")
    bulkhead.cli("cp", f"{name}:/tmp/tree", tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "file").read_bytes() == data
    assert (tmp_path / "back" / "link").readlink() == Path("deep/file")
    bulkhead.cli("cp", f"{name}:/etc/passwd", tmp_path / "passwd")
    assert (tmp_path / "passwd").read_text().startswith("root:x:0:0")
    done = bulkhead.cli("cp", f"{name}:/no/such", tmp_path / "none", check=False)
    assert done.returncode == 125
    assert "/no/such" in done.stderr


@pytest.mark.parametrize("running", [True, False])
def test_tar_streams_keep_owners(bulkhead: Daemon, running: bool) -> None:
    bulkhead.cli("create", "--name", "owned", *PLAN, "busybox", "sleep", "1000")
    if running:
        bulkhead.cli("start", "owned")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("note")
        entry.size, entry.mode, entry.uid, entry.gid = 2, 0o640, 1000, 2000
        archive.addfile(entry, io.BytesIO(b"hi"))
    bulkhead.cli("cp", "-", "owned:/tmp", stdin=packed.getvalue())
    with client(bulkhead, "cp", "owned:/tmp/note", "-") as process:
        assert process.stdout
        answer = io.BytesIO(process.stdout.read())
    with tarfile.open(fileobj=answer) as archive:
        (found,) = archive.getmembers()
        assert (found.name, found.mode, found.uid, found.gid) == ("note", 0o640, 1000, 2000)


# --- while the daemon is away


@WALLS
@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_a_daemon_finds_everything_again(bulkhead: Daemon, wall: str, end: str) -> None:
    run(bulkhead, "lasting", "echo ready; while read line; do echo got $line; done; exit 4", "-i", wall=wall)
    run(bulkhead, "ending", "trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done", wall=wall)
    ending = bulkhead.json("inspect", "ending")[0]
    getattr(bulkhead, end)()
    os.kill(ending["pid"], signal.SIGUSR1)
    until("it has ended", (Path(ending["bundle"]) / "exit.json").exists)
    bulkhead.start()
    assert bulkhead.json("inspect", "ending")[0]["exit"]["code"] == 6
    assert bulkhead.cli("exec", "lasting", "echo", "here").stdout == "here\n"
    assert bulkhead.cli("logs", "lasting").stdout == "ready\n"
    assert bulkhead.json("stats", "--no-stream", "--format", "json", "lasting")[0]["pids"] >= 1
    assert bulkhead.cli("attach", "lasting", stdin="word\n", check=False).returncode == 4
    assert bulkhead.cli("logs", "lasting").stdout == "ready\ngot word\n"
    assert bulkhead.cli("wait", "lasting").stdout == "4\n"
