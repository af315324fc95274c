"""What clients of a fleet did and were told, and whether it could have been so one after the other.

Each instance's name is looked at by itself: no operation here is about two. A verb has more than one moment, as design
0027 says: a create claims the name in the fleet before the instance is there, a delete gives the name back after the
instance is gone, a move stops, hands over and starts. Between them all that others see is what the design allows.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tests.harness.linearizing import Call, order


class Verb(StrEnum):
    """What was asked for."""

    CREATE = "create"
    """And started."""
    START = "start"
    STOP = "stop"
    DELETE = "delete"
    """By force, where it runs."""
    MOVE = "move"
    LOOK = "look"
    """At the instance, whichever daemon is asked."""
    FIND = "find"
    """Its place in the fleet's record."""


class Outcome(StrEnum):
    """What came of it, as it was told."""

    OK = "ok"
    TAKEN = "taken"
    """The name is another's."""
    MISSING = "missing"
    """There is no such instance."""
    FAILED = "failed"
    """Refused; it was said that it has changed nothing."""
    UNKNOWN = "unknown"
    """No answer, or one that leaves it open."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One of a client's. Times are seconds of a clock that all clients share."""

    number: int
    client: str
    verb: Verb
    name: str
    outcome: Outcome
    began: float
    ended: float
    host: str = ""
    """The host that a create or a move is to lead to, or that a find found; "": any."""
    id: str = ""
    """The instance's, where it was told."""
    state: str = ""
    """Of the instance, where it was told."""
    why: str = ""

    def __str__(self) -> str:
        to = f" {self.host}" if self.host else ""
        told = " ".join(part for part in (self.outcome, self.id[:6], self.state, self.why[:150]) if part)
        return f"{self.began:8.3f} to {self.ended:8.3f}  {self.client:12} {self.verb} {self.name}{to}: {told}"


@dataclass(frozen=True, slots=True)
class Name:
    """What is behind a name: nothing, a claim to it, an instance, or one that is gone and has not given it back."""

    phase: str = "free"
    id: str = ""
    """"" is not known yet: it is the one that is seen first."""
    host: str = ""
    runs: bool = False
    by: int = -1
    """The create that claims it, the delete that is to give it back, or the move that is under way."""
    doomed: frozenset[int] = frozenset()
    """Deletes that have seen this instance."""


MACHINE, FENCED = "v", "r"
"""How names begin of machines, which move while they run, and of what is made anew elsewhere when its host is lost:
where that is and whether it runs changes by itself, but never what it is, nor that it is there."""


def is_fenced(operation: Operation) -> bool:
    """Whether it is about an instance that may be ended, and begun elsewhere, by nobody's wish."""
    return operation.name.startswith(FENCED)


FREE = Name()
_BETWEEN = frozenset({"creating", "created", "starting"})
_TURNING = frozenset({"starting", "stopping"})
_AWAY = frozenset({"unheard", "lost", "waiting", "recovering"})
"""Of what is on a host that does not answer: by the fleet's record alone."""
Step = Callable[[Name], Iterable[Name]]


def is_same(one: str, other: str) -> bool:
    """Whether two can be the same, one of which may not be known."""
    return not one or not other or one == other


def calls(operation: Operation) -> Iterator[Call[Name]]:
    """The moments of an operation, in whichever order they come."""
    verb, outcome = operation.verb, operation.outcome
    if outcome is Outcome.MISSING and verb is not Verb.CREATE:
        gone = ("free",) if verb is Verb.FIND else ("free", "claimed", "going")
        yield _at(operation, lambda name: [name] if name.phase in gone else [])
    elif verb is Verb.CREATE:
        yield from _create(operation)
    elif verb is Verb.DELETE:
        yield from _delete(operation)
    elif verb is Verb.MOVE:
        yield from _move(operation)
    elif verb in (Verb.START, Verb.STOP):
        if outcome in (Outcome.OK, Outcome.UNKNOWN):
            runs = verb is Verb.START
            yield _at(operation, lambda name: _turned(name, operation, runs=runs), maybe=outcome is Outcome.UNKNOWN)
    elif outcome is Outcome.OK:
        yield _at(operation, lambda name: _seen(name, operation))


