"""Attach, exec, terminals, flow control, signals, and what becomes of them when a connection goes."""

from __future__ import annotations

import errno
import os
import struct
import time
from pathlib import Path

import pytest

from bulkhead.agent.operations import Code, simple
from tests.agent.box import Box, command
from tests.agent.wire import (
    ATTACH,
    CLOSE,
    CREDIT,
    DATA,
    EOF,
    EXEC,
    EXIT,
    NEWNET,
    NEWNS,
    RESIZE,
    SIGNAL,
    Connection,
    Failure,
    Frame,
    Result,
    wait_until,
)

STDIN, OUTPUT = 1, 2
CONSOLE = [simple(Code.CONSOLE)]


def sleeping(box: Box) -> Connection:
    connection = box.launch()
    connection.start(box.request("sleep", "1000"))
    return connection


def read_until(connection: Connection, stream: int, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        frame = connection.next(stream)
        assert frame.type == DATA, (frame, seen)
        seen += frame.payload
    return seen


def test_exec(box: Box) -> None:
    connection = sleeping(box)
    result = connection.exec(command("sh", "-c", "echo $$; id -u; hostname >/dev/null; echo err >&2; exit 7"))
    assert (result.code, result.signal, result.err) == (7, 0, b"err\n")
    pid, uid = result.out.split()
    assert int(pid) > 1 and uid == b"0"
    mounts = connection.exec(command("cat", "/proc/self/mountinfo"))
    assert mounts.out == connection.exec(command("cat", "/proc/1/mountinfo")).out


def test_exec_has_no_descriptor_of_the_host(box: Box) -> None:
    result = sleeping(box).exec(command("sh", "-c", "for fd in /proc/$$/fd/*; do readlink $fd; done; pwd"))
    null, out, err, directory = result.out.decode().splitlines()
    assert null == "/dev/null" and out.startswith("pipe:") and err.startswith("pipe:") and directory == "/"


def test_exec_passes_stdin_on(box: Box) -> None:
    data = os.urandom(1 << 17)
    result = sleeping(box).exec(command("cat", flags=1 << 1), data[: 1 << 16])
    assert result == Result(0, 0, data[: 1 << 16])


def test_exec_that_is_ended_by_a_signal(box: Box) -> None:
    assert sleeping(box).exec(command("sh", "-c", "kill -9 $$")) == Result(137, 9)


def test_exec_of_what_is_not_there(box: Box) -> None:
    connection = sleeping(box)
    for argv, error in (("none", errno.ENOENT), ("/etc/passwd", errno.EACCES)):
        with pytest.raises(Failure) as caught:
            connection.exec(command(argv))
        assert (caught.value.phase, caught.value.code, caught.value.errno) == (2, Code.EXEC, error)
    assert connection.exec(command("echo", "fine")).out == b"fine\n"


def test_exec_needs_the_mount_namespace(box: Box) -> None:
    with pytest.raises(Failure, match="NEWNS"):
        sleeping(box).exec(command("true", setns=NEWNET))


def test_exec_where_nothing_runs(box: Box) -> None:
    with pytest.raises(Failure) as caught:
        box.launch().exec(command("true"))
    assert caught.value.errno == errno.ESRCH


def test_many_execs_at_once(box: Box) -> None:
    connection = sleeping(box)
    streams = [connection.open(EXEC, command("sh", "-c", f"echo {number}; exit {number}")) for number in range(40)]
    for number, stream in enumerate(streams):
        connection.answer(stream)
        assert connection.collect(stream) == Result(number, 0, f"{number}\n".encode())


def test_exec_joins_no_namespace_but_those_named(box: Box) -> None:
    connection = box.launch()
    request = box.request("sleep", "1000")
    request.clone = request.unshare = request.base = request.count = 0
    request.stage = box.stage(idmap=False)
    request.inside = [simple(Code.PIVOT), simple(Code.ENV, "PATH=/bin"), simple(Code.EXEC, "sleep", "1000")]
    connection.start(request)
    assert connection.exec(command("ls", "/dev", setns=NEWNS)).out.split() == [b"null", b"tty", b"urandom", b"zero"]


def test_a_background_process_of_an_exec_goes_on(box: Box) -> None:
    connection = sleeping(box)
    script = "(sleep 0.1; echo more; echo done >/tmp/done; sleep 1000) & echo first"
    assert connection.exec(command("sh", "-c", script)).out == b"first\n"
    assert wait_until((box.upper / "tmp/done").exists)


def test_exec_ends_with_the_workload(box: Box) -> None:
    connection = sleeping(box)
    stream = connection.open(EXEC, command("sleep", "1000"))
    watch = connection.watch()
    connection.answer(stream)
    connection.signal(9)
    assert connection.collect(stream) == Result(137, 9)
    assert connection.collect(watch) == Result(137, 9)


def test_attach_reads_and_writes(box: Box) -> None:
    connection = box.launch()
    stream = connection.attach(STDIN | OUTPUT)
    connection.send(DATA, stream, b"before the start\n")
    connection.start(box.request("cat", flags=2))
    connection.send(DATA, stream, b"after\n")
    connection.send(EOF, stream)
    assert connection.collect(stream) == Result(0, 0, b"before the start\nafter\n")


def test_stdin_stays_open_when_a_connection_goes(box: Box) -> None:
    connection = box.launch()
    connection.start(box.request("cat", flags=2))
    with box.agent.connect() as other:
        stream = other.attach(STDIN | OUTPUT)
        other.send(DATA, stream, b"one\n")
        assert read_until(other, stream, b"one\n")
    with box.agent.connect() as other:
        stream = other.attach(STDIN | OUTPUT)
        other.send(DATA, stream, b"two\n")
        assert read_until(other, stream, b"two\n")
        other.send(EOF, stream)
        assert other.collect(stream).code == 0


def test_without_stdin_there_is_dev_null(box: Box) -> None:
    connection = box.launch()
    stream = connection.attach(STDIN | OUTPUT)
    connection.send(DATA, stream, b"nobody reads this")
    connection.start(box.request("wc", "-c"))
    assert connection.collect(stream).out == b"0\n"


def test_several_attached_get_the_same(box: Box) -> None:
    first, second = box.launch(), box.agent.connect()
    streams = [(first, first.attach()), (second, second.attach()), (first, first.attach()), (second, second.watch())]
    first.start(box.request("sh", "-c", "echo all; sleep 0.1; echo of it"))
    outputs = [connection.collect(stream).out for connection, stream in streams]
    assert outputs == [b"all\nof it\n"] * 3 + [b""]


def test_close_detaches(box: Box) -> None:
    connection = box.launch()
    stream = connection.attach()
    connection.start(box.request("sh", "-c", "echo on; sleep 0.2; echo off"))
    assert read_until(connection, stream, b"on")
    connection.send(CLOSE, stream)
    watch = connection.watch()
    assert connection.collect(watch).code == 0
    assert [text for _, _, text in box.agent.log()] == ["on", "off"]


BIG = 3 << 20


def test_a_slow_reader_slows_the_writer_and_loses_nothing(box: Box) -> None:
    connection = box.launch()
    connection.credit = False
    stream = connection.attach()
    connection.start(box.request("sh", "-c", f"head -c {BIG} /dev/zero; echo written >&2", log_files=0))
    got = 0
    while got < 262144:
        frame = connection.next(stream)
        assert (frame.type, frame.channel) == (DATA, 1)
        got += len(frame.payload)
    assert got == 262144
    time.sleep(0.1)
    assert connection.info()["state"] == "running"
    assert not connection.waiting, "nothing more comes without credit"
    connection.credit = True
    connection.send(CREDIT, stream, struct.pack("<I", 262144), 1)
    result = connection.collect(stream)
    assert (got + len(result.out), result.err, result.code) == (BIG, b"written\n", 0)


def test_what_is_left_at_the_end_comes_when_there_is_credit(box: Box) -> None:
    connection = box.launch()
    connection.credit = False
    stream = connection.attach()
    connection.start(box.request("head", "-c", str(262144 + 50000), "/dev/zero"))
    got = b""
    while len(got) < 262144:
        got += connection.next(stream).payload
    assert wait_until((box.bundle / "exit.json").exists)
    connection.send(CREDIT, stream, struct.pack("<I", 10000), 1)
    connection.send(CREDIT, stream, struct.pack("<I", 100000), 1)
    rest = connection.collect(stream)
    assert (len(rest.out), rest.code) == (50000, 0)


def test_a_slow_exec_does_not_hold_up_others(box: Box) -> None:
    connection = sleeping(box)
    slow = box.agent.connect()
    slow.credit = False
    stream = slow.open(EXEC, command("cat", "/dev/zero"))
    slow.answer(stream)
    assert connection.exec(command("echo", "quick")).out == b"quick\n"
    slow.send(SIGNAL, stream, struct.pack("<II", 15, 0))
    with box.agent.connect() as third:
        assert third.exec(command("echo", "also")).out == b"also\n"


def test_credit_comes_back_for_stdin(box: Box) -> None:
    connection = sleeping(box)
    stream = connection.open(EXEC, command("wc", "-c", flags=2))
    connection.answer(stream)
    credit, sent, chunk = 262144, 0, b"x" * 65536
    while sent < BIG:
        if credit >= len(chunk):
            connection.send(DATA, stream, chunk)
            credit -= len(chunk)
            sent += len(chunk)
            continue
        frame = connection._receive()
        assert (frame.type, frame.channel) == (CREDIT, 0)
        credit += struct.unpack("<I", frame.payload)[0]
    connection.send(EOF, stream)
    assert connection.collect(stream).out.split() == [str(BIG).encode()]


def test_signals(box: Box) -> None:
    connection = box.launch()
    stream = connection.attach()
    script = "trap 'echo got it; exit 4' USR1; echo ready; while :; do sleep 0.05; done"
    connection.start(box.request("sh", "-c", script))
    read_until(connection, stream, b"ready")
    connection.signal(10)
    assert connection.collect(stream) == Result(4, 0, b"got it\n")


@pytest.mark.parametrize("number", [0, 65, 1 << 31])
def test_no_such_signal(box: Box, number: int) -> None:
    with pytest.raises(Failure) as caught:
        sleeping(box).signal(number)
    assert caught.value.errno == errno.EINVAL


def test_signal_to_an_exec(box: Box) -> None:
    connection = sleeping(box)
    stream = connection.open(EXEC, command("sleep", "1000"))
    connection.answer(stream)
    connection.send(SIGNAL, stream, struct.pack("<II", 15, 0))
    assert connection.collect(stream) == Result(143, 15)
    assert connection.info()["state"] == "running"


def test_a_terminal(box: Box) -> None:
    connection = box.launch()
    stream = connection.attach(STDIN | OUTPUT)
    script = """
        tty; stty size; test -c /dev/console && echo console
        read line; echo got $line; stty size; read x; echo end
    """
    connection.start(box.request("sh", "-c", script, flags=1 | 2, inside=CONSOLE, rows=33, columns=44))
    seen = read_until(connection, stream, b"console\r\n")
    assert seen == b"/dev/pts/0\r\n33 44\r\nconsole\r\n"
    connection.send(RESIZE, stream, struct.pack("<HH", 50, 60))
    connection.send(DATA, stream, b"hello\n")
    seen = read_until(connection, stream, b"50 60\r\n")
    assert b"got hello\r\n" in seen
    connection.send(EOF, stream)
    assert connection.collect(stream).out.endswith(b"end\r\n")
    assert ("stdout", "F", "got hello\r") in box.agent.log()


def test_a_console_that_is_closed_meanwhile(box: Box) -> None:
    """As an init does: it opens /dev/console for each message. What was written before it ended comes too."""
    connection = box.launch()
    stream = connection.attach(STDIN | OUTPUT)
    script = """
        exec </dev/null >/dev/null 2>&1
        sleep 0.2; echo one >/dev/console; sleep 0.2; read line </dev/console
        echo got $line >/dev/console
    """
    connection.start(box.request("sh", "-c", script, flags=1 | 2, inside=CONSOLE, log_size=9999, log_files=1))
    seen = read_until(connection, stream, b"one\r\n")
    connection.send(DATA, stream, b"two\n")
    seen += connection.collect(stream).out
    assert seen.endswith(b"got two\r\n")
    assert (box.bundle / "log").read_bytes().count(b"got two") == 1


def test_a_terminal_of_a_user(box: Box) -> None:
    before = [simple(Code.USER, "user")]
    connection = box.launch()
    stream = connection.attach(OUTPUT)
    script = "stat -c %u $(tty); echo open >/dev/tty"
    connection.start(box.request("sh", "-c", script, flags=1, inside=CONSOLE, before_exec=before))
    assert connection.collect(stream).out == b"1000\r\nopen\r\n"


def test_an_interrupt_from_the_terminal(box: Box) -> None:
    connection = sleeping(box)
    stream = connection.open(EXEC, command("sh", "-c", "echo on; sleep 1000", flags=1 | 2, before_exec=CONSOLE))
    connection.answer(stream)
    read_until(connection, stream, b"on")
    connection.send(DATA, stream, b"\x03")
    assert connection.collect(stream).signal == 2


def test_exec_with_a_terminal_hangs_up_with_its_connection(box: Box) -> None:
    sleeping(box)
    script = "trap 'echo hup >/tmp/hup; exit' HUP; echo on; while :; do sleep 0.05; done"
    with box.agent.connect() as other:
        stream = other.open(EXEC, command("sh", "-c", script, flags=1 | 2, before_exec=CONSOLE))
        other.answer(stream)
        read_until(other, stream, b"on")
    assert wait_until((box.upper / "tmp/hup").exists)


def test_exec_goes_on_after_close(box: Box) -> None:
    connection = sleeping(box)
    script = "echo on; sleep 0.1; echo off; echo done >/tmp/done; sleep 1000"
    stream = connection.open(EXEC, command("sh", "-c", script))
    connection.answer(stream)
    read_until(connection, stream, b"on")
    connection.send(CLOSE, stream)
    assert wait_until((box.upper / "tmp/done").exists)
    assert connection.info()["state"] == "running"


def test_a_terminal_resized_before_it_is_there(box: Box) -> None:
    connection = sleeping(box)
    stream = connection.open(EXEC, command("sh", "-c", "sleep 0.1; stty size", flags=1, before_exec=CONSOLE))
    connection.send(RESIZE, stream, struct.pack("<HH", 11, 12))
    connection.answer(stream)
    assert connection.collect(stream).out == b"11 12\r\n"


def test_the_stream_number_is_the_clients(box: Box) -> None:
    connection = sleeping(box)
    connection.socket.sendall(Frame(ATTACH, 0xFFFFFFFE, struct.pack("<I", 0)).encode())
    assert connection.answer(0xFFFFFFFE) == b""
    connection.signal(9)
    assert connection.next(0xFFFFFFFE).type == EXIT


def test_the_supervisor_itself(box: Box) -> None:
    """In the namespaces of the host, with nothing of the instance's root, in a session of its own."""
    sleeping(box)
    pid = box.agent.pid
    for name in ("mnt", "pid", "net", "user"):
        assert Path(f"/proc/{pid}/ns/{name}").readlink() == Path(f"/proc/self/ns/{name}").readlink()
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    assert stat[3] == str(pid), "its own session"
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115
    assert not [link for link in links if "stage" in link or "ns/" in link or link.startswith("mnt")]
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
