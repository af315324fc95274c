"""A body that several hosts are asked with in turn, and answers that are held back where they refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.types import Message, Receive

from bulkhead.api.replay import MOST_KEPT, NOT_MADE, Attempt, Replay, marking


def body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


def source(messages: Sequence[Message]) -> tuple[Receive, list[int]]:
    """Gives these, then waits for ever; and how many were asked for."""
    waiting, given = list(messages), [0]

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        given[0] += 1
        return waiting.pop(0)

    return receive, given


def test_each_reader_has_all_of_it_and_the_last_what_follows() -> None:
    async def scene() -> None:
        receive, _ = source([body(b"a"), body(b"b"), body(b"c"), body(b"d", more=False)])
        replay = Replay(receive)
        first = replay.reader()
        assert [(await first())["body"] for _ in range(2)] == [b"a", b"b"]
        second = replay.reader()
        replay.settle()
        assert [(await second())["body"] for _ in range(4)] == [b"a", b"b", b"c", b"d"]

    asyncio.run(scene())


def test_no_more_is_kept_than_may_be_before_it_is_known_who_serves_it() -> None:
    async def scene() -> None:
        half = b"x" * (MOST_KEPT // 2 + 1)
        receive, given = source([body(half), body(half), body(b"held")])
        replay = Replay(receive)
        reader = replay.reader()
        await reader()
        await reader()
        held = asyncio.ensure_future(reader())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert given == [2]
        assert not held.done()
        replay.settle()
        assert (await held)["body"] == b"held"

    asyncio.run(scene())


def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    async def scene() -> None:
        arrived = asyncio.Event()
        waiting = [body(b"late")]

        async def receive() -> Message:
            await arrived.wait()
            return waiting.pop()

        replay = Replay(receive)
        first = asyncio.ensure_future(replay.reader()())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        arrived.set()
        assert (await replay.reader()())["body"] == b"late"

    asyncio.run(scene())


def test_a_client_that_goes_is_noticed() -> None:
    async def scene() -> None:
        receive, _ = source([{"type": "http.disconnect"}])
        replay = Replay(receive)
        assert not replay.gone
        await replay.reader()()
        assert replay.gone

    asyncio.run(scene())


def test_only_a_refusal_by_whoever_made_nothing_is_held_back() -> None:
    async def scene(status: int, *, made: bool) -> tuple[list[Message], Attempt, list[str]]:
        sent: list[Message] = []
        settled: list[str] = []

        async def send(message: Message) -> None:
            sent.append(message)

        attempt = Attempt(send, lambda: settled.append("yes"))
        marked = marking(attempt, lambda: made)
        await marked({"type": "http.response.start", "status": status, "headers": [(b"x", b"y")]})
        told = b'{"type": "no-room", "detail": "d", "problems": [{"what": "one"}, {"what": "two"}]}'
        await marked({"type": "http.response.body", "body": told})
        return sent, attempt, settled

    sent, attempt, settled = asyncio.run(scene(409, made=False))
    assert (sent, settled, attempt.refused) == ([], [], True)
    assert (attempt.kind, attempt.why) == ("no-room", "one; two")
    asyncio.run(attempt.pass_on())
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert NOT_MADE not in dict(sent[0]["headers"])
    for status, made in ((200, False), (201, True), (422, True)):
        sent, attempt, settled = asyncio.run(scene(status, made=made))
        assert (len(sent), bool(settled), attempt.refused) == (2, True, False)


def test_what_a_host_says_is_not_trusted_to_be_json() -> None:
    async def scene(told: bytes) -> Attempt:
        async def send(_: Message) -> None:
            raise AssertionError

        attempt = Attempt(send, lambda: None)
        await attempt({"type": "http.response.start", "status": 500, "headers": [(NOT_MADE, b"1")]})
        for _ in range(5):
            await attempt({"type": "http.response.body", "body": told})
        return attempt

    for told in (b"", b"[]", b"\xff" * (1 << 20), b'{"problems": 3}', b'{"problems": [1]}'):
        attempt = asyncio.run(scene(told))
        assert (attempt.kind, attempt.why) == ("", "it did not say why")
