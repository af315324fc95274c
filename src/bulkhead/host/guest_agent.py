"""qemu-guest-agent, as far as it is needed: a command run in a guest, with its output and how it ended.

Everything that comes is a guest's word: bounded in size and time, and checked. An answer is a line of JSON. Answers to
whoever spoke before may still be on their way: `guest-sync-delimited` puts a byte in front of its own (0xFF) that
JSON never has.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from bulkhead.errors import AgentError, CommandNotFound, Unavailable

SYNC_SECONDS, ANSWER_SECONDS = 5.0, 30.0
MAX_ANSWER = 4 << 20
"""Bytes. The agent keeps up to 16 MiB of output; a command that says so much is to write it to a file."""
_STALE = 1 << 20
"""Bytes of answers to others that are passed over."""
_END, _LINE = b"\xff", b"\n"
_SHORTEST, _LONGEST = 0.05, 0.5
"""Seconds between two questions whether a command has ended."""
_HINT = "install qemu-guest-agent in the system, or use its serial console (bulkhead attach) or ssh"


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended, `code` 128 + a signal's number. What the agent did not keep is `truncated`."""

    code: int
    stdout: bytes
    stderr: bytes
    truncated: bool


class GuestAgent:
    """One connection, which the agent's port serves one at a time; in sync once it is made. For one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._waiting = b""
        try:
            self._sync()
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> GuestAgent:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def run(self, argv: Sequence[str], *, env: Sequence[str] = (), alive: Callable[[], bool]) -> Finished:
        """Run a program with the agent's privileges, with `env` in the place of the agent's own where it is given.

        Given up, without ending the program, when `alive()` is false. Raises AgentError, CommandNotFound, Unavailable.
        """
        asked: dict[str, object] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        if env:
            asked["env"] = list(env)
        pid = _integer(self._ask("guest-exec", asked), "pid", 1, 1 << 62)
        pause = _SHORTEST
        while alive():
            status = self._ask("guest-exec-status", {"pid": pid})
            if status.get("exited") is True:
                return _finished(status)
            time.sleep(pause)
            pause = min(_LONGEST, pause * 1.5)
        raise AgentError("nobody waits for the command any more: it goes on in the system")

    def _sync(self) -> None:
        number = secrets.randbits(31)
        # The first byte makes the agent drop what others left unfinished.
        self._send(_END, {"execute": "guest-sync-delimited", "arguments": {"id": number}})
        try:
            self._read_until(_END, SYNC_SECONDS, _STALE)
            answer = _parse(self._read_until(_LINE, SYNC_SECONDS, _STALE))
        except Unavailable as error:
            raise Unavailable("no guest agent answers in the system", hint=_HINT) from error
        if answer.get("return") != number:
            raise AgentError("the guest agent answered something that it was not asked")

    def _ask(self, command: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        self._send(b"", {"execute": command, "arguments": arguments})
        answer = _parse(self._read_until(_LINE, ANSWER_SECONDS, MAX_ANSWER))
        if isinstance(error := answer.get("error"), dict):
            said = str(error.get("desc", ""))[:300]
            if command == "guest-exec" and "No such file" in said:
                raise CommandNotFound(f"{arguments['path']} is not in the system")
            raise AgentError(f"the guest agent refuses {command}: {said!r}")
        found = answer.get("return")
        if not isinstance(found, dict):
            raise AgentError(f"the guest agent answered {command} with {str(answer)[:100]!r}")
        return found

    def _send(self, start: bytes, request: Mapping[str, object]) -> None:
        self._socket.settimeout(ANSWER_SECONDS)
        try:
            self._socket.sendall(start + json.dumps(request).encode() + _LINE)
        except OSError as error:
            raise Unavailable(f"the guest agent takes no request: {error}", hint=_HINT) from error

    def _read_until(self, mark: bytes, seconds: float, most: int) -> bytes:
        deadline = time.monotonic() + seconds
        data = bytearray(self._waiting)
        seen = 0
        while (end := data.find(mark, seen)) < 0:
            seen = len(data)
            if seen > most:
                raise AgentError(f"the guest agent's answer has more than {most} bytes", hint="let it say less")
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unavailable("the guest agent does not answer", hint=_HINT)
            self._socket.settimeout(left)
            try:
                piece = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as error:
                raise Unavailable(f"the guest agent has gone: {error.strerror}") from error
            if not piece:
                raise Unavailable("the machine has gone")
            data += piece
        self._waiting = bytes(data[end + 1 :])
        return bytes(data[:end])


def _parse(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AgentError("the guest agent answered something that is not JSON") from error
    if not isinstance(found, dict):
        raise AgentError(f"the guest agent answered {str(found)[:100]!r}")
    return found


def _integer(answer: Mapping[str, Any], key: str, low: int, high: int) -> int:
    value = answer.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise AgentError(f"the guest agent says {key} {str(value)[:50]!r}")
    return value


def _finished(status: Mapping[str, Any]) -> Finished:
    if "signal" in status:
        code = 128 + _integer(status, "signal", 1, 127)
    else:
        # Windows has 32-bit exit codes; what is passed on is a byte, as with every other command.
        code = _integer(status, "exitcode", -(1 << 31), (1 << 32) - 1) & 0xFF
    truncated = status.get("out-truncated") is True or status.get("err-truncated") is True
    return Finished(code, _bytes(status, "out-data"), _bytes(status, "err-data"), truncated)


def _bytes(status: Mapping[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode(status.get(key, ""), validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise AgentError(f"the guest agent says {key} that is not base64") from error
