"""Getting to an agent: connecting, opening a stream, attaching before the start, and how it all ended."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from bulkhead import model
from bulkhead.agent import frames
from bulkhead.agent.explain import explain
from bulkhead.agent.frames import AttachFlag, Decoder, Exit, Frame, Type, encode
from bulkhead.agent.session import connect_socket
from bulkhead.api.relay import STREAM, Ended
from bulkhead.api.service import Service
from bulkhead.errors import AgentError, NotFound, Unavailable
from bulkhead.model import Instance

AGENT_SECONDS = 10.0
HEADER_SIZE = 12
END_SECONDS = 30.0
"""How long the end of a workload may take to be recorded before the client is told of it anyway."""


def open_stream(path: Path, kind: Type, payload: bytes) -> socket.socket:
    """Connect to an agent and open the stream, without waiting for the answer."""
    connection = connect_socket(path)
    try:
        connection.settimeout(AGENT_SECONDS)
        connection.sendall(encode(Frame(kind, STREAM, payload)))
    except OSError as error:
        connection.close()
        raise Unavailable(f"the agent at {path} does not take requests: {error}") from error
    return connection


def attach_payload(*, stdin: bool, output: bool) -> bytes:
    """What ATTACH carries."""
    flags = (AttachFlag.STDIN if stdin else 0) | (AttachFlag.OUTPUT if output else 0)
    return int(flags).to_bytes(4, "little")


class Launch:
    """Attaches to an instance between its agent's launch and its workload's start, so that no output is missed."""

    def __init__(self, service: Service, *, stdin: bool) -> None:
        self._engine, self._stdin = service.engine, stdin
        self._connection: socket.socket | None = None
        self._ending: Future[model.Exit] | None = None

    def created(self, instance: Instance) -> None:
        """Before the start: ask for the end, which may come before the start has returned."""
        self._ending = self._engine.wait(instance.spec.id)

    def launched(self, path: Path) -> None:
        """The agent listens: attach, and see it done before START follows on another connection."""
        connection = open_stream(path, Type.ATTACH, attach_payload(stdin=self._stdin, output=True))
        self._connection = connection
        decoder, answers = Decoder(), list[Frame]()
        try:
            while not answers:
                # OK is a bare header: reading no more leaves what follows to the relay.
                data = connection.recv(HEADER_SIZE)
                if not data:
                    raise Unavailable("the agent closed the connection instead of answering")
                answers = decoder.feed(data)
        except OSError as error:
            raise Unavailable(f"the agent at {path} does not answer: {error}") from error
        if answers[0].type is Type.ERROR:
            raise explain(frames.parse_failure(answers[0].payload), ())
        if answers[0] != Frame(Type.OK, STREAM):
            raise AgentError(f"the agent answered ATTACH with {answers[0].type.name}")

    def take(self) -> socket.socket:
        """The attached connection, which is the caller's from now on."""
        connection, self._connection = self._connection, None
        if connection is None:
            raise AgentError("the instance was started without a way to attach to it")
        return connection

    def close(self) -> None:
        """Give up what was not taken."""
        if self._connection:
            self._connection.close()

    async def ended(self, how: Exit | None) -> Exit:
        """Wait until the engine has recorded the end, and with auto_remove has removed everything."""
        recorded = await _recorded(self._ending) if self._ending else None
        if how is not None:
            return how
        if recorded is None:
            raise AgentError("the agent went away without telling how the workload ended")
        return Exit(recorded.code, recorded.signal)


def ending(service: Service, instance_id: str) -> Ended:
    """What an attached client is told: the agent's word, else what the engine finds out."""

    async def ended(how: Exit | None) -> Exit:
        if how is not None:
            return how
        with suppress(NotFound):
            recorded = await _recorded(await service.call(service.engine.wait, instance_id))
            if recorded is not None:
                return Exit(recorded.code, recorded.signal)
        raise AgentError("the agent went away without telling how the workload ended")

    return ended


async def _recorded(future: Future[model.Exit]) -> model.Exit | None:
    """How it ended according to the engine; None when that takes too long. The future is never cancelled."""
    done, _ = await asyncio.wait({asyncio.wrap_future(future)}, timeout=END_SECONDS)
    return done.pop().result() if done else None
