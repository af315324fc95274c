"""Use is metered: all instances at an interval, each at its start, its end and the changes of its plan.

The kernel counts; here is only read what it has counted, and the ledger adds what is new. A daemon that was dead finds
the counters of those that run on, and of those that have ended what their supervisors have read at the end.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

from bulkhead.engine import bundles, keeping, readings
from bulkhead.engine.context import Context
from bulkhead.errors import BulkheadError
from bulkhead.isolation.base import Bundle, Handle
from bulkhead.metering.ledger import Subject
from bulkhead.metering.meters import Counters, Reading
from bulkhead.model import Instance, Spec

log = logging.getLogger(__name__)
_PORTION = 50
"""Instances per transaction: whoever waits to record the end of one need not wait long."""
_TRIM_SECONDS = 3600.0


def has_runs(spec: Spec) -> bool:
    """Whether its runs are metered. What runs within a VM is part of what the VM uses, and its plan of the VM's; its
    disk alone is a file of the host's, and sold beside the VM's.
    """
    return not spec.inside


def subject(spec: Spec) -> Subject:
    """Whose use it is."""
    return Subject(instance=spec.id, name=spec.name, tenant=spec.tenant, plan=spec.plan_name)


def _reading(context: Context, instance: Instance, links: readings.Links | None = None) -> Reading:
    """What there is to be read of an instance now. `links`: of all, read before."""
    if has_runs(instance.spec):
        return readings.at_work(context, instance, links)
    return readings.at_rest(context, instance)


class Meter:
    """Reads and records. `begin`, `change`, `end` and `forget` are called by the lifecycle."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._trimmed = 0.0
        self.sampled = 0.0
        """When all instances were read the last time (s since the epoch)."""
        self.took = 0.0
        """How many seconds that took."""
        self.failures = 0

    # --- the lifecycle's

    def before(self, bundle: Bundle) -> Counters:
        """What is counted for an instance already that is about to start."""
        return readings.at_start(self._context, bundle) if has_runs(bundle.spec) else Counters()

    def begin(self, instance: Instance, handle: Handle, before: Counters) -> None:
        """It runs."""
        if not has_runs(instance.spec):
            return
        reading = readings.at_rest(self._context, instance)
        run = readings.run_of(handle)
        self._context.ledger.begin(subject(instance.spec), readings.of_run(reading, run, before))

    def change(self, instance: Instance) -> None:
        """It has another plan from now on, or is about to be taken away."""
        self._context.ledger.record([(subject(instance.spec), _reading(self._context, instance))])

    def end(self, instance: Instance, *, flush: bool = True) -> None:
        """Its run has ended, and nothing of it has been taken away yet. Idempotent.

        `flush`: what it has written is still to reach its disk.
        """
        context, spec = self._context, instance.spec
        if not has_runs(spec):
            return
        if flush and not spec.auto_remove:
            context.disks.flush(spec.id)
        reading = readings.at_end(context, instance, context.ledger.position(spec.id))
        if reading:
            context.ledger.record([(subject(spec), reading)])

    def undo(self, instance: Instance) -> None:
        """Its start has been undone: nobody got anything of it, so nothing is counted."""
        handle = bundles.read_handle(self._context.bundle_dir(instance))
        if handle and has_runs(instance.spec):
            reading = readings.of_run(readings.at_rest(self._context, instance), readings.run_of(handle), Counters())
            self._context.ledger.record([(subject(instance.spec), replace(reading, ended=0))])

    def forget(self, instance_id: str) -> None:
        """It has been removed."""
        self._context.ledger.end(instance_id)

    # --- the loop

    def start(self) -> None:
        """Read all instances now, and from now on whenever the interval is over."""
        self._thread = threading.Thread(target=self._loop, name="meter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; what is used from here on the next daemon finds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread:
            self._thread.join(timeout=10)

    def sample(self) -> None:
        """Read all instances once."""
        context, began = self._context, time.monotonic()
        known = context.ledger.known()  # first: what is made from here on is in the store by then
        instances, kept = context.state.instances(), keeping.every(context)
        there = {instance.spec.id for instance in instances} | {subject.instance for subject, _ in kept}
        for gone in known - there:
            context.ledger.end(gone)
        for first in range(0, len(kept), _PORTION):
            context.ledger.record(kept[first : first + _PORTION])
        links = context.networks.counted()
        for first in range(0, len(instances), _PORTION):
            portion = instances[first : first + _PORTION]
            found = [(subject(each.spec), _reading(context, each, links)) for each in portion]
            context.ledger.record(found, durable=first + _PORTION >= len(instances))
        self.took, self.sampled = time.monotonic() - began, time.time()
        if time.monotonic() - self._trimmed > _TRIM_SECONDS:
            context.ledger.trim()
            self._trimmed = time.monotonic()

    def _loop(self) -> None:
        while True:
            try:
                self.sample()
            except BulkheadError as error:
                self.failures += 1
                log.warning("metering: %s", error)
            except Exception:
                self.failures += 1
                log.exception("metering")
            with self._changed:
                interval = self._context.config.metering_interval
                # On whole multiples of the interval by the wall clock, so that most of what is read fits its bins.
                self._changed.wait_for(lambda: self._closing, interval - time.time() % interval)
                if self._closing:
                    return
