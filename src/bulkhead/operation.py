"""The noun of what takes longer than a request may: an operation, with its progress and its end."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, JsonValue

from bulkhead.model import Model


class OperationState(StrEnum):
    """Where an operation is. Only the first one changes again."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """The daemon ended before it did."""


class ProgressReport(Model):
    """How far a step is: `done` of `total` in `unit` ("bytes", "files", ""); total 0 when that is not known."""

    label: str
    done: int = 0
    total: int = 0
    unit: str = ""


class Operation(Model):
    """A request that lasts. Times in seconds since the epoch."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    kind: str
    """What was asked for: the operationId of the route, such as pull_image."""
    target: str = ""
    """What it is about: an image's name, an instance."""
    tenant: str = "default"
    state: OperationState = OperationState.RUNNING
    created: float
    ended: float | None = None
    cancellable: bool = True
    progress: ProgressReport | None = None
    """The last that was told; None where nothing has been yet."""
    result: JsonValue = None
    """What the request would have been answered with; None where there is nothing, or it would be too large to keep."""
    problem: dict[str, JsonValue] | None = None
    """Of one that has failed: the problem document (RFC 9457)."""

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.state is OperationState.RUNNING
