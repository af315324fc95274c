"""Terminals, pipes and signals of run, attach and exec: real processes against a fake agent."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkhead.agent.frames import Frame, Type
from bulkhead.model import State
from tests.unit.api.fakes import FakeAgent, FakeEngine, Talk
from tests.unit.cli.conftest import Cli

Make = Callable[[Callable[[Talk], int]], FakeAgent]
SECONDS = 20.0


def echo(talk: Talk) -> int:
    """Sends stdin back until its end; 0 on end of file, 128 + n on signal n."""
    talk.out(b"ready\n")
    while (frame := talk.next()) is not None:
        if frame.type is Type.DATA:
            talk.out(frame.payload)
            talk.send(Frame(Type.CREDIT, 1, struct.pack("<I", len(frame.payload)), 0))
        elif frame.type is Type.EOF:
            return 0
        elif frame.type is Type.SIGNAL:
            talk.out(b"signal %d\n" % frame.payload[0])
            return 128 + frame.payload[0]
    return -1


def running(engine: FakeEngine, cli: Cli, *options: str) -> None:
    """An instance called web that runs."""
    cli("create", "--name", "web", *options, "debian")
    engine._change(engine.get("web"), state=State.RUNNING)
    if engine.agent:
        engine.agent.started.set()


def read_until(descriptor: int, wanted: bytes) -> bytes:
    """What can be read until `wanted` has come."""
    data, deadline = b"", time.monotonic() + SECONDS
    while wanted not in data:
        ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{wanted!r} did not come: {data!r}"
        data += os.read(descriptor, 65536)
    return data


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- pipes


def test_run_passes_everything_through(cli: Cli, workload: Make) -> None:
    def talker(talk: Talk) -> int:
        talk.out(b"out")
        talk.out(b"err", channel=2)
        return 42

    workload(talker)
    done = cli.process("run", "--rm", "debian")
    assert (done.code, done.out, done.err) == (42, "out", "err")


def test_exec_with_a_lot_of_stdin(cli: Cli, engine: FakeEngine, workload: Make) -> None:
    workload(echo)
    running(engine, cli)
    data = bytes(range(256)) * 8192
    done = subprocess.run(cli.argv("exec", "-i", "web", "cat"), input=data, capture_output=True, timeout=60, check=True)
    assert done.stdout == b"ready\n" + data


def test_stdin_from_a_file_and_from_nothing(cli: Cli, engine: FakeEngine, workload: Make, tmp_path: Path) -> None:
    workload(echo)
    running(engine, cli)
    (tmp_path / "in").write_bytes(b"from a file")
    with (tmp_path / "in").open("rb") as file:
        process = cli.start("exec", "-i", "web", "cat", stdin=file)
        assert process.communicate(timeout=SECONDS)[0] == b"ready\nfrom a file"
    closed = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *cli.argv("exec", "-i", "web", "cat")],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert closed.stdout == b"ready\n"


def test_stdin_is_left_alone_without_interactive(cli: Cli, engine: FakeEngine, workload: Make) -> None:
    agent = workload(lambda talk: talk.out(b"x") or 0)
    running(engine, cli)
    assert cli.process("exec", "web", "true", stdin=b"not for you").code == 0
    assert [frame.type for frame in agent.seen if frame.type in (Type.DATA, Type.EOF)] == []


def test_detached_exec(cli: Cli, engine: FakeEngine, workload: Make) -> None:
    workload(lambda talk: -1)
    running(engine, cli)
    done = cli.process("exec", "-d", "-e", "A=1", "-u", "www", "-w", "/srv", "web", "sleep", "9")
    assert (done.code, done.out) == (0, "")
    assert engine.calls[-1] == ("exec", ("sleep", "9"), ("A=1",), "www", "/srv")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
@pytest.mark.parametrize(
    "command", [("run", "--rm", "debian"), ("exec", "web", "cat"), ("attach", "--no-stdin", "web")]
)
def test_signals_are_passed_on(
    number: signal.Signals, command: tuple[str, ...], cli: Cli, engine: FakeEngine, workload: Make
) -> None:
    workload(echo)
    if command[0] != "run":
        running(engine, cli)
    process = cli.start(*command)
    assert process.stdout
    read_until(process.stdout.fileno(), b"ready\n")
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert (out, err, process.returncode) == (b"signal %d\n" % number, b"", 128 + number)


def test_impatience(cli: Cli, engine: FakeEngine, workload: Make) -> None:
    def deaf(talk: Talk) -> int:
        talk.out(b"ready\n")
        while talk.next():
            pass
        return -1

    agent = workload(deaf)
    running(engine, cli)
    process = cli.start("attach", "web")
    assert process.stdout
    read_until(process.stdout.fileno(), b"ready\n")
    for count in range(1, 4):
        process.send_signal(signal.SIGINT)
        wait_for(lambda count=count: len([f for f in agent.seen if f.type is Type.SIGNAL]) == count)  # type: ignore[misc]
    assert process.wait(SECONDS) == 130
    process.communicate()


def test_reader_that_goes_away(cli: Cli, engine: FakeEngine, workload: Make) -> None:
    def endless(talk: Talk) -> int:
        for _ in range(100_000):
            talk.out(b"y" * 1000)
            frame = talk.next() if select.select([talk._connection], [], [], 0)[0] else None
            assert frame is None or frame.type is Type.CREDIT
        return 0

    workload(endless)
    running(engine, cli)
    process = cli.start("exec", "web", "yes", stdin=subprocess.DEVNULL)
    assert process.stdout
    process.stdout.read(1000)
    process.stdout.close()
    assert process.wait(SECONDS) == 141
    assert process.stderr
    process.stderr.close()


def test_daemon_that_dies(cli: Cli, engine: FakeEngine, workload: Make) -> None:
    def rude(talk: Talk) -> int:
        talk.raw(b"\xff" * 64)
        return -1

    workload(rude)
    running(engine, cli)
    done = cli.process("exec", "web", "true")
    assert done.code == 125
    assert "protocol" in done.err


# --- terminals


@contextmanager
def terminal(cli: Cli, *words: str) -> Iterator[tuple[int, int, subprocess.Popen[bytes]]]:
    """A command on a terminal of 40 x 100: the terminal's two ends and the process."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(cli.argv(*words), stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    try:
        yield master, slave, process
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def is_raw(descriptor: int) -> bool:
    """Whether keys go straight through."""
    return not termios.tcgetattr(descriptor)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)


