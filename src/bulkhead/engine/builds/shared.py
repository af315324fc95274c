"""What the stages of one build have in common."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bulkhead.containerfile.stages import Plan as Containerfile
from bulkhead.engine.builds.holds import Hold
from bulkhead.engine.builds.order import Alive, BuildOrder, Tell
from bulkhead.engine.builds.running import Runner
from bulkhead.engine.builds.state import StageState
from bulkhead.engine.context import Context
from bulkhead.images.archive import open_file
from bulkhead.images.steps import Made
from bulkhead.images.view import View
from bulkhead.images.workshop import Base, Workshop
from bulkhead.model import Plan


class Views:
    """Roots of layers, opened once each. Thread-safe."""

    def __init__(self, workshop: Workshop, always: ExitStack) -> None:
        self._workshop = workshop
        self._always = always
        self._guard = threading.Lock()
        self._files: dict[str, int] = {}
        self._views: dict[tuple[str, ...], View] = {}

    def of(self, layers: Sequence[Made]) -> View:
        """The root of these layers, the lowest first."""
        keys = tuple(made.key for made in layers)
        with self._guard:
            known = self._views.get(keys)
            if known is None:
                known = self._views[keys] = View([self._file(key) for key in reversed(keys)])
            return known

    def _file(self, key: str) -> int:
        if key not in self._files:
            self._files[key] = open_file(self._workshop.layout.erofs_path(key), self._always)
        return self._files[key]


@dataclass(slots=True)
class Build:
    """One build under way."""

    context: Context
    order: BuildOrder
    containerfile: Containerfile
    plan: Plan
    network: str
    epoch: int | None
    now: float
    """When it began: the time of what it makes where there is no epoch."""
    hold: Hold
    runner: Runner
    bases: Mapping[str, Base]
    """The images that stages begin with, by name."""
    views: Views
    files: View | None
    """The context; None where no step needs one."""
    directory: Path | None
    """A directory of its own for what is mounted into steps."""
    tell: Tell
    alive: Alive
    results: dict[int, StageState] = field(default_factory=dict)
    """Stages that are done."""
    _count: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def workshop(self) -> Workshop:
        """The image store's part for builds."""
        return self.context.images.workshop

    @property
    def time(self) -> float:
        """Of what is made, in seconds since the epoch."""
        return self.now if self.epoch is None else float(self.epoch)

    @property
    def arguments(self) -> Mapping[str, str]:
        """What --build-arg gave."""
        return self.order.arguments

    def number(self) -> int:
        """The next step's."""
        with self._guard:
            self._count += 1
            return self._count

    def image(self, name: str) -> Base:
        """An image that steps take files of, held from now on. Raises NotFound, Refused."""
        return self.bases.get(name) or held_image(self.context, self.hold, name)


def held_image(context: Context, hold: Hold, name: str) -> Base:
    """An image of the store, held from now on. Raises NotFound, Refused, ImageError."""
    found = hold.image(lambda: context.images.resolve(name), lambda image: image.digest)
    return context.images.workshop.base(found)
