"""Where in a fleet an instance may run, and what becomes of it when its host is lost, as whoever makes it says."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from bulkhead.modelling import Model

_KEY = r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?"
CONSTRAINT_PATTERN = rf"^(!?{_KEY}|{_KEY}!?==?[^=!\s]{{0,128}})$"
TERM_PATTERN = rf"^~?{_KEY}(=[^\s]{{0,128}})?$"
Constraint = Annotated[str, StringConstraints(pattern=CONSTRAINT_PATTERN)]
"""Of a host's labels: KEY, !KEY, KEY=VALUE, KEY=VALUE|VALUE or KEY!=VALUE."""
Term = Annotated[str, StringConstraints(pattern=TERM_PATTERN)]
"""Instances of the same tenant: NAME or LABEL=VALUE; with ~ before it a wish, no condition."""

OnHostLoss = Literal["stay", "restart", "recreate"]
"""stay: it waits for its host, and runs on where that is only cut off; restart: it is ended there in time, and started
elsewhere with the last copy of its disk; recreate: the same, made anew from its image, with an empty disk."""
REPLICA_SECONDS = 60.0
MOST_PRIORITY = 1000


class Where(Model):
    """What has to hold of the host."""

    constraints: tuple[Constraint, ...] = Field(default=(), max_length=16, description="of a host's labels: zone=b")
    affinity: tuple[Term, ...] = Field(default=(), max_length=16, description="near to these: NAME, LABEL=VALUE")
    anti_affinity: tuple[Term, ...] = Field(default=(), max_length=16, description="away from these")
    on_host_loss: OnHostLoss = Field(default="stay", description="what becomes of it when its host is lost")
    priority: int = Field(default=0, ge=0, le=MOST_PRIORITY, description="higher is started elsewhere first")

    replicas: Literal[0, 1] = Field(default=0, description="copies of its disk on other hosts")
    replica_interval: float = Field(
        default=REPLICA_SECONDS, ge=5, le=86400, description="seconds after which its copy is made anew"
    )

    @model_validator(mode="after")
    def _has_what_it_restarts_from(self) -> Self:
        if self.on_host_loss == "restart" and not self.replicas:
            raise ValueError("on_host_loss restart needs replicas 1; recreate makes it anew with an empty disk")
        if self.replicas and self.on_host_loss != "restart":
            raise ValueError(f"replicas are for on_host_loss restart, not {self.on_host_loss}")
        return self

    @property
    def given(self) -> tuple[str, ...]:
        """The options with which it was said."""
        named: tuple[tuple[str, object], ...] = (("--constraint", self.constraints), ("--affinity", self.affinity))
        named += (("--anti-affinity", self.anti_affinity), ("--priority", self.priority), ("--replicas", self.replicas))
        told = tuple(flag for flag, each in named if each)
        return told if self.on_host_loss == "stay" else (*told, "--on-host-loss")


ANYWHERE = Where()