def test_terminal(cli: Cli, engine: FakeEngine, workload: Make) -> None:
    agent = workload(echo)
    with terminal(cli, "run", "-it", "--name", "web", "debian") as (master, slave, process):
        read_until(master, b"ready\n")
        wait_for(lambda: is_raw(slave))
        os.write(master, b"\x03typed")
        read_until(master, b"\x03typed")
        sizes = [frame.payload for frame in agent.seen if frame.type is Type.RESIZE]
        assert sizes == [struct.pack("<HH", 40, 100)]
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        process.send_signal(signal.SIGWINCH)
        wait_for(lambda: [f.payload for f in agent.seen if f.type is Type.RESIZE][1:] == [struct.pack("<HH", 24, 80)])
        os.write(master, b"\x10x")
        read_until(master, b"\x10x")
        os.write(master, b"\x10\x11")
        assert process.wait(SECONDS) == 0
        assert not is_raw(slave)
    wait_for(lambda: agent.seen[-1].type is Type.CLOSE)
    assert engine.get("web").state is State.RUNNING


def test_exec_on_a_terminal_knows_its_size_from_the_start(cli: Cli, engine: FakeEngine, workload: Make) -> None:
    agent = workload(lambda talk: talk.out(b"x") or 0)
    running(engine, cli)
    with terminal(cli, "exec", "-it", "web", "sh") as (_, slave, process):
        assert process.wait(SECONDS) == 0
        assert not is_raw(slave)
    assert struct.unpack_from("<IIHH", agent.seen[0].payload)[2:] == (40, 100)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminal_is_restored_when_the_command_is_ended(
    number: signal.Signals, cli: Cli, engine: FakeEngine, workload: Make
) -> None:
    workload(echo)
    running(engine, cli, "-it")
    with terminal(cli, "attach", "web") as (master, slave, process):
        read_until(master, b"ready")
        wait_for(lambda: is_raw(slave))
        process.send_signal(number)
        assert process.wait(SECONDS) == 128 + number
        assert not is_raw(slave)
    assert engine.get("web").state is State.RUNNING


def test_terminal_is_restored_after_an_error(cli: Cli, engine: FakeEngine, workload: Make) -> None:
    go = threading.Event()

    def rude(talk: Talk) -> int:
        talk.out(b"ready")
        go.wait(SECONDS)
        talk.raw(b"\xff" * 64)
        return -1

    workload(rude)
    running(engine, cli, "-it")
    with terminal(cli, "exec", "-it", "web", "sh") as (master, slave, process):
        read_until(master, b"ready")
        wait_for(lambda: is_raw(slave))
        go.set()
        assert process.wait(SECONDS) == 125
        assert not is_raw(slave)
        assert b"Error: " in read_until(master, b"Error")


def test_other_detach_keys(cli: Cli, engine: FakeEngine, workload: Make) -> None:
    workload(echo)
    running(engine, cli, "-it")
    with terminal(cli, "attach", "--detach-keys", "ctrl-a,d", "web") as (master, _, process):
        read_until(master, b"ready")
        os.write(master, b"\x10\x11\x01d")
        assert process.wait(SECONDS) == 0
    done = cli("attach", "--detach-keys", "ctrl-", "web")
    assert (done.code, "--detach-keys" in done.err) == (125, True)
