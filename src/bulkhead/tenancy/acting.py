"""For whom the current thread works, so that what it changes can be told with who changed it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from bulkhead.tenancy.principal import Principal

T = TypeVar("T")

MOST_TARGETS = 32


@dataclass(slots=True)
class Acting:
    """One request that changes something, while it is carried out. Used by several threads."""

    principal: Principal
    targets: list[str] = field(default_factory=list)
    """What it has changed, in words such as "volume data"."""
    before: Callable[[], None] | None = None
    """What is to be done before it changes anything; None: nothing, or it is done."""
    guard: threading.Lock = field(default_factory=threading.Lock)

    def begun(self) -> None:
        """Do that, once. Whatever it raises is raised again by the next one who asks."""
        if self.before is None:
            return
        with self.guard:
            if (before := self.before) is not None:
                before()
                self.before = None

    def ended(self) -> None:
        """It is over: what has not been begun by now is not begun any more."""
        with self.guard:
            self.before = None


_current: ContextVar[Acting | None] = ContextVar("bulkhead.acting", default=None)


def begin(acting: Acting | None) -> None:
    """From here on this context works for somebody; what it starts in threads does as well, where it is copied."""
    _current.set(acting)


def current() -> Acting | None:
    """Whose request is carried out; None where nobody asked."""
    return _current.get()


def carried_out(work: Callable[[], T]) -> T:
    """Work of a request, in whichever thread: what is to be done before it has been done."""
    if found := _current.get():
        found.begun()
    return work()


def user() -> str:
    """The user whose request is carried out; "" where nobody asked."""
    found = _current.get()
    return found.principal.user if found else ""


def touched(kind: str, name: str) -> None:
    """Remember what the request changes, for the trail. Names alone: nothing secret."""
    found = _current.get()
    if found and len(found.targets) < MOST_TARGETS and (target := f"{kind} {name}") not in found.targets:
        found.targets.append(target)
