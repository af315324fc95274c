"""Which other host of the fleet has an operation: it is that one's which carries it out."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import quote

from bulkhead.api.service import Service
from bulkhead.engine.fleet.member import Member
from bulkhead.errors import BulkheadError, NotFound
from bulkhead.fleet import Host
from bulkhead.host import peers
from bulkhead.tenancy.passing import HEADER, encode
from bulkhead.tenancy.principal import Principal

OPERATION = re.compile(r"^/v1/operations/([^/]+)(/events)?$")
SECONDS = 10.0


async def find_operation(service: Service, fleet: Member, identifier: str, principal: Principal) -> Host | None:
    """None where this host has it, or nobody that answers: then this one says so."""
    try:
        await service.call(service.engine.operations.get, identifier, tenant=principal.tenant)
    except NotFound:
        others = await asyncio.to_thread(fleet.others)
        told = await asyncio.gather(*(asyncio.to_thread(_has, each, fleet, identifier, principal) for each in others))
        return next((host for host, has in zip(others, told, strict=True) if has), None)
    return None


def _has(host: Host, fleet: Member, identifier: str, principal: Principal) -> bool:
    path, headers = f"/v1/operations/{quote(identifier, safe='')}", {HEADER: encode(principal)}
    try:
        peers.call(host.address, "GET", path, context=fleet.tls(), headers=headers, timeout=SECONDS)
    except BulkheadError:
        return False
    return True
