"""Changes of an instance's record, each with its event in one transaction."""

from __future__ import annotations

import time

from bulkhead.engine.context import Context
from bulkhead.events import Event
from bulkhead.model import Instance
from bulkhead.tenancy import acting


def save(
    context: Context,
    instance: Instance,
    action: str = "",
    attributes: dict[str, str] | None = None,
    **changes: object,
) -> Instance:
    """Change the record; with `action` the event of it is kept in the same transaction."""
    changed = instance.model_copy(update=changes)
    if not action:
        context.state.save(changed)
        return changed
    with context.journal.recording(event_of(changed, action, attributes)):
        context.state.save(changed)
    return changed


def event_of(instance: Instance, action: str, attributes: dict[str, str] | None = None) -> Event:
    """What followers are told of an instance."""
    spec = instance.spec
    return Event(
        time.time(), "instance", spec.id, action, spec.name, attributes or {}, tenant=spec.tenant, by=acting.user()
    )