def _at(operation: Operation, step: Step, *, maybe: bool = False, late: bool = False, what: str = "") -> Call[Name]:
    """`maybe`: it may not happen; `late`: it may also happen after the answer, and then it may not happen yet."""
    open_end = late or operation.outcome is Outcome.UNKNOWN
    ended = math.inf if open_end else operation.ended
    return Call(operation.began, ended, step, maybe or open_end, f"{operation.number}{what}")


def _create(operation: Operation) -> Iterator[Call[Name]]:
    number, outcome = operation.number, operation.outcome
    if outcome is Outcome.TAKEN:
        yield _at(operation, lambda name: [] if name.phase == "free" else [name])
        return

    def claim(name: Name) -> Iterable[Name]:
        if name.phase == "free":
            yield Name("claimed", operation.id, operation.host, by=number, doomed=name.doomed)

    def appear(name: Name) -> Iterable[Name]:
        if (name.phase, name.by) == ("claimed", number):
            yield replace(name, phase="here", runs=True, by=-1)
            if outcome is Outcome.UNKNOWN:
                yield replace(name, phase="here", runs=False, by=-1)

    def drop(name: Name) -> Iterable[Name]:
        if (name.phase, name.by) == ("claimed", number):
            yield replace(FREE, doomed=name.doomed)

    made = outcome is Outcome.OK
    yield _at(operation, claim, maybe=not made, what=" claims")
    if made or outcome is Outcome.UNKNOWN:
        yield _at(operation, appear, what=" is there")
    if not made:
        yield _at(operation, drop, late=True, what=" is given up")


def _delete(operation: Operation) -> Iterator[Call[Name]]:
    number, outcome = operation.number, operation.outcome

    def is_it(name: Name) -> bool:
        return name.phase in ("claimed", "here") and is_same(name.id, operation.id)

    def see(name: Name) -> Iterable[Name]:
        if is_it(name):
            yield replace(name, id=operation.id or name.id, doomed=name.doomed | {number})

    def kill(name: Name) -> Iterable[Name]:
        if is_it(name) and name.runs:
            yield replace(name, runs=False)

    def vanish(name: Name) -> Iterable[Name]:
        rest = name.doomed - {number}
        if is_it(name):
            yield replace(name, phase="going", runs=False, by=number, doomed=rest)
        elif number in name.doomed:  # another delete was first
            yield replace(name, doomed=rest)

    def give_back(name: Name) -> Iterable[Name]:
        if (name.phase, name.by) == ("going", number):
            yield replace(FREE, doomed=name.doomed)

    yield _at(operation, kill, maybe=True, what=" kills")
    if outcome is Outcome.OK:
        yield _at(operation, see, what=" sees")
    if outcome in (Outcome.OK, Outcome.UNKNOWN):
        yield _at(operation, vanish, what=" removes")
        yield _at(operation, give_back, late=True, what=" gives back")


def _move(operation: Operation) -> Iterator[Call[Name]]:
    number, outcome, target = operation.number, operation.outcome, operation.host
    made = outcome is Outcome.OK

    def hold(name: Name) -> Iterable[Name]:
        there = name.phase == "here" and name.by == -1 and is_same(name.id, operation.id)
        if there and (not made or name.host != target or is_fenced(operation)):
            yield replace(name, by=number, id=name.id or operation.id)

    def hand(name: Name) -> Iterable[Name]:
        if (name.phase, name.by) == ("here", number):
            yield replace(name, host=target)

    def settle(name: Name) -> Iterable[Name]:
        if (name.phase, name.by) == ("here", number):
            if not made or operation.state in ("", "running") or not name.runs:
                yield replace(name, by=-1)
            if name.runs and not (made and operation.state == "running"):
                yield replace(name, by=-1, runs=False)

    yield _at(operation, hold, maybe=not made, what=" stops it")
    if outcome is not Outcome.FAILED:
        yield _at(operation, hand, what=" hands it over")
    told = bool(operation.state)
    yield _at(operation, settle, maybe=not made, late=made and not told, what=" starts it")


