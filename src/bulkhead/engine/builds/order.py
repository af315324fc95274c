"""What is to be built, and what a build tells on its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from bulkhead.model import Isolation, Model, PlanRequest

MOST_SECRET = 512 << 10
Text = Annotated[str, StringConstraints(max_length=1 << 17, pattern=r"^[^\x00]*$")]
Level = Literal[Isolation.CHROOT, Isolation.CONTAINER, Isolation.VM]


class BuildOrder(Model):
    """A build as asked for."""

    containerfile: str = Field(max_length=2 << 20, description="its text")
    names: tuple[Annotated[str, Field(max_length=256)], ...] = Field(default=(), max_length=32)
    arguments: dict[Annotated[str, Field(max_length=256)], Text] = Field(default={}, max_length=1000)
    proxies: dict[Annotated[str, Field(max_length=32)], Text] = Field(
        default={}, max_length=16, description="proxy variables that every RUN sees; no part of what a step is known by"
    )
    target: str = Field(default="", max_length=128, description="a stage; the last one where it is empty")
    platform: str = Field(default="", max_length=64, description="such as linux/amd64; this host's alone can be built")
    labels: dict[str, Text] = Field(default={}, max_length=1000)
    secrets: dict[Annotated[str, Field(max_length=256)], Annotated[str, Field(max_length=MOST_SECRET * 2)]] = Field(
        default={}, max_length=64, repr=False, description="base64, by id"
    )
    no_cache: bool = False
    pull: Literal["missing", "always", "never"] = Field(
        default="missing", description="always: images that `pulled` does not name count as missing"
    )
    pulled: dict[Annotated[str, Field(max_length=512)], Annotated[str, Field(max_length=512)]] = Field(
        default={}, max_length=1000, description="what the store calls images, by what the Containerfile calls them"
    )
    isolation: Level = Isolation.CONTAINER
    network: str | None = Field(default=None, max_length=64, description="of RUN steps; None: as instances have it")
    plan: PlanRequest = PlanRequest()
    epoch: int | None = Field(default=None, ge=0, le=1 << 40, description="SOURCE_DATE_EPOCH")
    keep_failed: bool = Field(default=False, description="make an image of the state before a RUN that fails")


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that a build tells."""

    kind: Literal["note", "missing", "begin", "output", "cached", "done", "failed"]
    step: int = 0
    """Which step it is about: numbers of the whole build, from 1."""
    stage: str = ""
    place: str = ""
    """"3/10": the step's place in its stage."""
    text: str = ""
    """The instruction, output, or what there is to say."""
    seconds: float = 0.0
    code: int = 0
    """Of a command that failed."""
    before: str = ""
    """The image of the state before it, where that was asked for."""
    run: Mapping[str, object] = field(default_factory=dict)
    """How the command was run: for a shell in its place."""


Tell = Callable[[Told], None]
Alive = Callable[[], bool]
