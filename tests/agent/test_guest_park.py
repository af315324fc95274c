"""Parking: a guest is quiet between PARK and RESUME, and the same supervisor or another goes on with it."""

from __future__ import annotations

import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bulkhead.agent.operations import Code, Operation, encode, mkdir, read
from tests.agent.box import Box, command, simple
from tests.agent.machine import SOCKET, Guest, GuestAgent, Machine
from tests.agent.test_guest_link import STDIN, Inner
from tests.agent.test_hostile_guest import ended
from tests.agent.wire import (
    ATTACH,
    CLOSE,
    CREDIT,
    DATA,
    EOF,
    EXEC,
    FILES,
    GUEST,
    GUEST_RUN,
    GUEST_START,
    PARK,
    RESUME,
    SIGNAL,
    Connection,
    Failure,
    wait_until,
)

NOTHING = encode([])
PID = struct.pack("<I", 42)
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"


@pytest.fixture
def inner(new_box: Callable[[], Box], agent_binary: Path, busybox_root: Path, tmp_path: Path) -> Iterator[Inner]:
    machine = Machine(new_box())
    with ExitStack() as stack:
        bundle = tmp_path / "guest"
        guest = Box.make(bundle, busybox_root, GuestAgent(agent_binary, bundle, where=machine.socket))
        stack.callback(guest.end)
        yield Inner(machine, guest)


def park(connection: Connection) -> None:
    assert connection.ask(PARK) == b""


def resume(connection: Connection, *operations: Operation) -> int:
    return int.from_bytes(connection.ask(RESUME, encode(operations)), "little")


def lines(data: bytes) -> list[int]:
    return [int(line) for line in data.split()]


def logged(box: Box) -> list[int]:
    entries = [(text, kind) for stream, kind, text in box.agent.log() if stream == "stdout"]
    return [int(line) for line in "".join(text + "\n" * (kind == "F") for text, kind in entries).splitlines()]


def refused(connection: Connection, kind: int, payload: bytes = b"") -> Failure:
    with pytest.raises(Failure) as caught:
        connection.ask(kind, payload)
    return caught.value


def goes_on(guest: Guest, connection: Connection, output: int) -> None:
    """A guest that has answered RESUME is asked again, once that answer, like all that came before, has been read."""
    stream = connection.attach()
    guest.data(output, b"x")
    assert connection.next(stream).payload == b"x"
    connection.open(EXEC, command("true"))
    guest.expect(EXEC)


# --- with a real agent as the guest


def test_a_workload_goes_on_where_it_was(inner: Inner) -> None:
    connection = inner.link()
    stream = connection.attach()
    inner.begin(connection, "sh", "-c", COUNT)
    seen = connection.next(stream).payload
    for _ in range(20):
        park(connection)
        assert connection.info()["state"] == "parked"
        quiet = inner.machine.host.agent.log()
        assert inner.machine.host.agent.log() == quiet
        assert resume(connection) > 0
        assert connection.info()["state"] == "running"
        seen += connection.next(stream).payload
    connection.signal(signal.SIGKILL)
    result = inner.collect(connection, stream)
    assert result.signal == signal.SIGKILL
    counted = lines(seen + result.out)
    assert counted == list(range(1, len(counted) + 1))
    assert inner.machine.host.agent.gone()
    assert logged(inner.machine.host) == counted