def _turned(name: Name, operation: Operation, *, runs: bool) -> Iterable[Name]:
    """Started or stopped; also one whose create has not been answered yet."""
    still = name.by == -1 if name.phase == "here" else name.phase == "claimed"
    if still and is_same(name.id, operation.id) and (is_fenced(operation) or not (runs and name.runs)):
        yield replace(name, runs=runs, id=name.id or operation.id)


def _seen(name: Name, operation: Operation) -> Iterable[Name]:
    """Looked at, or found."""
    if name.phase == "free" or not is_same(name.id, operation.id):
        return
    if is_fenced(operation):
        yield replace(name, id=name.id or operation.id)
        return
    if not is_same(name.host, operation.host):
        return
    if operation.verb is Verb.LOOK and not _shows(name, operation.state):
        return
    yield replace(name, id=name.id or operation.id, host=name.host or operation.host)


def _shows(name: Name, state: str) -> bool:
    if state in _AWAY:
        return True
    if name.phase != "here":
        return (state in _BETWEEN or name.runs) if name.phase == "claimed" else state == "deleting"
    return name.by != -1 or state in _TURNING or (state in ("running", "paused")) is name.runs


# --- recording


@dataclass(slots=True)
class Recorder:
    """All operations of all clients. Thread-safe."""

    operations: list[Operation] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _count: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> float:
        """Seconds since the recorder was made."""
        return time.monotonic() - self._began

    def number(self) -> int:
        """Of the next operation."""
        with self._guard:
            self._count += 1
            return self._count

    def add(self, operation: Operation) -> Operation:
        """Keep it."""
        with self._guard:
            self.operations.append(operation)
        return operation


# --- judging


def by_name(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The same, for each name by itself."""
    found: dict[str, list[Operation]] = defaultdict(list)
    for operation in sorted(operations, key=lambda each: each.began):
        found[operation.name].append(operation)
    return found


def is_possible(operations: Iterable[Operation]) -> bool:
    """Whether those on one name could have been so, one after the other. Raises Unclear."""
    return order([call for operation in operations for call in calls(operation)], FREE) is not None


def impossible(operations: Iterable[Operation]) -> list[list[Operation]]:
    """For each name with which something is wrong the fewest operations that cannot all have been so."""
    return [smallest(each) for each in by_name(operations).values() if not is_possible(each)]


def smallest(operations: Sequence[Operation]) -> list[Operation]:
    """The fewest of an impossible history that are impossible already: first its beginning, then without what plays no
    part, or with less said of it.
    """
    kept = _beginning(operations)
    for operation in list(kept):
        for less in _lessened(operation):
            fewer = [new for each in kept for new in ((less or []) if each is operation else [each])]
            if not is_possible(fewer):
                kept = fewer
                break
    return kept


def _beginning(operations: Sequence[Operation]) -> list[Operation]:
    """Up to the first answer with which it is impossible; what had no answer then has none."""
    ends = sorted(each.ended for each in operations)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if is_possible(_until(operations, ends[middle])):
            low = middle + 1
        else:
            high = middle
    return _until(operations, ends[low])


def _until(operations: Sequence[Operation], moment: float) -> list[Operation]:
    begun = [each for each in operations if each.began <= moment]
    return [each if each.ended <= moment else _unknown(each) for each in begun]


def _unknown(operation: Operation) -> Operation:
    return replace(operation, outcome=Outcome.UNKNOWN, ended=math.inf, id="", state="")


def _lessened(operation: Operation) -> Iterator[list[Operation]]:
    """The operation said less of. What changes nothing can be left out; what changes something may have, or not."""
    harmless = operation.verb in (Verb.LOOK, Verb.FIND) or operation.outcome in (Outcome.MISSING, Outcome.TAKEN)
    if harmless:
        yield []
    elif operation.outcome is not Outcome.UNKNOWN:
        yield [_unknown(operation)]


def told(parts: Sequence[Sequence[Operation]], seed: int) -> str:
    """In words, for whoever has to find out why."""
    lines = [f"seed {seed}: no order explains these"]
    for part in parts:
        lines += ["", *map(str, sorted(part, key=lambda each: each.began))]
    return "\n".join(lines)
