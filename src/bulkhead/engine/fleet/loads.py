"""What instances take and use, as their hosts have measured it: what moves between hosts are weighed by."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import TypeAdapter, ValidationError

from bulkhead import limits
from bulkhead.amounts import Amounts
from bulkhead.engine import bundles
from bulkhead.engine.context import Context
from bulkhead.engine.fleet import staying
from bulkhead.engine.fleet.living import Living
from bulkhead.engine.fleet.places import placed
from bulkhead.errors import BulkheadError
from bulkhead.fleet import Host, Load
from bulkhead.host import peers
from bulkhead.metering import query, schema
from bulkhead.metering.meters import Usage
from bulkhead.model import Instance

log = logging.getLogger(__name__)
PATH = "/v1/fleet/loads"
OVER_SECONDS = 3600
"""The time that use is the mean of: what goes up and down within it moves nothing."""
LEAST_SECONDS = 60.0
"""Of a run, before its use is one."""
ASKED_AT_ONCE = 16
ASK_SECONDS = 20.0
_loads = TypeAdapter(tuple[Load, ...])


def own(context: Context) -> list[Load]:
    """Of this host's instances that have a place in the fleet."""
    used = _used(context)
    return [_load(context, one, used.get(one.spec.id)) for one in context.state.instances() if placed(one.spec)]


def _load(context: Context, instance: Instance, used: Usage | None) -> Load:
    spec, running = instance.spec, instance.pid != 0
    disk = context.bundle_dir(instance) / bundles.DISK
    try:
        written = disk.stat().st_blocks * 512
    except FileNotFoundError:
        written = 0
    resident = limits.read_usage(context.layout, context.config.cgroup, spec.id).memory if running else 0
    objections = staying.pinned(context, spec)
    return Load(
        id=spec.id,
        running=running,
        written=written,
        resident=resident,
        used=_amounts(context, used, written, running=running),
        live=running and _runs_on(context, instance),
        pinned=objections[0].what if objections else "",
    )


def _runs_on(context: Context, instance: Instance) -> bool:
    try:
        Living(context).machine(instance)
    except BulkheadError:
        return False
    return True


def _amounts(context: Context, used: Usage | None, written: int, *, running: bool) -> dict[str, int] | None:
    if not running:  # it takes its disk; what it will use when it runs nobody knows
        return Amounts(disk=written).as_dict()
    if used is None or used.uptime < LEAST_SECONDS * 1000:
        return None
    cores = used.cpu / (used.uptime * 1_000_000)
    memory = used.memory_used * 1024 * 1000 // used.uptime
    return Amounts(memory=memory, cpu=round(cores * limits.core_khz(context.facts)), disk=written).as_dict()


def _used(context: Context) -> dict[str, Usage]:
    now = time.time()
    span = query.span(now - OVER_SECONDS, now, now, context.ledger.retention, least=schema.MINUTE)
    rows = query.rows(context.ledger, span, query.Wanted(), ["instance"])
    found: dict[str, Usage] = {}
    for row in rows:
        if row.subject.kind == "instance":  # of another plan, before a change, is another row
            found[row.subject.instance] = found.get(row.subject.instance, Usage()) + row.usage
    return found


def of_others(hosts: Iterable[Host], tls: ssl.SSLContext) -> tuple[dict[str, Load], list[str]]:
    """Of the instances on other hosts, by their ids; and the ids of the hosts that did not say."""
    hosts = list(hosts)
    loads: dict[str, Load] = {}
    unheard: list[str] = []

    def told(host: Host) -> Sequence[Load] | None:
        try:
            return _loads.validate_python(peers.call(host.address, "GET", PATH, context=tls, timeout=ASK_SECONDS))
        except (BulkheadError, ValidationError) as error:
            log.warning("host %s does not say what its instances use: %s", host.name, error)
            return None

    if not hosts:
        return loads, unheard
    with ThreadPoolExecutor(min(ASKED_AT_ONCE, len(hosts)), thread_name_prefix="loads") as pool:
        for host, found in zip(hosts, pool.map(told, hosts), strict=True):
            if found is None:
                unheard.append(host.id)
            else:
                loads.update((load.id, load) for load in found)
    return loads, unheard
