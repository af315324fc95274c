"""Fuzz the engine's end of the protocol: python -m tests.unit.agent.fuzz SECONDS [SEED].

An agent that answers with mutated frames, wrong lengths and lies, against sessions, commands and file sessions.
Whatever it says, the engine gets an answer or one of its own errors, in bounded time and memory.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from bulkhead.agent import frames
from bulkhead.agent.copying import copy_out
from bulkhead.agent.files import Files
from bulkhead.agent.frames import CREDIT, TO_AGENT, Decoder, ExecFlag, ExecRequest, Frame, ProtocolError, Start, Type
from bulkhead.agent.operations import Code, read, simple
from bulkhead.agent.session import Session
from bulkhead.errors import BulkheadError, Unavailable

START = Start(inside=(simple(Code.EXEC, "true"),), stage=(simple(Code.MOUNT, "proc", "proc", "/proc", 0, ""),))
EXEC = ExecRequest(inside=(simple(Code.EXEC, "true"),), flags=ExecFlag.STDIN)
PATIENCE = 0.02
MOST = 10_000
"""Portions of a tar stream after which an agent that goes on for ever has made its point."""


def some_payload(chance: random.Random) -> bytes:
    """What answers carry, right and wrong."""
    kinds: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: chance.randbytes(chance.choice((1, 4, 8, 12, 48, 300))),
        lambda: struct.pack("<I", chance.choice((0, 1, 4711, 2**32 - 1))),
        lambda: struct.pack("<II", chance.randrange(300), chance.randrange(130)),
        lambda: struct.pack(
            "<BBHII", chance.randrange(7), 0, chance.randrange(60), chance.randrange(4), chance.randrange(140)
        ),
        lambda: b'{"pid": 1, "state": "running"}',
        lambda: (
            struct.pack("<II", chance.choice((4, 8, 60, 70_000)), chance.choice((0, 0, 0, 2, 13))) + some_entry(chance)
        ),
        lambda: struct.pack("<I", CREDIT),
    ]
    return chance.choice(kinds)()


def some_entry(chance: random.Random) -> bytes:
    """The body of a file session's answer."""
    mode = chance.choice((0o040755, 0o100644, 0o120777, 0o140777, 0, 0xFFFFFFFF))
    name = chance.choice((b"a", b"..", b"x/y", b"", b"n" * 300, chance.randbytes(5)))
    size = chance.choice((0, 3, 2**40, 2**63))
    entry = struct.pack("<IIIIQQQII", mode, 0, 0, chance.randrange(3), size, 1, 1, 0, len(name)) + name
    return struct.pack("<Q", chance.randrange(2)) + entry if chance.random() < 0.5 else entry


def some_answer(chance: random.Random, stream: int) -> bytes:
    """A frame, more or less."""
    kind = chance.choice(list(Type))
    channel = chance.randrange(4) if kind in (Type.DATA, Type.EOF, Type.CREDIT) else 0
    payload = some_payload(chance)
    number = chance.choice((stream, stream, stream, stream, 1, 0, 2**32 - 1))
    data = bytearray(struct.pack("<IBBBBI", len(payload), 1, kind, channel, 0, number) + payload)
    if chance.random() < 0.1:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def liar(connection: socket.socket, chance: random.Random) -> None:
    """Answers requests: the first often rightly, the rest as it likes."""
    decoder, honesty = Decoder(TO_AGENT), chance.random()
    with suppress(OSError, ProtocolError), connection:
        while data := connection.recv(1 << 16):
            for frame in decoder.feed(data):
                if frame.type < Type.OK and chance.random() < honesty:
                    connection.sendall(frames.encode(Frame(Type.OK, frame.stream, bytes(chance.choice((0, 4))))))
                if frame.type is Type.DATA and chance.random() < honesty:
                    body = some_entry(chance)
                    data = struct.pack("<II", 4 + len(body), 0) + body
                    connection.sendall(frames.encode(Frame(Type.DATA, frame.stream, data, 1)))
                while chance.random() > honesty:
                    connection.sendall(some_answer(chance, frame.stream))
            if chance.random() > honesty + 0.5:
                return


def requests(session: Session, chance: random.Random) -> int:
    """What the engine does with a session; how many requests were answered."""

    def copy() -> None:
        for number, _ in enumerate(copy_out(Files(session), "/x")):
            if number > MOST:
                return

    actions: list[Callable[[], object]] = [
        lambda: session.start(START, timeout=PATIENCE),
        lambda: session.run([read("/x")], timeout=PATIENCE),
        lambda: session.info(timeout=PATIENCE),
        lambda: session.guest(timeout=PATIENCE),
        lambda: session.guest_start(START, timeout=PATIENCE),
        lambda: session.guest_run([read("/x")], timeout=PATIENCE),
        lambda: session.signal(15, timeout=PATIENCE),
        lambda: session.ended(session.watch(), timeout=PATIENCE),
        lambda: session.exec_collect(EXEC, timeout=PATIENCE, limit=1000, stdin=bytes(chance.randrange(400_000))),
        lambda: session.quit(timeout=PATIENCE),
        copy,
    ]
    answered = 0
    for _ in range(5):
        try:
            chance.choice(actions)()
        except (Unavailable, ProtocolError):
            return answered
        except (BulkheadError, TimeoutError):
            continue
        answered += 1
    return answered


def main(seconds: float, seed: int) -> None:
    """Run for a time; an error that is none of ours ends it."""
    import bulkhead.agent.files
    import bulkhead.agent.session

    bulkhead.agent.files.ANSWER_SECONDS = PATIENCE  # type: ignore[misc]
    bulkhead.agent.session.DEFAULT_TIMEOUT = PATIENCE  # type: ignore[misc]
    end, rounds, answered = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        chance = random.Random(seed + rounds)
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=liar, args=(theirs, random.Random(seed + rounds)))
        thread.start()
        try:
            with Session(ours) as session:
                answered += requests(session, chance)
        except BaseException:
            sys.stderr.write(f"round {rounds} of seed {seed}\n")
            raise
        finally:
            thread.join()
        rounds += 1
    sys.stdout.write(f"{rounds} connections, {answered} requests answered, no error but our own, seed {seed}\n")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
