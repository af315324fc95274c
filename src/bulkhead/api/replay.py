"""One request that several hosts may be asked in turn: its body again from the beginning, and answers held back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from starlette.types import Message, Receive, Send

from bulkhead.api.relay import MAX_REQUEST

MOST_KEPT = MAX_REQUEST + (1 << 20)
"""Bytes of a body that are kept; nothing more is read before it is known who serves it."""
MOST_TOLD = 1 << 18
"""Of a refusal."""
NOT_MADE = b"bulkhead-not-made"
"""Header of an answer between hosts: nothing was made, and another host may be asked."""


class Replay:
    """A body for one reader after the other, until one of them has it for good."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._size = 0
        self._settled = asyncio.Event()
        self.gone = False
        """The client has."""

    def settle(self) -> None:
        """The reader that there is now is the last."""
        self._settled.set()

    def reader(self) -> Receive:
        """Reads from the beginning. One that was read from before is not read from any more."""
        position = 0

        async def read() -> Message:
            nonlocal position
            if position == len(self._kept) and self._size > MOST_KEPT:
                await self._settled.wait()
            if position < len(self._kept):
                position += 1
                return self._kept[position - 1]
            message = await self._receive()
            self.gone = self.gone or message["type"] == "http.disconnect"
            if not self._settled.is_set():
                self._kept.append(message)
                self._size += len(message.get("body", b""))
                position += 1
            return message

        return read


def _says_not_made(start: Message) -> bool:
    return any(name == NOT_MADE for name, _ in start["headers"])


class Attempt:
    """What one host answers: passed on, but for a refusal, which is kept. `refuses` tells it by the answer's start."""

    def __init__(
        self, send: Send, settle: Callable[[], None], refuses: Callable[[Message], bool] = _says_not_made
    ) -> None:
        self._send, self._settle, self._refuses = send, settle, refuses
        self._start: Message | None = None
        self._body = bytearray()

    @property
    def refused(self) -> bool:
        """Whether it was refused, so that another may be asked."""
        return self._start is not None

    async def __call__(self, message: Message) -> None:
        if self._start is not None:
            self._body += bytes(message.get("body", b""))[: MOST_TOLD - len(self._body)]
        elif message["type"] == "http.response.start" and self._refuses(message):
            self._start = message
        else:
            self._settle()
            await self._send(message)

    @property
    def kind(self) -> str:
        """Of the problem; "" where it is none."""
        return self._told("type")

    @property
    def why(self) -> str:
        """In words."""
        problems = self._document().get("problems")
        listed = problems if isinstance(problems, list) else []
        said = [str(each.get("what")) for each in listed if isinstance(each, dict)]
        return "; ".join(said) or self._told("detail") or "it did not say why"

    async def pass_on(self) -> None:
        """Answer with the refusal after all."""
        assert self._start is not None
        headers = [pair for pair in self._start["headers"] if pair[0] not in (NOT_MADE, b"content-length")]
        headers.append((b"content-length", str(len(self._body)).encode()))
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": bytes(self._body)})

    def _told(self, key: str) -> str:
        return str(self._document().get(key, ""))

    def _document(self) -> dict[str, object]:
        try:
            found = json.loads(self._body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def marking(send: Send, made: Callable[[], bool]) -> Send:
    """Sends, and says of an error whether nothing was made."""

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400 and not made():
            message = {**message, "headers": [*message.get("headers", ()), (NOT_MADE, b"1")]}
        await send(message)

    return marked
