"""The guest link with a real agent as the guest: the same verbs as in a container, through two supervisors."""

from __future__ import annotations

import errno
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bulkhead.agent.operations import Code, encode, read
from tests.agent.box import ALL, Box, command, simple
from tests.agent.machine import SOCKET, GuestAgent, Machine
from tests.agent.wire import (
    CLOSE,
    DATA,
    EOF,
    EXEC,
    FILES,
    GUEST,
    GUEST_RUN,
    GUEST_START,
    NEWNET,
    QUIT,
    REHEARSE,
    RESIZE,
    SIGNAL,
    Connection,
    Failure,
    Result,
    block,
    exec_payload,
    wait_until,
)

TERMINAL, STDIN, HOLD = 1, 2, 4


class Inner:
    """A machine, and the box that is its guest."""

    def __init__(self, machine: Machine, guest: Box) -> None:
        self.machine, self.guest = machine, guest

    def link(self, **more: Any) -> Connection:
        """Start both and join them."""
        self.guest.agent.launch()
        connection = self.machine.start(**more)
        connection.ask(GUEST, SOCKET.encode())
        return connection

    def begin(self, connection: Connection, *argv: str, **more: Any) -> int:
        request = self.guest.request(*argv, **more)
        return int.from_bytes(connection.ask(GUEST_START, request.encode()), "little")

    def collect(self, connection: Connection, stream: int) -> Result:
        """To the end; the machine goes with its guest, as one that is powered off."""
        assert self.guest.agent.gone()
        self.machine.kill()
        return connection.collect(stream)


@pytest.fixture
def inner(new_box: Callable[[], Box], agent_binary: Path, busybox_root: Path, tmp_path: Path) -> Iterator[Inner]:
    machine = Machine(new_box())
    with ExitStack() as stack:
        bundle = tmp_path / "guest"
        guest = Box.make(bundle, busybox_root, GuestAgent(agent_binary, bundle, where=machine.socket))
        stack.callback(guest.end)
        yield Inner(machine, guest)


def test_a_workload_from_start_to_end(inner: Inner) -> None:
    connection = inner.link(log_files=2)
    stream = connection.attach()
    assert connection.info()["state"] == "starting"
    assert inner.begin(connection, "sh", "-c", "echo out; echo err >&2; exit 7") > 0
    result = inner.collect(connection, stream)
    assert (result.code, result.signal, result.out, result.err) == (7, 0, b"out\n", b"err\n")
    assert inner.machine.host.agent.gone()
    ended = inner.machine.host.agent.exit()
    assert (ended["code"], ended["signal"], ended.get("error")) == (7, 0, None)
    assert ended["started"] <= ended["ended"]
    assert sorted(inner.machine.host.agent.log()) == [("stderr", "F", "err"), ("stdout", "F", "out")]


def test_who_attached_before_the_start_misses_nothing(inner: Inner) -> None:
    """Before START, before the link, after it: all the same to a client."""
    inner.guest.agent.launch()
    first = inner.machine.host.launch()
    early, early_watch = first.attach(3), first.watch()
    first.send(DATA, early, b"one\n")
    inner.machine.pid = first.start(inner.machine.host.request("sleep", "1000", flags=8))
    middle = first.attach()
    first.ask(GUEST, SOCKET.encode())
    late, late_watch = first.attach(), first.watch()
    inner.begin(first, "sh", "-c", "read line; echo got $line", flags=STDIN)
    result = inner.collect(first, early)
    assert (result.code, result.out) == (0, b"got one\n")
    assert first.collect(middle).out == first.collect(late).out == b"got one\n"
    assert first.collect(early_watch).code == first.collect(late_watch).code == 0


