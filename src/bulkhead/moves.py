"""The nouns of a change of the wall: what one is about, and how it went."""

from __future__ import annotations

from bulkhead.model import Instance, Isolation, Model, Spec


class Move(Model):
    """What a change of the wall is about. In the bundle while it is under way, so that a crash finds the way back."""

    before: Spec
    after: Spec
    ran: bool
    """Whether it runs again afterwards."""
    within: float
    """Seconds from its start behind the new wall to its first passed health check."""
    entered: bool = False
    """The workload may have run behind the new wall: what counts is the disk there."""


class Moved(Model):
    """How a change of the wall went. Times in seconds."""

    instance: Instance
    source: Isolation
    downtime: float = 0.0
    """From the request to stop it to its program's start behind the new wall; 0 where it did not run."""
    well: float = 0.0
    """From the request to stop it to the first passed health check, or to when it was clear that it runs."""
    copied: int = 0
    """Bytes of files that went to a fresh disk; 0 where the disk was handed over."""
    dropped: tuple[str, ...] = ()
    """What could not come along, in words."""
