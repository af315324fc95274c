"""Guests that lie, flood and stall: they end their own machine, and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.box import Box, command
from tests.agent.machine import SOCKET, Guest, Machine, error_payload, exit_payload
from tests.agent.wire import (
    ATTACH,
    CLOSE,
    CREDIT,
    DATA,
    EOF,
    ERROR,
    EXEC,
    EXIT,
    FILES,
    GUEST,
    GUEST_RUN,
    GUEST_START,
    INFO,
    OK,
    REPORTS,
    RESIZE,
    RUN,
    SIGNAL,
    START,
    WORKLOAD,
    Connection,
    Failure,
    Frame,
    Start,
    block,
)

CREDIT_START = 262_144
PID = struct.pack("<I", 7)


@pytest.fixture
def machine(new_box: Callable[[], Box]) -> Machine:
    return Machine(new_box())


@pytest.fixture
def guest(machine: Machine) -> Iterator[Guest]:
    """Listens before its machine starts."""
    guest = Guest(machine)
    yield guest
    guest.close()


@pytest.fixture
def connection(machine: Machine, guest: Guest) -> Connection:
    """Of a machine whose guest has been joined."""
    connection = machine.start()
    guest.link(connection)
    return connection


def refused(connection: Connection, stream: int) -> Failure:
    with pytest.raises(Failure) as caught:
        connection.answer(stream)
    return caught.value


def ended(machine: Machine, word: str) -> None:
    """It has been, and says why."""
    assert machine.host.agent.gone()
    result = machine.host.agent.exit()
    assert (result["code"], result["signal"]) == (255, 0)
    assert word in result["error"], result["error"]
    assert not Path(f"/proc/{machine.pid}").exists()


BROKEN: dict[str, tuple[Callable[[int, int], bytes], str]] = {
    "type": (lambda run, _: Frame(99, run).encode(), "type"),
    "a request": (lambda run, _: Frame(EXEC, run).encode(), "type"),
    "EOF": (lambda run, _: Frame(EOF, run, b"", 1).encode(), "type"),
    "version": (lambda run, _: Frame(OK, run).encode(version=2), "none"),
    "zero": (lambda run, _: Frame(OK, run).encode(zero=1), "none"),
    "stream 0": (lambda run, _: Frame(OK, 0).encode(), "none"),
    "oversized": (lambda run, _: struct.pack("<IBBBBI", (1 << 20) + 1, 1, OK, 0, 0, run), "length"),
    "large data": (lambda _, out: struct.pack("<IBBBBI", (1 << 16) + 1, 1, DATA, 1, 0, out), "length"),
    "no data": (lambda _, out: Frame(DATA, out, b"", 1).encode(), "length"),
    "channel": (lambda _, out: Frame(DATA, out, b"x", 0).encode(), "channel"),
    "not asked": (lambda run, _: Frame(OK, run + 1).encode(), "not asked"),
    "old number": (lambda run, _: Frame(OK, 1).encode(), "not asked"),
    "workload": (lambda *_: Frame(OK, WORKLOAD).encode(), "not asked"),
    "workload's end": (lambda *_: Frame(EXIT, WORKLOAD, exit_payload(0)).encode(), "workload"),
    "data of a list": (lambda run, _: Frame(DATA, run, b"x", 1).encode(), "before the answer"),
    "exit of a list": (lambda run, _: Frame(EXIT, run, exit_payload(0)).encode(), "before the answer"),
    "two answers": (lambda run, _: 2 * Frame(OK, run).encode(), "not asked"),
    "second OK": (lambda _, out: Frame(OK, out).encode(), "second answer"),
    "ERROR after OK": (lambda _, out: Frame(ERROR, out, error_payload()).encode(), "second answer"),
    "short ERROR": (lambda run, _: Frame(ERROR, run, b"short").encode(), "length"),
    "long ERROR": (lambda run, _: struct.pack("<IBBBBI", 5000, 1, ERROR, 0, 0, run), "length"),
    "phase": (lambda run, _: Frame(ERROR, run, error_payload(phase=6)).encode(), "ERROR"),
    "errno": (lambda run, _: Frame(ERROR, run, error_payload(errno=4096)).encode(), "ERROR"),
    "credit": (lambda _, out: Frame(CREDIT, out, struct.pack("<I", 1)).encode(), "credit"),
    "much output": (lambda _, out: 9 * Frame(DATA, out, bytes(1 << 16), 1).encode(), "credit"),
    "code": (lambda _, out: Frame(EXIT, out, exit_payload(256)).encode(), "exit code"),
    "signal": (lambda _, out: Frame(EXIT, out, exit_payload(0, 65)).encode(), "exit code"),
    "reports of a list": (lambda run, _: Frame(REPORTS, run, block(b"")).encode(), "before the answer"),
    "reports twice": (lambda _, out: 2 * Frame(REPORTS, out, block(b"x")).encode(), "reports"),
    "cut reports": (lambda _, out: Frame(REPORTS, out, block(b"x") + b"\1\0\0\0").encode(), "reports"),
    "no reports": (lambda _, out: Frame(REPORTS, out).encode(), "length"),
    "many reports": (lambda _, out: struct.pack("<IBBBBI", (1 << 16) + 1, 1, REPORTS, 0, 0, out), "length"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_ends_the_machine(machine: Machine, guest: Guest, connection: Connection, name: str) -> None:
    make, word = BROKEN[name]
    stuck = machine.connect()
    stuck.credit = False
    stuck.attach()
    watch = connection.watch()
    output = guest.begin(connection)
    run = connection.open(GUEST_RUN, struct.pack("<I", 0))
    guest.socket.sendall(make(guest.expect(RUN).stream, output))
    if name != "two answers":
        assert refused(connection, run).errno == 3
    result = connection.collect(watch)
    assert (result.code, result.signal) == (255, 0)
    ended(machine, word)


def test_reports_stand_in_the_exit_file(machine: Machine, guest: Guest, connection: Connection) -> None:
    """Escaped, whatever they are."""
    watch = connection.watch()
    output = guest.begin(connection)
    guest.send(REPORTS, output, block(b"oom_kill 1\n") + block(b'"}\xff\0') + block(b""))
    guest.exit(output, 137, 9)
    guest.socket.close()
    machine.kill()
    assert connection.collect(watch).code == 137
    assert machine.host.agent.gone()
    assert machine.host.agent.exit()["reports"] == ["oom_kill 1\n", '"}\xff\0', ""]


def test_two_ends(machine: Machine, guest: Guest, connection: Connection) -> None:
    guest.begin(connection)
    stream = connection.open(EXEC, command("true"))
    number = guest.expect(EXEC).stream
    guest.ok(number, PID)
    guest.exit(number, 3)
    guest.exit(number, 4)
    connection.answer(stream)
    assert connection.collect(stream).code == 3
    ended(machine, "not asked")


def test_an_end_before_the_start(machine: Machine, guest: Guest, connection: Connection) -> None:
    stream = connection.open(GUEST_START, Start(inside=[]).encode())
    output = guest.expect(ATTACH).stream
    guest.ok(output)
    guest.exit(output, 0)
    failure = refused(connection, stream)
    assert "not started" in failure.text
    assert machine.host.agent.gone()
    assert not (machine.host.bundle / "exit.json").exists(), "its start has failed"


@pytest.mark.parametrize(
    ("request_", "answer"),
    [(EXEC, b""), (EXEC, b"12345"), (FILES, b""), (GUEST, bytes(4097)), (GUEST_START, b"123")],
)
def test_an_answer_of_a_wrong_length(
    machine: Machine, guest: Guest, connection: Connection, request_: int, answer: bytes
) -> None:
    connection.open(request_, SOCKET.encode() if request_ == GUEST else b"")
    frame = guest.next()
    if request_ == GUEST_START:
        guest.ok(frame.stream)
        frame = guest.expect(START)
    guest.ok(frame.stream, answer)
    assert machine.host.agent.gone()
    with pytest.raises(ProcessLookupError):
        os.kill(machine.pid, 0)


def test_output_of_an_exec_beyond_its_credit(machine: Machine, guest: Guest, connection: Connection) -> None:
    guest.begin(connection)
    connection.credit = False
    stream = connection.open(EXEC, command("true"))
    number = guest.expect(EXEC).stream
    guest.ok(number, PID)
    for _ in range(4):
        guest.data(number, bytes(1 << 16))
    assert connection.answer(stream) == PID
    assert sum(len(connection.next(stream).payload) for _ in range(4)) == CREDIT_START
    assert connection.info()["state"] == "running"
    for _ in range(4):  # this waits in S
        guest.data(number, bytes(1 << 16))
    assert connection.info()["state"] == "running"
    guest.data(number, b"x")
    ended(machine, "credit")


def test_credit_comes_back_when_a_client_has_taken_the_bytes(guest: Guest, connection: Connection) -> None:
    guest.begin(connection)
    stream = connection.open(EXEC, command("true"))
    number = guest.expect(EXEC).stream
    guest.ok(number, PID)
    connection.answer(stream)
    for _ in range(3):
        guest.data(number, bytes(1 << 16), 2)
        connection.next(stream)
    credit = guest.expect(CREDIT)
    assert (credit.stream, credit.channel) == (number, 2)
    assert struct.unpack("<I", credit.payload)[0] >= CREDIT_START // 2


def test_input_waits_for_the_guests_credit(machine: Machine, guest: Guest, connection: Connection) -> None:
    guest.begin(connection)
    stream = connection.open(EXEC, command("cat", flags=2))
    number = guest.expect(EXEC).stream
    for _ in range(4):
        connection.send(DATA, stream, bytes(1 << 16))
    assert sum(len(guest.expect(DATA).payload) for _ in range(4)) == CREDIT_START
    # S gives the client its credit back, and keeps what comes then.
    frame = connection._receive()
    assert frame.type == CREDIT
    connection.send(DATA, stream, b"more")
    connection.send(EOF, stream)
    guest.ok(number, PID)
    assert connection.answer(stream) == PID
    guest.credit(number, 3)
    assert guest.expect(DATA).payload == b"mor"
    guest.credit(number, 1)
    assert guest.expect(DATA).payload == b"e"
    guest.expect(EOF)


def test_a_client_that_breaks_a_rule_loses_its_connection(
    machine: Machine, guest: Guest, connection: Connection
) -> None:
    guest.begin(connection)
    rude = machine.connect()
    stream = rude.open(EXEC, command("cat", flags=2))
    number = guest.expect(EXEC).stream
    for _ in range(4):
        rude.send(DATA, stream, bytes(1 << 16))
    for _ in range(4):
        guest.expect(DATA)
    for _ in range(4):  # this waits in S
        rude.send(DATA, stream, bytes(1 << 16))
    rude.send(DATA, stream, b"too much")
    close = guest.expect(CLOSE)
    assert (close.stream, close.payload) == (number, struct.pack("<I", 1))
    assert connection.info()["state"] == "running"


def test_late_frames_of_a_closed_stream(machine: Machine, guest: Guest, connection: Connection) -> None:
    guest.begin(connection)
    stream = connection.open(EXEC, command("true"))
    number = guest.expect(EXEC).stream
    connection.send(SIGNAL, stream, struct.pack("<II", 15, 0))
    connection.send(CLOSE, stream)
    assert guest.expect(SIGNAL).payload == struct.pack("<II", 15, 0)
    assert guest.expect(CLOSE).payload == b""
    fence = guest.expect(INFO).stream
    guest.ok(number, PID)
    guest.data(number, b"late")
    guest.exit(number, 0)
    guest.ok(fence, b"{}")
    assert connection.info()["state"] == "running"
    guest.data(number, b"too late")
    ended(machine, "not asked")


def test_a_stream_is_closed_when_the_fence_is_reached(machine: Machine, guest: Guest, connection: Connection) -> None:
    guest.begin(connection)
    connection.send(CLOSE, connection.open(EXEC, command("true")))
    number = guest.expect(EXEC).stream
    guest.expect(CLOSE)
    fence = guest.expect(INFO).stream
    # Another that is closed meanwhile has to wait for a fence of its own.
    connection.send(CLOSE, connection.open(EXEC, command("true")))
    other = guest.expect(EXEC).stream
    guest.expect(CLOSE)
    guest.ok(fence, b"{}")
    second = guest.expect(INFO).stream
    guest.ok(other, PID)
    guest.ok(second, b"{}")
    assert connection.info()["state"] == "running"
    guest.ok(number, PID)
    ended(machine, "not asked")


def test_a_closed_stream_has_no_credit_either(machine: Machine, guest: Guest, connection: Connection) -> None:
    guest.begin(connection)
    connection.send(CLOSE, connection.open(EXEC, command("true")))
    number = guest.expect(EXEC).stream
    guest.ok(number, PID)
    for _ in range(5):
        guest.data(number, bytes(1 << 16))
    ended(machine, "credit")


def test_a_guest_that_answers_nothing(machine: Machine, guest: Guest, connection: Connection) -> None:
    """Requests stay unanswered, up to what is kept for it; S is there for everybody."""
    guest.begin(connection)
    patient = machine.connect()
    execs = [patient.open(EXEC, command("true")) for _ in range(10)]
    signals = machine.connect()
    for _ in range(65):
        signals.send(SIGNAL, WORKLOAD, struct.pack("<II", 15, 0))
    assert refused(signals, WORKLOAD).errno == 11
    runs = [connection.open(GUEST_RUN, struct.pack("<I", 0)) for _ in range(9)]
    assert refused(connection, runs[-1]).errno == 11
    flood = machine.connect()
    payload = bytes(1 << 20)
    answers = [flood.open(EXEC, payload) for _ in range(4)]
    assert refused(flood, answers[-1]).errno == 11
    assert connection.info()["state"] == "running"
    machine.connect().quit()
    assert refused(patient, execs[0]).errno == 3
    assert refused(signals, WORKLOAD).errno == 3
    assert machine.host.agent.gone()


def test_more_streams_than_there_may_be(machine: Machine, guest: Guest, connection: Connection) -> None:
    guest.begin(connection)
    other = machine.connect()
    for _ in range(200):
        other.open(FILES)
    last = [connection.open(FILES) for _ in range(60)][-1]
    assert refused(connection, last).errno == 11
    other.close()
    for _ in range(200):
        while guest.next().type != CLOSE:
            pass
    assert connection.info()["state"] == "running"


def test_resizes_and_signals_gather(guest: Guest, connection: Connection) -> None:
    """However many there are for a guest that reads nothing, little is kept."""
    guest.begin(connection)
    stream = connection.open(EXEC, command("true"))
    for at in range(100_000):
        connection.send(RESIZE, stream, struct.pack("<HH", at % 1000 + 1, 80))
        connection.send(SIGNAL, stream, struct.pack("<II", at % 64 + 1, 0))
    guest.expect(EXEC)
    last = None
    connection.send(CLOSE, stream)
    while (frame := guest.next()).type != CLOSE:
        if frame.type == RESIZE:
            last = struct.unpack("<HH", frame.payload)
    assert last == (1000, 80)


def test_answers_to_signals_find_their_clients(machine: Machine, guest: Guest, connection: Connection) -> None:
    guest.begin(connection)
    first, second, third = machine.connect(), machine.connect(), machine.connect()
    for number, sender in ((1, first), (2, second), (3, third)):
        sender.send(SIGNAL, WORKLOAD, struct.pack("<II", number, 1))
        assert guest.expect(SIGNAL).payload == struct.pack("<II", number, 1)
    first.close()
    assert connection.info()["state"] == "running"
    guest.ok(WORKLOAD)
    guest.error(WORKLOAD, phase=5, errno=22, text=b"no\x1b[2J")
    guest.ok(WORKLOAD)
    failure = refused(second, WORKLOAD)
    assert (failure.errno, failure.text) == (22, "no?[2J")
    assert third.answer(WORKLOAD) == b""
    guest.ok(WORKLOAD)
    ended(machine, "not asked")


def test_an_error_of_the_start(machine: Machine, guest: Guest, connection: Connection) -> None:
    stream = connection.open(GUEST_START, Start(inside=[]).encode())
    guest.ok(guest.expect(ATTACH).stream)
    guest.error(guest.expect(START).stream, phase=2, code=50, index=3, errno=2, text=b"x" * 4096)
    failure = refused(connection, stream)
    assert (failure.phase, failure.code, failure.index, failure.errno) == (2, 50, 3, 2)
    assert failure.text == "x" * 199
    assert machine.host.agent.gone()


def test_the_machine_ends_during_the_start(machine: Machine, guest: Guest, connection: Connection) -> None:
    stream = connection.open(GUEST_START, Start(inside=[]).encode())
    guest.expect(ATTACH)
    machine.kill()
    failure = refused(connection, stream)
    assert (failure.phase, failure.errno) == (5, 3)
    assert failure.text == "the machine was killed by signal 9"
    assert machine.host.agent.gone()
    assert not (machine.host.bundle / "exit.json").exists()


def test_the_machine_ends_before_its_guest_is_there(machine: Machine, guest: Guest) -> None:
    connection = machine.start("sleep 0.2; exit 3")
    watch = connection.watch()
    stream = connection.open(GUEST, SOCKET.encode())
    assert refused(connection, stream).errno == 3
    assert connection.collect(watch).code == 255
    ended(machine, "code 3")


def test_a_machine_that_stays_after_its_guests_end(machine: Machine, guest: Guest, connection: Connection) -> None:
    stream = connection.attach()
    output = guest.begin(connection)
    guest.data(output, b"bye\n")
    guest.exit(output, 9)
    with pytest.raises(EOFError):
        guest.next()
    result = connection.collect(stream)
    assert (result.code, result.out) == (9, b"bye\n")
    assert machine.host.agent.gone()
    assert machine.host.agent.exit().get("error") is None


def test_a_machine_that_closes_the_link_and_stays(machine: Machine, guest: Guest, connection: Connection) -> None:
    watch = connection.watch()
    guest.begin(connection)
    guest.socket.close()
    assert connection.collect(watch).code == 255
    ended(machine, "closed its agent's socket")


def test_what_was_said_before_the_link_closed_counts(machine: Machine, guest: Guest, connection: Connection) -> None:
    """Although S has something to send at that time, which fails."""
    stream = connection.attach()
    output = guest.begin(connection)
    os.kill(machine.host.agent.pid, signal.SIGSTOP)
    connection.open(EXEC, command("true"))
    guest.data(output, b"last words\n")
    guest.exit(output, 4)
    guest.socket.close()
    os.kill(machine.host.agent.pid, signal.SIGCONT)
    machine.kill()
    result = connection.collect(stream)
    assert (result.code, result.out) == (4, b"last words\n")


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("vm/none", 2),
        ("vm/fifo", 88),
        ("vm/link", 88),
        ("vm/", 88),
        ("up/agent.sock", 40),
        ("vm/../../outside.sock", 18),
        ("/etc/passwd", 18),
        ("vm/a\0b", 22),
        ("vm/dead.sock", 111),
    ],
)
def test_a_socket_that_is_something_else(machine: Machine, tmp_path: Path, name: str, number: int) -> None:
    vm = machine.host.bundle / "vm"
    os.mkfifo(vm / "fifo")
    (vm / "link").symlink_to("agent.sock")
    (machine.host.bundle / "up").symlink_to("vm")
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as outside:
        dead.bind(str(vm / "dead.sock"))
        outside.bind(str(tmp_path / "outside.sock"))
        outside.listen()
        connection = machine.start()
        assert refused(connection, connection.open(GUEST, name.encode())).errno == number
        assert connection.info()["state"] == "starting"


def test_there_is_no_guest(box: Box) -> None:
    connection = box.launch()
    assert refused(connection, connection.open(GUEST, SOCKET.encode())).errno == 3
    connection.start(box.request("sleep", "1000"))
    for kind, payload in ((GUEST, SOCKET.encode()), (GUEST_START, b""), (GUEST_RUN, b"")):
        assert refused(connection, connection.open(kind, payload)).errno == 3


def test_requests_before_the_guest_is_there(machine: Machine) -> None:
    connection = machine.start()
    for kind in (EXEC, FILES, GUEST_START, GUEST_RUN):
        assert refused(connection, connection.open(kind)).errno == 3
    with pytest.raises(Failure):
        connection.signal(15)


@pytest.mark.parametrize("flags", [9, 10, 12, 16])
def test_a_machine_has_no_other_flags(machine: Machine, flags: int) -> None:
    connection = machine.host.launch()
    with pytest.raises(Failure) as refused_:
        connection.start(machine.host.request("true", flags=flags))
    assert (refused_.value.phase, refused_.value.errno) == (5, 22)
