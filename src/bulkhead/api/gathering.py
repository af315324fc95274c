"""Lists of a whole fleet: this host's answer, and those of the others to the same question, as one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkhead.api.auth import KEY
from bulkhead.api.service import Service
from bulkhead.engine.fleet.member import Member
from bulkhead.engine.usages import not_known
from bulkhead.errors import BulkheadError, NotFound
from bulkhead.fleet import Host
from bulkhead.host import peers
from bulkhead.tenancy.passing import HEADER, encode
from bulkhead.tenancy.principal import Principal

log = logging.getLogger(__name__)
INSTANCES, STATS, USAGE = "/v1/instances", "/v1/stats", "/v1/usage"
MISSING = b"bulkhead-missing"
"""Header of a list: the hosts that did not answer, whose lines are not in it."""
SECONDS = 10.0
UNHEARD_SECONDS = 2.0
"""For a host that is not heard of: it may have lost nothing but its way to the fleet's store."""
Line = dict[str, Any]
Absent = Callable[[list[Host]], Awaitable[list[Line]]]
"""Lines of what is on hosts that do not answer."""
Gather = Callable[[ASGIApp, Member, Scope, Receive, Send], Awaitable[None]]


async def instances(app: ASGIApp, fleet: Member, scope: Scope, receive: Receive, send: Send) -> None:
    """Every instance of the fleet, the newest first."""
    others = await asyncio.to_thread(fleet.others)
    asked = [(host, INSTANCES) for host in others]

    async def absent(missing: list[Host]) -> list[Line]:
        hosts = [host.id for host in missing]
        return await asyncio.to_thread(fleet.absent, hosts, tenant=scope[KEY].tenant)

    await _answer(app, fleet, (scope, receive, send), asked, own=True, absent=absent)


async def stats(app: ASGIApp, fleet: Member, scope: Scope, receive: Receive, send: Send) -> None:
    """What instances use, all of them or those that are named."""
    refs = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get("ref", [])
    if not refs:
        others = await asyncio.to_thread(fleet.others)
        await _answer(app, fleet, (scope, receive, send), [(host, STATS) for host in others], own=True)
        return
    service: Service = scope["app"].state.service
    found = [await service.call(find, service, fleet, ref, scope[KEY]) for ref in refs]
    mine = [ref for ref, host in zip(refs, found, strict=True) if host is None]
    asked = []
    for host in {host.id: host for host in found if host}.values():
        theirs = [ref for ref, at in zip(refs, found, strict=True) if at and at.id == host.id]
        asked.append((host, f"{STATS}?{urlencode({'ref': theirs}, doseq=True)}"))
    scope = {**scope, "query_string": urlencode({"ref": mine}, doseq=True).encode()}
    await _answer(app, fleet, (scope, receive, send), asked, own=bool(mine))


async def usage(app: ASGIApp, fleet: Member, scope: Scope, receive: Receive, send: Send) -> None:
    """What has been used on any host, by everything that ran there or by those that are named: what has moved was used
    on several."""
    asked = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    others = await asyncio.to_thread(fleet.others)
    if others and "ref" in asked:
        # Each host tells of those that it knows: nobody is refused before all have been asked.
        scope = {**scope, "query_string": urlencode({**asked, "known": "true"}, doseq=True).encode()}
    query = scope["query_string"].decode("latin-1")
    start, body = await _captured(app, scope, receive)
    if start["status"] != 200 or not others:
        await send(start)
        await send({"type": "http.response.body", "body": body})
        return
    assert fleet.identity is not None
    document = json.loads(body)
    rows = [{**row, "host": fleet.identity.name} for row in document["rows"]]
    path = f"{USAGE}?{query}" if query else USAGE
    told = await asyncio.gather(*(asyncio.to_thread(_call, host, path, fleet, scope[KEY]) for host in others))
    found = [_used(each) for each in told]
    missing = [host.name for host, each in zip(others, found, strict=True) if each is None]
    unknown = set(document["unknown"])
    for host, each in zip(others, found, strict=True):
        if each is not None:
            rows += [{**row, "host": host.name} for row in each[0]]
            unknown &= each[1]
    nowhere = [each for each in document["unknown"] if each in unknown]
    if nowhere and asked.get("known") != ["true"] and not missing:
        raise not_known(nowhere)
    await _send(send, start["headers"], {**document, "unknown": nowhere, "rows": rows}, missing)