def test_stdin_of_the_workload(inner: Inner) -> None:
    connection = inner.link()
    stream = connection.attach(3)
    inner.begin(connection, "wc", "-c", flags=STDIN)
    data = b"x" * 1_000_000
    connection.socket.settimeout(20)
    sent = 0
    for at in range(0, len(data), 50_000):
        part = data[at : at + 50_000]
        # Credit: 262,144 bytes at first, then what comes back.
        while sent + len(part) > 262_144:
            frame = connection._receive()
            assert frame.type == 34 and frame.stream == stream
            sent -= struct.unpack("<I", frame.payload)[0]
        connection.send(DATA, stream, part)
        sent += len(part)
    connection.send(EOF, stream)
    assert inner.collect(connection, stream).out == b"1000000\n"


def test_exec_and_its_exit_code(inner: Inner) -> None:
    connection = inner.link()
    inner.begin(connection, "sleep", "1000")
    assert connection.info()["state"] == "running"
    result = connection.exec(command("sh", "-c", "echo one; echo two >&2; exit 3"))
    assert (result.code, result.out, result.err) == (3, b"one\n", b"two\n")
    result = connection.exec(command("cat", flags=2), b"through the guest")
    assert (result.code, result.out) == (0, b"through the guest")
    with pytest.raises(Failure) as missing:
        connection.exec(command("nothing-of-that-name"))
    assert (missing.value.code, missing.value.errno) == (50, 2)
    killed = connection.exec(command("sh", "-c", "kill -9 $$"))
    assert (killed.code, killed.signal) == (137, 9)


def test_much_output_of_an_exec(inner: Inner) -> None:
    connection = inner.link()
    inner.begin(connection, "sleep", "1000")
    result = connection.exec(command("sh", "-c", "head -c 3000000 /dev/zero; head -c 1000000 /dev/zero >&2"))
    assert (result.code, len(result.out), len(result.err)) == (0, 3_000_000, 1_000_000)


def test_an_exec_with_a_terminal(inner: Inner) -> None:
    connection = inner.link()
    inner.begin(connection, "sleep", "1000")
    inside = [
        simple(Code.CONSOLE),
        simple(Code.ENV, "PATH=/bin"),
        simple(Code.EXEC, "sh", "-c", "read x; stty size; read x"),
    ]

    stream = connection.open(EXEC, exec_payload(inside, flags=3, setns=ALL | NEWNET, rows=10, columns=20))
    connection.answer(stream)
    connection.send(RESIZE, stream, struct.pack("<HH", 33, 77))
    connection.send(DATA, stream, b"\n")
    seen = b""
    while b"33 77" not in seen:
        frame = connection.next(stream)
        assert frame.type == DATA and frame.channel == 1
        seen += frame.payload
    connection.send(DATA, stream, b"\n")
    assert connection.collect(stream).code == 0


def test_the_workloads_terminal(inner: Inner) -> None:
    connection = inner.link()
    stream = connection.attach(3)
    connection.send(RESIZE, stream, struct.pack("<HH", 44, 99))
    inner.begin(
        connection, "sh", "-c", "read x; stty size; read x; echo bye", inside=[simple(Code.CONSOLE)], flags=TERMINAL
    )
    connection.send(DATA, stream, b"\n")
    seen = b""
    while b"44 99" not in seen:
        seen += connection.next(stream).payload
    connection.send(RESIZE, stream, struct.pack("<HH", 45, 98))
    connection.send(DATA, stream, b"\n")
    result = inner.collect(connection, stream)
    assert result.code == 0 and b"bye" in result.out


def test_signals(inner: Inner) -> None:
    connection = inner.link()
    watch = connection.watch()
    with pytest.raises(Failure) as early:
        connection.signal(signal.SIGTERM)
    assert early.value.errno == 3
    stream = connection.attach()
    inner.begin(connection, "sh", "-c", "trap 'echo usr; exit 5' USR1; echo ready; while :; do sleep 0.05; done")
    assert connection.next(stream).payload == b"ready\n"
    exec_stream = connection.open(EXEC, command("sleep", "1000"))
    connection.answer(exec_stream)
    connection.send(SIGNAL, exec_stream, struct.pack("<II", signal.SIGKILL, 0))
    assert connection.collect(exec_stream).signal == 9
    connection.signal(signal.SIGUSR1)
    result = inner.collect(connection, stream)
    assert (result.code, result.out) == (5, b"usr\n")
    assert connection.collect(watch).code == 5