def test_a_new_supervisor_goes_on(inner: Inner, new_box: Callable[[], Box], tmp_path: Path) -> None:
    """As after a move: all that was said before is the old one's, what comes is the new one's, and nothing is lost."""
    connection = inner.link()
    connection.attach()
    inner.begin(connection, "sh", "-c", f"trap 'echo $i; exit 7' USR1; {COUNT}")
    running = connection.open(EXEC, command("sleep", "1000"))
    connection.answer(running)
    waits = connection.open(EXEC, command("sh", "-c", "cat; touch /tmp/eof", flags=2))
    connection.answer(waits)
    park(connection)
    before = logged(inner.machine.host)
    inner.machine.kill()
    assert inner.machine.host.agent.gone()

    other = Machine(new_box())
    inner.machine.socket.rename(other.socket)  # the guest listens there
    fresh = other.host.launch()
    early = fresh.attach(3)
    other.pid = fresh.start(other.host.request("sleep", "1000", flags=8))
    fresh.ask(GUEST, SOCKET.encode())
    assert fresh.info()["state"] == "starting"
    note = tmp_path / "note"
    assert resume(fresh, mkdir(note)) > 0
    assert note.is_dir()
    assert fresh.info()["state"] == "running"
    assert fresh.exec(command("echo", "here")).out == b"here\n"
    assert wait_until((inner.guest.upper / "tmp/eof").exists), "its client has gone"
    fresh.signal(signal.SIGUSR1)
    assert inner.guest.agent.gone()
    other.kill()
    result = fresh.collect(early)
    assert result.code == 7
    after = lines(result.out)
    assert before + after[:-1] == list(range(1, after[-1] + 1))
    assert other.host.agent.gone()
    assert logged(other.host) == after
    assert other.host.agent.exit()["code"] == 7


def test_what_waits_is_done_afterwards(inner: Inner) -> None:
    """Commands, input, signals to them, who comes and who goes while it is parked."""
    connection = inner.link()
    inner.begin(connection, "sh", "-c", "read a; echo got $a; read b; echo got $b; exec sleep 1000", flags=STDIN)
    stream = connection.attach(3)
    cat = connection.open(EXEC, command("cat", flags=2))
    connection.answer(cat)
    sleeps = connection.open(EXEC, command("sleep", "1000"))
    connection.answer(sleeps)
    parted = connection.open(EXEC, command("sh", "-c", "cat; touch /tmp/parted", flags=2))
    connection.answer(parted)
    park(connection)
    connection.send(DATA, stream, b"one\n")
    connection.send(DATA, cat, b"said\n")
    connection.send(EOF, cat)
    connection.send(SIGNAL, sleeps, struct.pack("<II", signal.SIGTERM, 0))
    connection.send(CLOSE, parted, struct.pack("<I", 1))
    late = connection.attach(3)
    connection.send(DATA, late, b"two\n")
    requests = {EXEC: command("true"), FILES: b"", GUEST_RUN: NOTHING, GUEST: SOCKET.encode(), PARK: b""}
    for kind, payload in requests.items():
        failure = refused(connection, kind, payload)
        assert (failure.errno, failure.text) == (16, "the instance is parked")
    with pytest.raises(Failure) as caught:
        connection.signal(signal.SIGTERM)
    assert caught.value.errno == 16
    resume(connection)
    assert connection.collect(cat).out == b"said\n"
    assert connection.collect(sleeps).signal == signal.SIGTERM
    assert wait_until((inner.guest.upper / "tmp/parted").exists)
    said = b""
    while said.count(b"\n") < 2:
        said += connection.next(stream).payload
    assert sorted(said.splitlines()) == [b"got one", b"got two"]


def test_an_end_while_it_is_parked_is_told_afterwards(inner: Inner) -> None:
    connection = inner.link()
    stream = connection.attach()
    inner.begin(connection, "sh", "-c", "read x; echo last; exit 5", flags=STDIN)
    ran = connection.open(EXEC, command("sh", "-c", "read x; exit 6", flags=2))
    connection.answer(ran)
    workload = connection.attach(1)
    connection.send(DATA, workload, b"\n")
    connection.send(DATA, ran, b"\n")
    park(connection)
    assert connection.info()["state"] == "parked"
    resume(connection)
    result = inner.collect(connection, stream)
    assert (result.code, result.out) == (5, b"last\n")
    assert connection.collect(ran).code in (6, 137)


