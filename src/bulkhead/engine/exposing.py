"""What Prometheus is told, read when it asks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib.metadata import version

from bulkhead.engine import keeping, readings, selling
from bulkhead.engine.billing import Billing
from bulkhead.engine.context import Context
from bulkhead.engine.metering import Meter, has_runs
from bulkhead.engine.usages import UsageCatalog
from bulkhead.model import Instance

TYPE_CHECKING = False
if TYPE_CHECKING:  # the library takes a while to load, and most daemons are never asked
    from bulkhead.metering.exposition import Amount, Health, Kept, Shown

_KHZ = 1000.0


class Exposer:
    """Reads instances, the host and the daemon."""

    def __init__(self, context: Context, meter: Meter) -> None:
        self._context = context
        self._meter = meter

    def metrics(self, tenant: str | None) -> bytes:
        """The text format. Of a tenant its instances alone; None: all of them, the host and the daemon."""
        from bulkhead.metering import exposition

        context, most = self._context, self._context.config.metrics_instances
        every = context.state.instances()
        instances = [each for each in every if tenant in (None, each.spec.tenant) and has_runs(each.spec)]
        # Those that run first: they are what is looked at.
        instances.sort(key=lambda each: (not each.pid, each.spec.created, each.spec.id))
        links = context.networks.counted()
        shown = [self._shown(each, links) for each in instances[:most]]
        left_out = max(0, len(instances) - most)
        kept = self._kept(tenant)
        if tenant is not None:
            return exposition.render(shown, left_out, kept=kept)
        return exposition.render(
            shown,
            left_out,
            kept=kept,
            states=Counter(str(each.state) for each in every),
            resources=self._resources(),
            health=self._health(),
        )

    def _shown(self, instance: Instance, links: readings.Links) -> Shown:
        from bulkhead.metering.exposition import Shown

        spec, plan = instance.spec, instance.spec.plan
        found = readings.at_work(self._context, instance, links)
        if not instance.pid:
            found = replace(found, counters=readings.NOTHING, memory=None)
        ghz = plan.ghz or self._context.facts.ghz
        return Shown(
            id=spec.id,
            name=spec.name,
            tenant=spec.tenant,
            plan=spec.plan_name,
            isolation=str(spec.isolation),
            state=str(instance.state),
            started=instance.started if instance.pid else 0.0,
            restarts=instance.restarts,
            healthy=instance.health == "healthy" if instance.health else None,
            cores=plan.cpus,
            hertz=ghz * 1e9 if ghz else None,
            memory_limit=plan.memory,
            disk_limit=found.sold.disk,
            bandwidth=plan.bandwidth // 8 if plan.bandwidth is not None else None,
            pids_limit=plan.pids,
            memory=found.memory,
            disk=found.disk,
            counters=found.counters,
        )

    def _kept(self, tenant: str | None) -> dict[str, Kept]:
        from bulkhead.metering.exposition import Kept

        found: dict[str, Kept] = {}
        for subject, reading in keeping.every(self._context):
            if tenant not in (None, subject.tenant):
                continue
            sum_, size = found.get(subject.tenant, Kept()), reading.sold.disk
            if subject.kind == "volume":
                used = sum_.volume_used + (reading.disk or 0)
                changed = {"volumes": sum_.volumes + 1, "volume_bytes": sum_.volume_bytes + size, "volume_used": used}
            else:
                changed = {"snapshots": sum_.snapshots + 1, "snapshot_bytes": sum_.snapshot_bytes + size}
            found[subject.tenant] = replace(sum_, **changed)
        return found

    def _resources(self) -> dict[str, Amount]:
        from bulkhead.metering.exposition import Amount

        has, sold = selling.capacity(self._context), selling.sold(self._context)
        names = {"memory": ("memory_bytes", 1.0), "disk": ("disk_bytes", 1.0), "cpu": ("cpu_hertz", _KHZ)}
        return {
            name: Amount(share.host * scale, share.sellable * scale, sold.of(resource) * scale)
            for resource, (name, scale) in names.items()
            if (share := has.shares.get(resource))
        }

    def _health(self) -> Health:
        from bulkhead.metering.exposition import Health

        try:
            size = self._context.config.ledger_file.stat().st_size
        except OSError:
            size = 0
        meter = self._meter
        return Health(version("bulkhead"), meter.sampled, meter.took, meter.failures, size)


def metered(context: Context, meter: Meter) -> tuple[UsageCatalog, Billing, Exposer]:
    """All that is made of what is metered."""
    return UsageCatalog(context, meter), Billing(context, meter), Exposer(context, meter)