def test_a_workload_that_is_killed(inner: Inner) -> None:
    connection = inner.link()
    stream = connection.attach()
    inner.begin(connection, "sleep", "1000")
    connection.signal(signal.SIGKILL)
    result = inner.collect(connection, stream)
    assert (result.code, result.signal) == (137, 9)


def test_files(inner: Inner) -> None:
    connection = inner.link()
    inner.begin(connection, "sleep", "1000")
    stream = connection.open(FILES)
    connection.answer(stream)
    request = struct.pack("<B", 1) + block("/bin/busybox") + block(struct.pack("<Q", 0))
    connection.send(DATA, stream, struct.pack("<I", len(request)) + request)
    answer = connection.next(stream)
    assert answer.type == DATA and struct.unpack_from("<I", answer.payload, 4)[0] == 0
    connection.send(EOF, stream)
    assert connection.collect(stream).code == 0


def test_operations_in_the_guest(inner: Inner, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("from the guest")
    connection = inner.link()
    payload = connection.ask(GUEST_RUN, encode([read(tmp_path / "note")]))
    assert payload == block("from the guest")
    with pytest.raises(Failure) as wrong:
        connection.ask(GUEST_RUN, struct.pack("<I", 5))
    assert wrong.value.phase == 5


def test_a_start_that_makes_no_sense_can_be_made_again(inner: Inner) -> None:
    connection = inner.link()
    with pytest.raises(Failure) as refused:
        connection.ask(GUEST_START, b"nonsense")
    assert (refused.value.phase, refused.value.errno) == (5, 22)
    inner.begin(connection, "sleep", "1000")
    with pytest.raises(Failure) as again:
        inner.begin(connection, "sleep", "1000")
    assert again.value.errno == 16


def test_only_a_guest_rehearses(inner: Inner) -> None:
    """The answer is the guest's own, until there is a workload: this one is no machine's PID 1."""
    with inner.link() as connection:
        with pytest.raises(Failure) as failure:
            connection.ask(REHEARSE, inner.guest.request("true").encode())
        assert failure.value.errno == errno.EPERM
        inner.begin(connection, "sleep", "1000")
        with pytest.raises(Failure) as failure:
            connection.ask(REHEARSE, inner.guest.request("true").encode())
        assert failure.value.errno == errno.EBUSY


def test_a_start_that_fails_ends_the_machine(inner: Inner) -> None:
    connection = inner.link()
    stream = connection.attach()
    with pytest.raises(Failure) as failed:
        inner.begin(connection, "nothing-of-that-name")
    assert (failed.value.phase, failed.value.code, failed.value.errno) == (2, 50, 2)
    with pytest.raises(EOFError):
        connection.next(stream)
    assert inner.machine.host.agent.gone()
    assert not (inner.machine.host.bundle / "exit.json").exists()


def test_an_exec_goes_on_after_close_and_not_after_a_lost_connection(inner: Inner) -> None:
    connection = inner.link()
    inner.begin(connection, "sleep", "1000")
    upper = inner.guest.upper
    with inner.machine.connect() as other:
        stream = other.open(EXEC, command("sh", "-c", "cat; touch /tmp/eof", flags=2))
        other.answer(stream)
    assert wait_until((upper / "tmp/eof").exists), "its stdin ended with the connection"
    stream = connection.open(EXEC, command("sh", "-c", "cat; touch /tmp/never", flags=2))
    connection.answer(stream)
    connection.send(CLOSE, stream)
    assert connection.exec(command("true")).code == 0
    assert not (upper / "tmp/never").exists()


def test_many_streams_that_are_closed(inner: Inner) -> None:
    """Their numbers are forgotten: more of them, one after the other, than there may be at once."""
    connection = inner.link()
    inner.begin(connection, "sleep", "1000")
    for _ in range(400):
        connection.send(CLOSE, connection.attach(1))
    assert connection.exec(command("echo", "here")).out == b"here\n"


def test_a_slow_client_holds_up_nobody(inner: Inner) -> None:
    connection = inner.link()
    inner.begin(connection, "sleep", "1000")
    slow = inner.machine.connect()
    slow.credit = False
    stream = slow.open(EXEC, command("sh", "-c", "head -c 2000000 /dev/zero"))
    slow.answer(stream)
    assert connection.exec(command("sh", "-c", "head -c 2000000 /dev/zero")).code == 0
    got = 0
    while got < 262_144:
        got += len(slow.next(stream).payload)
    slow.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        slow.next(stream)
    slow.socket.settimeout(20)
    slow.credit = True
    slow.send(34, stream, struct.pack("<I", got), 1)
    assert len(slow.collect(stream).out) + got == 2_000_000


def test_memory_stays_bounded(inner: Inner) -> None:
    """A client that takes nothing of what a workload pours out."""
    connection = inner.link()
    inner.machine.connect().attach()
    stuck = inner.machine.connect()
    stuck.credit = False
    stuck.attach()
    inner.begin(connection, "sh", "-c", "yes")
    time.sleep(1)
    status = Path(f"/proc/{inner.machine.host.agent.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0])
    assert resident < 4096, f"{resident} KiB"


def test_the_machine_is_killed(inner: Inner) -> None:
    connection = inner.link()
    stream, watch = connection.attach(), connection.watch()
    inner.begin(connection, "sleep", "1000")
    running = connection.open(EXEC, command("sleep", "1000"))
    connection.answer(running)
    inner.machine.kill()
    assert connection.collect(stream).code == connection.collect(watch).code == 255
    assert connection.collect(running).code == 137
    assert inner.machine.host.agent.gone()
    ended = inner.machine.host.agent.exit()
    assert (ended["code"], ended["signal"], ended["error"]) == (255, 0, "the machine was killed by signal 9")


def test_quit(inner: Inner) -> None:
    connection = inner.link()
    stream = connection.attach()
    inner.begin(connection, "sleep", "1000")
    other = inner.machine.connect()
    other.quit()
    result = connection.collect(stream)
    assert (result.code, result.signal) == (137, 9)
    assert inner.machine.host.agent.gone()
    ended = inner.machine.host.agent.exit()
    assert (ended["code"], ended["signal"], ended.get("error")) == (137, 9, None)


def test_quit_by_one_who_does_not_wait(inner: Inner) -> None:
    connection = inner.link()
    stream = connection.attach()
    inner.begin(connection, "sleep", "1000")
    with inner.machine.connect() as other:
        other.open(QUIT)
    assert connection.collect(stream).code == 137
    assert inner.machine.host.agent.gone()
    assert inner.machine.host.agent.exit().get("error") is None


def test_the_machines_own_output(inner: Inner) -> None:
    connection = inner.link(script="echo from the machine; exec sleep 1000", log_size=1000, log_files=2)
    stream = connection.attach()
    inner.begin(connection, "echo", "from the guest")
    assert inner.collect(connection, stream).out == b"from the guest\n"
    assert inner.machine.host.agent.gone()
    assert inner.machine.host.agent.log("vmm.log") == [("stdout", "F", "from the machine")]
    assert inner.machine.host.agent.log() == [("stdout", "F", "from the guest")]


def test_the_finish_list_is_the_hosts(inner: Inner, tmp_path: Path) -> None:
    (tmp_path / "peak").write_text("42")
    connection = inner.link(finish=[read(tmp_path / "peak")])
    stream = connection.attach()
    inner.begin(connection, "true")
    inner.collect(connection, stream)
    assert inner.machine.host.agent.gone()
    assert inner.machine.host.agent.exit()["reports"] == ["42"]
