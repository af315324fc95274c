"""Where in a fleet an instance may run, as whoever makes it says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from bulkhead.modelling import Model

_KEY = r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?"
CONSTRAINT_PATTERN = rf"^(!?{_KEY}|{_KEY}!?==?[^=!\s]{{0,128}})$"
TERM_PATTERN = rf"^~?{_KEY}(=[^\s]{{0,128}})?$"
Constraint = Annotated[str, StringConstraints(pattern=CONSTRAINT_PATTERN)]
"""Of a host's labels: KEY, !KEY, KEY=VALUE, KEY=VALUE|VALUE or KEY!=VALUE."""
Term = Annotated[str, StringConstraints(pattern=TERM_PATTERN)]
"""Instances of the same tenant: NAME or LABEL=VALUE; with ~ before it a wish, no condition."""


class Where(Model):
    """What has to hold of the host."""

    constraints: tuple[Constraint, ...] = Field(default=(), max_length=16, description="of a host's labels: zone=b")
    affinity: tuple[Term, ...] = Field(default=(), max_length=16, description="near to these: NAME, LABEL=VALUE")
    anti_affinity: tuple[Term, ...] = Field(default=(), max_length=16, description="away from these")

    @property
    def given(self) -> tuple[str, ...]:
        """The options with which it was said."""
        named = (("--constraint", self.constraints), ("--affinity", self.affinity))
        return tuple(flag for flag, each in (*named, ("--anti-affinity", self.anti_affinity)) if each)


ANYWHERE = Where()
