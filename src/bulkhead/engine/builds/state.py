"""What a stage has come to: layers, configuration, arguments, history. Pure but for what `configuring` is told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bulkhead.images import ImageConfig
from bulkhead.images.config import DEFAULT_PATH
from bulkhead.images.documents import time_text
from bulkhead.images.steps import Made

SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True)
class StageState:
    """Between two steps."""

    layers: tuple[Made, ...] = ()
    """The lowest first."""
    config: ImageConfig = field(default_factory=ImageConfig)
    arguments: Mapping[str, str] = field(default_factory=dict)
    """Of ARG instructions so far."""
    history: tuple[Mapping[str, Any], ...] = ()
    onbuild: tuple[str, ...] = ()
    architecture: str = ""
    image_digest: str = ""
    """Of the image that it began with."""
    created: float = 0.0
    own_command: bool = False
    """Whether CMD is this Containerfile's, which an ENTRYPOINT then leaves alone."""

    @property
    def environment(self) -> dict[str, str]:
        """The image's variables."""
        return dict(entry.partition("=")[::2] for entry in self.config.env)

    @property
    def variables(self) -> dict[str, str]:
        """What `$name` means now: ENV wins over ARG."""
        return {**self.arguments, **self.environment}

    @property
    def workdir(self) -> str:
        """Absolute."""
        return self.config.workdir or "/"

    @property
    def shell(self) -> tuple[str, ...]:
        """What runs the shell form."""
        return self.config.shell or SHELL

    def command_environment(self, *others: Mapping[str, str]) -> tuple[str, ...]:
        """The environment of a RUN."""
        path = dict([DEFAULT_PATH.split("=", 1)])
        merged = {**path, **{key: value for other in others for key, value in other.items()}, **self.variables}
        return tuple(f"{name}={value}" for name, value in merged.items())

    def with_layer(self, made: Made, said: str) -> StageState:
        """After a step that has made a layer."""
        entry = {"created": time_text(made.created), "created_by": said}
        return replace(
            self, layers=(*self.layers, made), history=(*self.history, entry), created=max(self.created, made.created)
        )

    def with_config(self, config: ImageConfig, said: str, **changes: Any) -> StageState:
        """After a step that has changed the configuration alone."""
        entry = {"created": time_text(self.created), "created_by": said, "empty_layer": True}
        return replace(self, config=config, history=(*self.history, entry), **changes)

    def step(self, kind: str, *said: object) -> str:
        """What a step on top of this is known by: the layers below it and all that decides what comes of it."""
        below = [made.key for made in self.layers]
        return "sha256:" + hashlib.sha256(repr((kind, below, said)).encode("utf-8", "surrogateescape")).hexdigest()


def merged(env: Sequence[str], pairs: Mapping[str, str]) -> tuple[str, ...]:
    """An environment with variables set; the order of first appearance is kept."""
    found = {**dict(entry.partition("=")[::2] for entry in env), **pairs}
    return tuple(f"{name}={value}" for name, value in found.items())
