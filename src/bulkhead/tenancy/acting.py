"""For whom the current thread works, so that what it changes can be told with who changed it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from bulkhead.tenancy.principal import Principal

MOST_TARGETS = 32


@dataclass(slots=True)
class Acting:
    """One request that changes something, while it is carried out. Used by several threads."""

    principal: Principal
    targets: list[str] = field(default_factory=list)
    """What it has changed, in words such as "volume data"."""


_current: ContextVar[Acting | None] = ContextVar("bulkhead.acting", default=None)


def begin(acting: Acting | None) -> None:
    """From here on this context works for somebody; what it starts in threads does as well, where it is copied."""
    _current.set(acting)


def current() -> Acting | None:
    """Whose request is carried out; None where nobody asked."""
    return _current.get()


def user() -> str:
    """The user whose request is carried out; "" where nobody asked."""
    found = _current.get()
    return found.principal.user if found else ""


def touched(kind: str, name: str) -> None:
    """Remember what the request changes, for the trail. Names alone: nothing secret."""
    found = _current.get()
    if found and len(found.targets) < MOST_TARGETS and (target := f"{kind} {name}") not in found.targets:
        found.targets.append(target)
