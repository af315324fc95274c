"""The error tree. Every error says what failed, with the value, and carries at most one hint.

An error knows the HTTP status it becomes at the API's edge and the exit code it becomes at the CLI's edge,
so that neither edge needs a table of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input: `what` (with the value and the reason) and what to do about it."""

    what: str
    hint: str = ""


class BulkheadError(Exception):
    """The root: something failed that the user should be told in these words."""

    kind = "error"
    http_status = 500
    exit_code = 125

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything that is wrong, at least one entry."""
        return (Problem(self.what, self.hint),)


class Unauthorized(BulkheadError):
    """Nobody knows who asks: no token or certificate, or none that is good."""

    kind = "unauthorized"
    http_status = 401


class Forbidden(BulkheadError):
    """Who asks is known, and may not do this."""

    kind = "forbidden"
    http_status = 403


class TooMany(BulkheadError):
    """More requests, or more failed sign-ins, than one may make; `after` seconds later there is room again."""

    kind = "too-many"
    http_status = 429

    def __init__(self, what: str, *, hint: str = "", after: float = 1.0) -> None:
        super().__init__(what, hint=hint)
        self.after = after


class NotFound(BulkheadError):
    """A name or id that nothing answers to."""

    kind = "not-found"
    http_status = 404


class NoInstance(NotFound):
    """An instance that is not on this host (any more): another one may have it."""

    kind = "no-instance"


class NoImage(NotFound):
    """An image that is not in the store: it may be somewhere else."""

    kind = "no-image"


class Conflict(BulkheadError):
    """The request clashes with what is there: a name or a port taken, an instance in another state."""

    kind = "conflict"
    http_status = 409


class Contended(Conflict):
    """Somebody else changed at the same time what a transaction has read; nothing was changed by it. Try again."""

    kind = "contended"


class Changed(BulkheadError):
    """What an edit is about is not what its sender has seen."""

    kind = "changed"
    http_status = 412


class Refused(BulkheadError):
    """The input is wrong or this host cannot enforce it. Carries all problems at once; nothing was changed."""

    kind = "refused"
    http_status = 422

    def __init__(self, problems: Iterable[Problem] | str, *, hint: str = "") -> None:
        found = (Problem(problems, hint),) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(problem.what for problem in found), hint=found[0].hint if found else hint)
        self._problems = found

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything that is wrong with the input."""
        return self._problems


class NoRoom(Refused):
    """The host has not enough left of what was asked for. The input is fine: with more room it would be carried out."""

    kind = "no-room"
    http_status = 409


class HostRefused(Refused):
    """The other host alone stands in the way of a move: a third one may take it."""

    kind = "host-refused"


class NotMoved(BulkheadError):
    """An instance could not be put behind another wall; what became of it is in the words."""

    kind = "not-moved"
    http_status = 409


class Unavailable(BulkheadError):
    """A helper program, the daemon or an agent does not answer."""

    kind = "unavailable"
    http_status = 503


class Undecided(Unavailable):
    """The store could not be asked in time whether a change was made: it was made whole, or not, or will be yet."""

    kind = "undecided"


class HostError(BulkheadError):
    """A system call or a program on the host failed."""

    kind = "host"


class ImageError(BulkheadError):
    """An image, an archive or a layer is damaged or hostile."""

    kind = "image"
    http_status = 422


class BuildFailed(BulkheadError):
    """A step of a build failed: a command ended with another code than 0, or could not be run."""

    kind = "build-failed"
    http_status = 422


class AgentError(BulkheadError):
    """The agent could not carry out an operation."""

    kind = "agent"


class CommandNotFound(AgentError):
    """The workload's program is not in the image (exit code 127)."""

    kind = "command-not-found"
    http_status = 422
    exit_code = 127


class CommandNotExecutable(AgentError):
    """The workload's program is there but cannot be executed (exit code 126)."""

    kind = "command-not-executable"
    http_status = 422
    exit_code = 126


ERRORS: dict[str, type[BulkheadError]] = {
    error.kind: error
    for error in (
        BulkheadError,
        Unauthorized,
        Forbidden,
        TooMany,
        NotFound,
        NoInstance,
        NoImage,
        Conflict,
        Contended,
        Changed,
        Refused,
        HostRefused,
        NoRoom,
        Unavailable,
        Undecided,
        HostError,
        ImageError,
        BuildFailed,
        AgentError,
        CommandNotFound,
        CommandNotExecutable,
    )
}


def from_document(body: bytes, status: int) -> BulkheadError:
    """The error that a daemon's problem document (RFC 9457) tells of."""
    try:
        told = json.loads(body)
        kind = ERRORS.get(told["type"], BulkheadError)
        items = [Problem(item["what"], item.get("hint", "")) for item in told["problems"]]
        if issubclass(kind, Refused):
            return kind(items)
        return kind(told["detail"], hint=told.get("hint", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return BulkheadError(f"the daemon answered with status {status}: {body[:200].decode(errors='replace')}")