def test_a_flood_loses_nothing(inner: Inner) -> None:
    """Nobody takes the output of a workload that says more than all buffers hold, and it is parked again and again."""
    connection = inner.link()
    stuck = inner.machine.connect()
    stuck.credit = False
    stuck_stream = stuck.attach()
    many = 200_000
    inner.begin(connection, "sh", "-c", f"seq {many}; exec sleep 1000")
    for _ in range(5):
        park(connection)
        resume(connection)
    got = bytearray()
    while len(got) < 262_144:
        got += stuck.next(stuck_stream).payload
    park(connection)
    now = logged(inner.machine.host)[:-1]  # without the last, of which there may be the beginning alone
    assert now == list(range(1, len(now) + 1)), "what is not passed on yet is in the log"
    # At least what the stuck client got; `now` is without its last line, and so is `got` with its newlines.
    assert len(now) >= got.count(b"\n") - 1
    resume(connection)
    stuck.credit = True
    stuck.send(CREDIT, stuck_stream, struct.pack("<I", len(got)), 1)
    while not got.endswith(b"%d\n" % many):
        got += stuck.next(stuck_stream).payload
    assert lines(bytes(got)) == list(range(1, many + 1))
    assert logged(inner.machine.host) == list(range(1, many + 1))


def test_what_cannot_be_parked(inner: Inner) -> None:
    connection = inner.link()
    assert refused(connection, PARK).text == "the workload does not run"
    assert refused(connection, RESUME, NOTHING).text == "it is not parked"
    inner.begin(connection, "sleep", "1000")
    assert refused(connection, RESUME, NOTHING).text == "it is not parked"
    park(connection)
    failure = refused(connection, RESUME, encode([simple(Code.WRITE, "/nothing/there", "x")]))
    assert (failure.phase, failure.errno) == (4, 2)
    assert refused(connection, RESUME, b"nonsense").phase == 5
    assert connection.info()["state"] == "parked"
    resume(connection, read("/proc/version"))
    assert connection.exec(command("true")).code == 0


def test_quit_while_it_is_parked(inner: Inner) -> None:
    connection = inner.link()
    stream = connection.attach()
    inner.begin(connection, "sleep", "1000")
    park(connection)
    with inner.machine.connect() as other:
        other.quit()
    assert connection.collect(stream).signal == signal.SIGKILL
    assert inner.machine.host.agent.gone()


def test_the_machine_ends_while_it_is_parked(inner: Inner) -> None:
    connection = inner.link()
    stream = connection.attach()
    inner.begin(connection, "sleep", "1000")
    park(connection)
    inner.machine.kill()
    assert connection.collect(stream).code == 255
    assert inner.machine.host.agent.gone()


# --- with the test as a guest that lies


@pytest.fixture
def machine(new_box: Callable[[], Box]) -> Machine:
    return Machine(new_box())


@pytest.fixture
def guest(machine: Machine) -> Iterator[Guest]:
    guest = Guest(machine)
    yield guest
    guest.close()


@pytest.fixture
def connection(machine: Machine, guest: Guest) -> Connection:
    connection = machine.start()
    guest.link(connection)
    return connection


def begin_park(guest: Guest, connection: Connection) -> tuple[int, int]:
    """PARK to its OK; the stream of the workload's output, and that of PARK."""
    output = guest.begin(connection)
    stream = connection.open(PARK)
    number = guest.expect(PARK).stream
    guest.ok(number)
    assert connection.answer(stream) == b""
    return output, number


LIES: dict[str, Callable[[Guest, int, int], None]] = {
    "a second answer": lambda guest, _, number: guest.ok(number),
    "an error afterwards": lambda guest, _, number: guest.error(number),
    "output": lambda guest, output, _: guest.data(output, b"x"),
    "its end": lambda guest, output, _: guest.exit(output, 0),
    "credit": lambda guest, output, _: guest.credit(output, 1),
    "nobody's answer": lambda guest, _, number: guest.ok(number + 1, PID),
}


@pytest.mark.parametrize("name", LIES)
def test_a_word_of_a_parked_guest_ends_it(machine: Machine, guest: Guest, connection: Connection, name: str) -> None:
    LIES[name](guest, *begin_park(guest, connection))
    ended(machine, "not asked" if name in ("a second answer", "an error afterwards", "nobody's answer") else "parked")


