"""Calls of etcd's JSON gateway (3.4: /v3): several members, each call bounded in time, of the next where one fails.

What a call that failed has done is part of how it fails: `Rejected` has done nothing, `Unsure` may have done all of
it. Calls that may be made twice are made again instead; they end in Unavailable.
"""

from __future__ import annotations

import json
import math
import random
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from bulkhead.errors import BulkheadError, HostError, Problem, Refused, Unavailable

Json = dict[str, Any]
Pool = urllib3.HTTPConnectionPool
PATIENCE = 3.0
"""Seconds that one member gets for one answer: longer than an election among members near one another takes."""
_CONNECT = 1.0
_REST, _LONGEST_REST = 2.0, 60.0
"""Seconds for which a member that failed is asked last; doubled with each failure."""
_PAUSE = 0.1
"""Seconds, about, between two rounds over all members."""
HURRY = 1.0
"""Seconds that a call gets once whoever makes it is about to end."""
_CONNECTIONS = 16
"""Kept per member."""
_INVALID, _NOT_FOUND, _DENIED, _EXHAUSTED, _PRECONDITION, _OUT_OF_RANGE = 3, 5, 7, 8, 9, 11
_DEFINITE = {_INVALID, _NOT_FOUND, _DENIED, _EXHAUSTED, _PRECONDITION, _OUT_OF_RANGE, 12, 16}
"""Codes of gRPC by which etcd says that it has not done it, and will not. Others (14: no leader, leader changed, timed
out) come as well where it was proposed, and may be done yet."""


@dataclass(frozen=True, slots=True)
class TLS:
    """Mutual TLS: the authority of the members, and what this client shows them (PEM files)."""

    authority: Path
    certificate: Path
    key: Path


