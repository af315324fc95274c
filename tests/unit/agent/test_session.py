"""The blocking client against an agent that misbehaves."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulkhead.agent import frames
from bulkhead.agent.frames import CREDIT, Channel, ExecFlag, ExecRequest, Exit, Frame, ProtocolError, Start, Type
from bulkhead.agent.launch import listen
from bulkhead.agent.operations import Code, read, simple
from bulkhead.agent.session import MAX_QUEUE, Session
from bulkhead.errors import AgentError, CommandNotFound, Unavailable
from tests.unit.agent.peer import Answer, Peer

START = Start(inside=(simple(Code.EXEC, "true"),))
EXEC = ExecRequest(inside=(simple(Code.EXEC, "true"),))


@pytest.fixture
def make_peer() -> Iterator[Callable[[Answer], Peer]]:
    """Makes peers, closed at the end."""
    made: list[Peer] = []

    def make(answer: Answer) -> Peer:
        made.append(Peer(answer))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


Make = Callable[[Answer], Peer]


def ok(payload: bytes = b"") -> Answer:
    """Answers every request so."""
    return lambda peer, frame: peer.send(Frame(Type.OK, frame.stream, payload))


def failing(phase: int, code: int, number: int) -> Answer:
    """Answers every request with an error."""
    payload = struct.pack("<BBHII", phase, 0, code, 0, number)
    return lambda peer, frame: peer.send(Frame(Type.ERROR, frame.stream, payload))


def test_start(make_peer: Make) -> None:
    peer = make_peer(ok(struct.pack("<I", 4711)))
    assert peer.session.start(START) == 4711
    assert peer.received == [Frame(Type.START, 1, frames.start_payload(START))]


def test_errors_come_in_words(make_peer: Make) -> None:
    with pytest.raises(CommandNotFound, match="true"):
        make_peer(failing(2, Code.EXEC, errno.ENOENT)).session.start(START)
    with pytest.raises(AgentError, match="EINVAL"):
        make_peer(failing(5, 0, errno.EINVAL)).session.signal(15)
    with pytest.raises(AgentError, match="cannot read /x"):
        make_peer(failing(4, Code.READ, errno.EIO)).session.run([read("/x")])


def test_run_gives_the_reports(make_peer: Make) -> None:
    payload = struct.pack("<I", 3) + b"one" + struct.pack("<I", 0) + struct.pack("<I", 1) + b"2"
    assert make_peer(ok(payload)).session.run([read("/a")]) == ["one", "", "2"]
    with pytest.raises(ProtocolError):
        make_peer(ok(struct.pack("<I", 99) + b"short")).session.run([read("/a")])


def test_info(make_peer: Make) -> None:
    assert make_peer(ok(b'{"pid": 5, "state": "running"}')).session.info()["pid"] == 5
    for bad in (b"no json", b"[1]", b"\xff"):
        with pytest.raises(ProtocolError):
            make_peer(ok(bad)).session.info()


def test_watch(make_peer: Make) -> None:
    peer = make_peer(ok())
    stream = peer.session.watch()
    assert peer.session.ended(stream, timeout=0) is None
    peer.send(Frame(Type.EXIT, stream, struct.pack("<II", 137, 9)))
    assert peer.session.ended(stream, timeout=5) == Exit(137, 9)
    peer.hang_up()
    with pytest.raises(Unavailable):
        peer.session.ended(stream, timeout=5)


def test_an_agent_that_says_nothing_or_nonsense(make_peer: Make) -> None:
    with pytest.raises(Unavailable, match="did not answer"):
        make_peer(lambda peer, frame: None).session.info(timeout=0.05)
    with pytest.raises(ProtocolError):
        make_peer(lambda peer, frame: peer.send_bytes(b"\xff" * 12)).session.info()
    with pytest.raises(ProtocolError):
        make_peer(lambda peer, frame: peer.send(Frame(Type.EOF, frame.stream))).session.info()
    with pytest.raises(Unavailable, match=r"closed|gone"):
        make_peer(lambda peer, frame: peer.hang_up()).session.info()


def test_quit(make_peer: Make) -> None:
    def ending(peer: Peer, frame: Frame) -> None:
        peer.send(Frame(Type.OK, frame.stream))
        peer.hang_up()

    make_peer(ending).session.quit()
    with pytest.raises(Unavailable, match="did not end"):
        make_peer(ok()).session.quit(timeout=0.05)
    with pytest.raises(Unavailable):
        make_peer(lambda peer, frame: peer.hang_up()).session.quit()
    with pytest.raises(Unavailable, match="did not answer"):
        make_peer(lambda peer, frame: None).session.quit(timeout=0.05)


def test_a_flood_is_bounded(make_peer: Make) -> None:
    def flood(peer: Peer, frame: Frame) -> None:
        peer.send(*[Frame(Type.OK, frame.stream)] * (MAX_QUEUE + 2))

    session = make_peer(flood).session
    with pytest.raises(ProtocolError, match="floods"):
        session.watch()


def test_frames_of_other_streams_wait_or_are_dropped(make_peer: Make) -> None:
    def answer(peer: Peer, frame: Frame) -> None:
        peer.send(Frame(Type.OK, 999), Frame(Type.OK, frame.stream, b"{}"))

    assert make_peer(answer).session.info() == {}


def exec_answer(*sent: Frame) -> Answer:
    """An exec that was executed and then sends this."""

    def answer(peer: Peer, frame: Frame) -> None:
        if frame.type is Type.EXEC:
            peer.send(Frame(Type.OK, frame.stream, bytes(4)), *sent)

    return answer


def data(payload: bytes, channel: Channel = Channel.STDOUT) -> Frame:
    """Output on the first stream."""
    return Frame(Type.DATA, 1, payload, channel)


END = Frame(Type.EXIT, 1, struct.pack("<II", 3, 0))


def test_collect(make_peer: Make) -> None:
    answer = exec_answer(data(b"out"), data(b"err", Channel.STDERR), data(b"put"), Frame(Type.EOF, 1, b"", 1), END)
    done = make_peer(answer).session.exec_collect(EXEC, timeout=5)
    assert (done.code, done.stdout, done.stderr, done.truncated) == (3, b"output", b"err", False)


def test_collect_keeps_no_more_than_the_limit(make_peer: Make) -> None:
    peer = make_peer(exec_answer(data(b"x" * 1000), data(b"y" * 1000), END))
    done = peer.session.exec_collect(EXEC, timeout=5, limit=1500)
    assert (len(done.stdout), done.truncated) == (1500, True)


def test_collect_gives_credit_back(make_peer: Make) -> None:
    portion = data(b"x" * 65536)
    peer = make_peer(exec_answer(portion, portion, portion, portion))
    with pytest.raises(TimeoutError):
        peer.session.exec_collect(EXEC, timeout=0.3)
    given = [struct.unpack("<I", frame.payload)[0] for frame in peer.received if frame.type is Type.CREDIT]
    assert sum(given) == CREDIT


def test_collect_refuses_output_on_the_input(make_peer: Make) -> None:
    with pytest.raises(ProtocolError):
        make_peer(exec_answer(data(b"x", Channel.STDIN), END)).session.exec_collect(EXEC, timeout=2)


def test_collect_kills_after_the_timeout(make_peer: Make) -> None:
    peer = make_peer(exec_answer())
    with pytest.raises(TimeoutError):
        peer.session.exec_collect(EXEC, timeout=0.05)
    peer.session.open(Type.INFO)
    while peer.received[-1].type is not Type.INFO:
        pass
    assert [frame.type for frame in peer.received] == [Type.EXEC, Type.SIGNAL, Type.CLOSE, Type.INFO]
    assert peer.received[1].payload == struct.pack("<II", 9, 0)


def test_collect_feeds_no_faster_than_the_credit(make_peer: Make) -> None:
    total = CREDIT + 100_000
    taken = 0

    def answer(peer: Peer, frame: Frame) -> None:
        nonlocal taken
        if frame.type is Type.EXEC:
            peer.send(Frame(Type.OK, frame.stream, bytes(4)))
        elif frame.type is Type.DATA:
            taken += len(frame.payload)
            if taken == CREDIT:
                peer.send(Frame(Type.CREDIT, 1, struct.pack("<I", CREDIT), Channel.STDIN))
        elif frame.type is Type.EOF:
            peer.send(END)

    request = ExecRequest(inside=EXEC.inside, flags=ExecFlag.STDIN)
    done = make_peer(answer).session.exec_collect(request, timeout=10, stdin=bytes(total))
    assert (done.code, taken) == (3, total)


def test_long_paths_can_be_connected_to(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    with listen(directory / "agent.sock") as listener:
        assert (directory / "agent.sock").stat().st_mode & 0o777 == 0o600
        with Session.connect(directory / "agent.sock"):
            listener.accept()[0].close()
    with pytest.raises(Unavailable, match="no agent answers"):
        Session.connect(directory / "agent.sock")
    with pytest.raises(Unavailable):
        Session.connect(tmp_path / "missing" / "agent.sock")


def test_a_guest(make_peer: Make) -> None:
    waiting = [errno.ENOENT, errno.ECONNREFUSED]

    def answer(peer: Peer, frame: Frame) -> None:
        if frame.type is Type.GUEST and waiting:
            peer.send(Frame(Type.ERROR, frame.stream, struct.pack("<BBHII", 5, 0, 0, 0, waiting.pop(0))))
        elif frame.type is Type.GUEST:
            peer.send(Frame(Type.OK, frame.stream, b'{"state":"idle"}'))
        elif frame.type is Type.GUEST_START:
            peer.send(Frame(Type.OK, frame.stream, struct.pack("<I", 7)))
        else:
            peer.send(Frame(Type.OK, frame.stream, struct.pack("<I", 2) + b"ok"))

    peer = make_peer(answer)
    assert peer.session.guest() == {"state": "idle"}
    assert peer.session.guest_start(START) == 7
    assert peer.session.guest_run([read("/x")]) == ["ok"]
    assert [frame.type for frame in peer.received] == [*[Type.GUEST] * 3, Type.GUEST_START, Type.GUEST_RUN]
    assert peer.received[0].payload == b"vm/agent.sock"


def test_a_guest_that_does_not_come(make_peer: Make) -> None:
    with pytest.raises(Unavailable, match="no guest listens"):
        make_peer(failing(5, 0, errno.ENOENT)).session.guest(timeout=0.02)
    with pytest.raises(AgentError, match="ESRCH"):
        make_peer(failing(5, 0, errno.ESRCH)).session.guest()
    with pytest.raises(ProtocolError, match="GUEST"):
        make_peer(ok(b"[" * 100_000)).session.guest()
    with pytest.raises(ProtocolError, match="GUEST"):
        make_peer(ok(b"[]")).session.guest()