GATHERED: Mapping[tuple[str, str], Gather] = {
    ("GET", INSTANCES): instances,
    ("GET", STATS): stats,
    ("GET", USAGE): usage,
}


def find(service: Service, fleet: Member, reference: str, principal: Principal) -> Host | None:
    """The other host that has it; None where this one has, or nobody: then this one says so."""
    try:
        instance = service.seen_by(principal.tenant).engine.get(reference)
    except NotFound:
        return fleet.elsewhere(reference, tenant=principal.tenant)
    return fleet.left_for(instance)


async def _answer(
    app: ASGIApp,
    fleet: Member,
    asgi: tuple[Scope, Receive, Send],
    asked: Sequence[tuple[Host, str]],
    *,
    own: bool,
    absent: Absent | None = None,
) -> None:
    """This host's lines where it is asked as well, then those of the others, each with the name of its host. `absent`:
    what is known of those that do not answer.
    """
    scope, receive, send = asgi
    assert fleet.identity is not None
    start, body = await _captured(app, scope, receive) if own else (_EMPTY, b"[]")
    if start["status"] != 200:
        await send(start)
        await send({"type": "http.response.body", "body": body})
        return
    lines = [{**line, "host": fleet.identity.name} for line in json.loads(body)]
    told = await asyncio.gather(*(asyncio.to_thread(_ask, host, path, fleet, scope[KEY]) for host, path in asked))
    missing = [host for (host, _), found in zip(asked, told, strict=True) if found is None]
    for (host, _), found in zip(asked, told, strict=True):
        lines += [{**line, "host": host.name} for line in found or []]
    if absent is not None:
        there = {spec.get("id") for line in lines if isinstance(spec := line.get("spec"), dict)}
        lines += [line for line in await absent(missing) if line["spec"]["id"] not in there]
    await _send(send, start["headers"], _newest_first(lines), [host.name for host in missing])


_EMPTY: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}


async def _send(send: Send, headers: Iterable[tuple[bytes, bytes]], told: object, missing: list[str]) -> None:
    body = json.dumps(told).encode()
    kept = [(name, value) for name, value in headers if name not in (b"content-length", b"etag")]
    kept += [(b"content-length", str(len(body)).encode())]
    kept += [(MISSING, ", ".join(missing).encode())] if missing else []
    await send({"type": "http.response.start", "status": 200, "headers": kept})
    await send({"type": "http.response.body", "body": body})


def _newest_first(lines: list[Line]) -> list[Line]:
    """As each host lists its instances; what has no such time stays in the order of the hosts."""

    def created(line: Line) -> float:
        spec = line.get("spec")
        when = spec.get("created") if isinstance(spec, dict) else 0
        return when if isinstance(when, int | float) and isfinite(when) else 0

    return sorted(lines, key=created, reverse=True)


def _ask(host: Host, path: str, fleet: Member, principal: Principal) -> list[Line] | None:
    return _lines(_call(host, path, fleet, principal))


def _used(told: object) -> tuple[list[Line], set[str]] | None:
    """What a host has told of use, and which names it does not know; None where it has told something else."""
    rows = _lines(told.get("rows")) if isinstance(told, dict) else None
    unknown = told.get("unknown") if isinstance(told, dict) else None
    if rows is None or not isinstance(unknown, list):
        return None
    return rows, {each for each in unknown if isinstance(each, str)}


def _lines(told: object) -> list[Line] | None:
    """What a host has told, where that is lines: it is of another version, or not itself any more."""
    if isinstance(told, list) and all(isinstance(each, dict) for each in told):
        return told
    return None


def _call(host: Host, path: str, fleet: Member, principal: Principal) -> Any:
    """What a host answers; None where it does not."""
    try:
        headers = {HEADER: encode(principal)}
        seconds = SECONDS if fleet.hears(host) else UNHEARD_SECONDS
        return peers.call(host.address, "GET", path, context=fleet.tls(), headers=headers, timeout=seconds)
    except BulkheadError as error:  # of another version, maybe: what it refuses the others do not
        log.warning("what host %s has is not in a list: %s", host.name, error.what)
        return None


async def _captured(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
    """What the application would answer."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, keep)
    body = b"".join(bytes(message.get("body", b"")) for message in messages[1:])
    return messages[0], body