def test_a_word_before_the_answer_to_resume(machine: Machine, guest: Guest, connection: Connection) -> None:
    output, _ = begin_park(guest, connection)
    connection.open(RESUME, NOTHING)
    guest.expect(RESUME)
    guest.data(output, b"x")
    ended(machine, "parked")


@pytest.mark.parametrize("answer", [b"", b"12345"])
def test_an_answer_to_resume_of_a_wrong_length(
    machine: Machine, guest: Guest, connection: Connection, answer: bytes
) -> None:
    begin_park(guest, connection)
    connection.open(RESUME, NOTHING)
    guest.ok(guest.expect(RESUME).stream, answer)
    ended(machine, "wrong length")


def test_a_flood_instead_of_the_answer(machine: Machine, guest: Guest, connection: Connection) -> None:
    output = guest.begin(connection)
    connection.open(PARK)
    guest.expect(PARK)
    for _ in range(5):
        guest.data(output, bytes(1 << 16))
    ended(machine, "credit")


def test_a_guest_that_never_answers(guest: Guest, connection: Connection) -> None:
    """The request fails within a bounded time; a late answer does no harm, and the guest goes on."""
    output = guest.begin(connection)
    connection.open(EXEC, command("true"))
    asked = guest.expect(EXEC).stream
    stream = connection.open(PARK)
    number = guest.expect(PARK).stream
    with pytest.raises(Failure) as caught:
        connection.answer(stream)
    assert (caught.value.errno, caught.value.text) == (110, "the guest does not answer")
    undo = guest.expect(RESUME)
    assert undo.payload == NOTHING
    assert refused(connection, PARK).errno == 16
    guest.ok(asked, PID)
    guest.ok(number)
    guest.ok(undo.stream, PID)
    goes_on(guest, connection, output)


def test_who_asked_has_gone(machine: Machine, guest: Guest, connection: Connection) -> None:
    """A daemon that is killed while it parks leaves nothing parked."""
    output = guest.begin(connection)
    with machine.connect() as other:
        other.open(PARK)
        number = guest.expect(PARK).stream
    undo = guest.expect(RESUME)
    guest.ok(number)
    guest.ok(undo.stream, PID)
    goes_on(guest, connection, output)


def test_a_guest_that_refuses(guest: Guest, connection: Connection) -> None:
    output = guest.begin(connection)
    stream = connection.open(PARK)
    guest.error(guest.expect(PARK).stream, phase=5, errno=3, text=b"no")
    with pytest.raises(Failure) as caught:
        connection.answer(stream)
    assert caught.value.text == "no"
    guest.data(output, b"x\n")
    connection.open(EXEC, command("true"))
    guest.expect(EXEC)


def test_a_guest_that_closes(machine: Machine, guest: Guest, connection: Connection) -> None:
    begin_park(guest, connection)
    guest.socket.shutdown(socket.SHUT_RDWR)
    ended(machine, "closed its agent's socket")


def test_resume_of_a_guest_that_is_not_parked(machine: Machine, guest: Guest, connection: Connection) -> None:
    """On a new supervisor: it can be started all the same."""
    stream = connection.open(RESUME, NOTHING)
    output = guest.expect(ATTACH)
    guest.ok(output.stream)
    guest.error(guest.expect(RESUME).stream, phase=5, errno=22, text=b"it is not parked")
    with pytest.raises(Failure) as caught:
        connection.answer(stream)
    assert caught.value.errno == 22
    assert connection.info()["state"] == "starting"
    connection.open(GUEST_START, b"")
    assert guest.next().type == 1


def test_the_guest_goes_while_a_new_supervisor_resumes(machine: Machine, guest: Guest, connection: Connection) -> None:
    stream = connection.open(RESUME, NOTHING)
    guest.ok(guest.expect(ATTACH).stream)
    guest.expect(RESUME)
    machine.kill()
    with pytest.raises(Failure) as caught:
        connection.answer(stream)
    assert caught.value.errno == 3
    assert machine.host.agent.gone()
    assert not (machine.host.bundle / "exit.json").exists(), "it has never run here"
