"""What has been used, as it is asked for."""

from __future__ import annotations

import calendar
import time
from collections.abc import Collection, Mapping

from bulkhead.engine.context import Context
from bulkhead.engine.metering import Meter
from bulkhead.errors import NotFound, Problem, Refused
from bulkhead.metering import query, units
from bulkhead.metering.query import By, Row, Wanted

FRESH_SECONDS = 5.0
"""What was read so recently is not read again for somebody who looks."""
LENGTHS = {seconds: name for name, seconds in query.TIMES.items()}
MOST_ROWS = 200_000


class UsageCatalog:
    """Looks into the ledger."""

    def __init__(self, context: Context, meter: Meter) -> None:
        self._context = context
        self._meter = meter

    def use(
        self,
        *,
        instances: Collection[str] | None,
        tenant: str | None,
        plan: str | None,
        begin: float | None,
        end: float | None,
        by: Collection[By],
        known: bool = False,
    ) -> Mapping[str, object]:
        """Rows of use with the time that they cover; see docs/reference/metering.md.

        None for `begin`: this month (UTC), for `end`: until now. Raises NotFound for instances that were never there,
        unless what is `known` is enough: then they are in "unknown". Raises Refused where the time makes no sense or
        the rows would be too many.
        """
        now = time.time()
        begin = month_begin(now) if begin is None else begin
        end = now if end is None else end
        if not begin < end:
            raise Refused([Problem(f"from {begin:g} is not before to {end:g}", "give an earlier --from")])
        if now - self._meter.sampled > FRESH_SECONDS and end > self._meter.sampled:
            self._meter.sample()
        ledger, wanted = self._context.ledger, Wanted(instances, tenant, plan)
        unknown = query.unknown(ledger, wanted)
        if unknown and not known:
            raise not_known(unknown)
        least = min((query.TIMES[each] for each in by if each in query.TIMES), default=query.TIMES["day"])
        span = query.span(begin, end, now, ledger.retention, least=least)
        found = query.rows(ledger, span, wanted, by)
        if len(found) > MOST_ROWS:
            raise Refused(
                f"these are {len(found)} rows of use, at most {MOST_ROWS} are told", hint="take a shorter time"
            )
        return {
            "from": span.begin,
            "to": span.end,
            "resolution": LENGTHS[span.length],
            "by": list(by),
            "unknown": list(unknown),
            "rows": [_told(row) for row in found],
        }


def not_known(references: Collection[str]) -> NotFound:
    """Of instances that were never there."""
    return NotFound(
        f"no use of an instance {' or '.join(references)} is known", hint="bulkhead usage without a name lists them all"
    )


def _told(row: Row) -> dict[str, object]:
    subject = row.subject
    return {
        "from": row.begin,
        "to": row.end,
        "id": subject.instance,
        "kind": subject.kind,
        "name": subject.name,
        "tenant": subject.tenant,
        "plan": subject.plan,
        **units.told(row.usage),
    }


def month_begin(now: float) -> float:
    """When the month began that a time is in (UTC)."""
    year, month, *_ = time.gmtime(now)
    return float(calendar.timegm((year, month, 1, 0, 0, 0)))