class Rejected(Exception):
    """etcd says no; nothing was changed."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def no_lease(self) -> bool:
        """A lease that it names is not there."""
        return self.code == _NOT_FOUND and "lease" in self.message

    @property
    def compacted(self) -> bool:
        """The revision that it names is of before what is kept."""
        return self.code == _OUT_OF_RANGE and "compacted" in self.message

    @property
    def future(self) -> bool:
        """The member has not seen that revision yet."""
        return self.code == _OUT_OF_RANGE and "future" in self.message

    def error(self) -> BulkheadError:
        """In words for the user."""
        if "too large" in self.message or "larger than max" in self.message:
            return Refused("the change is too large for etcd", hint="change fewer records at once, or smaller ones")
        if "too many operations" in self.message:
            hint = "change fewer records at once, or start etcd with a larger --max-txn-ops"
            return Refused("the change reads and writes more records than etcd takes in one transaction", hint=hint)
        if "space exceeded" in self.message:
            hint = "compact and defragment it, then disarm its alarm"
            return Unavailable("etcd has no space left and takes no changes", hint=hint)
        if "too many requests" in self.message:
            return Unavailable("etcd has more to do than it can", hint="try again in a moment")
        return HostError(f"etcd refuses the request: {self.message}")


class Unsure(Exception):
    """The request went out, and no answer says what became of it."""


class _Member:
    """One endpoint with its connections, and until when it is asked last."""

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        parsed = urllib3.util.parse_url(url)
        self.url, self.rest, self.failures = url, 0.0, 0
        assert parsed.host
        if context:
            self.pool: Pool = urllib3.HTTPSConnectionPool(
                parsed.host, parsed.port, maxsize=_CONNECTIONS, ssl_context=context
            )
        else:
            self.pool = Pool(parsed.host, parsed.port, maxsize=_CONNECTIONS)

    def failed(self) -> None:
        """Ask the others first for a while."""
        self.rest = time.monotonic() + min(_LONGEST_REST, _REST * 2 ** min(self.failures, 8))
        self.failures += 1

    def answered(self) -> None:
        """It is as good as any."""
        self.rest, self.failures = 0.0, 0


class Gateway:
    """The members of one etcd, the nearest first (http:// or https://, host and port). Safe to use from any thread.

    Nothing is connected to here. Raises Refused where an endpoint is none, HostError where a TLS file cannot be used.
    """

    def __init__(self, endpoints: Sequence[str], *, tls: TLS | None = None, timeout: float = 10.0) -> None:
        wrong = [f"{url!r} is no endpoint of etcd" for url in endpoints if not _is_endpoint(url, tls)]
        if wrong or not endpoints:
            hint = (
                "say https://HOST:PORT" if tls else "say http://HOST:PORT, or give the certificates that go with https"
            )
            raise Refused([Problem(what, hint) for what in wrong or ["no endpoint of etcd is given"]])
        context = _context(tls) if tls else None
        self._members = [_Member(url, context) for url in endpoints]
        self._guard = threading.Lock()
        self._hurried: float | None = None
        self._silent = False
        self.timeout = timeout
        self.names = ", ".join(endpoints)

    def __len__(self) -> int:
        return len(self._members)

    def order(self) -> list[int]:
        """Which to ask, in this order: the nearest first, those that failed lately last."""
        now = time.monotonic()
        with self._guard:
            return sorted(range(len(self._members)), key=lambda number: (self._members[number].rest > now, number))

    def url(self, member: int) -> str:
        """The endpoint of one."""
        return self._members[member].url

    def call(self, path: str, body: Mapping[str, Any], *, timeout: float | None = None) -> Json:
        """A call that may be made twice: by each member in turn, and again, until one answers or the time is up.

        Raises Rejected, Unavailable.
        """
        return self._asked(path, body, timeout, again=(Unsure, Unavailable))

    def once(self, path: str, body: Mapping[str, Any], *, timeout: float | None = None) -> Json:
        """A call that must not be made twice. Members that cannot be connected to are passed over.

        Raises Rejected, Unsure, and Unavailable where it never went out.
        """
        return self._asked(path, body, timeout, again=(Unavailable,))

    def _asked(
        self, path: str, body: Mapping[str, Any], timeout: float | None, *, again: tuple[type[Exception], ...]
    ) -> Json:
        """The first answer, each member being asked in turn; `again`: what another one may be asked after."""
        begun = time.monotonic()
        deadline = begun + (self.timeout if timeout is None else timeout)
        problem = "no member could be asked in time"
        while True:
            for member in self.order():
                if (left := min(deadline, self._allowed(begun)) - time.monotonic()) <= 0:
                    self._silent = self._hurried is not None
                    raise self.unavailable(problem)
                try:
                    return self.ask(member, path, body, timeout=min(PATIENCE, left))
                except again as error:
                    problem = str(error)
            time.sleep(max(0.0, min(deadline - time.monotonic(), random.uniform(0.5, 1.5) * _PAUSE)))  # noqa: S311

    def ask(self, member: int, path: str, body: Mapping[str, Any], *, timeout: float = PATIENCE) -> Json:
        """One call of one member. Raises Rejected, Unsure, and Unavailable where it could not be connected to."""
        read = timeout if self._hurried is None else min(timeout, HURRY)
        with self._told(member):
            response = self._send(member, path, body, read=read, stream=False)
            data = response.data
        answer = _parse(data)
        if response.status == 200 and "error" not in answer:
            return answer
        error = answer.get("error")
        said = error if isinstance(error, dict) else answer  # of a stream it is one level deeper
        code = int(said.get("grpc_code") or said.get("code") or 2)
        message = str(said.get("message") or error or data[:200])
        if code in _DEFINITE:
            raise Rejected(code, message)
        self._mark(member, good=False)
        raise Unsure(f"{self.url(member)}: {message}")

    def open(self, member: int, path: str, body: Mapping[str, Any], *, quiet: float) -> urllib3.BaseHTTPResponse:
        """A stream of JSON lines, which ends with a ReadTimeoutError after `quiet` seconds without any.

        Closed by the caller. Raises Unsure, Unavailable.
        """
        with self._told(member):
            return self._send(member, path, body, read=quiet, stream=True)

    def term(self, member: int, *, timeout: float = PATIENCE) -> int:
        """The term of whoever leads a majority after this was called, as this member has it. Raises as `ask`."""
        answer = self.ask(member, "kv/range", {"key": "AA==", "count_only": True}, timeout=timeout)
        return int(answer["header"].get("raft_term", 0))

    def failed(self, member: int) -> None:
        """Ask the others first for a while."""
        self._mark(member, good=False)

    def unavailable(self, problem: str) -> Unavailable:
        """The error that says that nobody answers."""
        hint = "are most of its members up, and can they be reached from here?"
        return Unavailable(f"etcd at {self.names} does not answer: {problem}", hint=hint)

    def hurry(self) -> None:
        """Whoever uses it is about to end: from now on a call gets HURRY seconds, also one that is under way, and none
        at all once members were silent for so long. Idempotent.
        """
        if self._hurried is None:
            self._hurried = time.monotonic()

    def close(self) -> None:
        """Let go of the connections. Idempotent."""
        for member in self._members:
            member.pool.close()

    # --- inside

    def _allowed(self, begun: float) -> float:
        """Until when (monotonic) a call that began then may be made."""
        if self._hurried is None:
            return math.inf
        return begun if self._silent else max(begun, self._hurried) + HURRY

    def _told(self, member: int) -> _Told:
        return _Told(self, member)

    def _mark(self, member: int, *, good: bool) -> None:
        with self._guard:
            if good:
                self._members[member].answered()
            else:
                self._members[member].failed()

    def _send(
        self, member: int, path: str, body: Mapping[str, Any], *, read: float, stream: bool
    ) -> urllib3.BaseHTTPResponse:
        response = self._members[member].pool.urlopen(
            "POST",
            f"/v3/{path}",
            body=json.dumps(body, separators=(",", ":")).encode(),
            # A stream ends where its member has lost the leader, rather than being silent.
            headers={"Content-Type": "application/json", **({"Grpc-Metadata-hasleader": "true"} if stream else {})},
            timeout=urllib3.Timeout(connect=min(_CONNECT, read), read=read, total=None if stream else read),
            retries=False,
            redirect=False,
            preload_content=not stream,
        )
        if not stream and response.status == 200:
            self._mark(member, good=True)
        return response


class _Told:
    """Around the use of a connection: what urllib3 raises as what a caller has to know."""

    def __init__(self, gateway: Gateway, member: int) -> None:
        self._gateway, self._member = gateway, member

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, HTTPError):
            return
        self._gateway.failed(self._member)
        url = self._gateway.url(self._member)
        if isinstance(error, NewConnectionError | ConnectTimeoutError):
            raise Unavailable(f"{url} cannot be connected to") from error
        raise Unsure(f"{url}: {error}") from error


def _is_endpoint(url: str, tls: TLS | None) -> bool:
    try:
        parsed = urllib3.util.parse_url(url)
    except HTTPError:
        return False
    path = parsed.request_uri.strip("/")
    return bool(parsed.scheme == ("https" if tls else "http") and parsed.host and parsed.port and not path)


def _context(tls: TLS) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(tls.authority))
        context.load_cert_chain(str(tls.certificate), str(tls.key))
    except (OSError, ssl.SSLError) as error:
        what = f"{tls.authority}, {tls.certificate}, {tls.key}"
        raise HostError(f"the certificates for etcd cannot be used ({what}): {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _parse(data: bytes) -> Json:
    """Of a stream that has ended the first line."""
    try:
        found = json.loads(data.split(b"\n", 1)[0] or b"{}")
    except ValueError:
        return {"error": f"no JSON: {data[:100]!r}"}
    return found if isinstance(found, dict) else {"error": f"no object: {data[:100]!r}"}
