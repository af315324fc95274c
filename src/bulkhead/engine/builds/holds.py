"""What builds that are under way need of the image store. In memory: a build ends with its daemon."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Holds:
    """Images and layers that no removal may take. Thread-safe."""

    def __init__(self) -> None:
        self.guard = threading.RLock()
        """Held while something is removed, and from a look at the store to the hold on what was found there."""
        self._images: Counter[str] = Counter()
        self._layers: Counter[str] = Counter()

    def images(self) -> set[str]:
        """Digests of manifests."""
        with self.guard:
            return set(self._images)

    def layers(self) -> set[str]:
        """Keys of layers."""
        with self.guard:
            return set(self._layers)

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        """Nothing yet; all that is held is let go at the end."""
        held = Hold(self)
        try:
            yield held
        finally:
            with self.guard:
                self._images -= held.images
                self._layers -= held.layers

    def add(self, *, image: str = "", layer: str = "") -> None:
        """Count one more user."""
        with self.guard:
            if image:
                self._images[image] += 1
            if layer:
                self._layers[layer] += 1


class Hold:
    """What one build holds."""

    def __init__(self, holds: Holds) -> None:
        self._holds = holds
        self.images: Counter[str] = Counter()
        self.layers: Counter[str] = Counter()

    def image(self, find: Callable[[], T], digest: Callable[[T], str]) -> T:
        """Look an image up and hold it, with nothing removed in between."""
        with self._holds.guard:
            found = find()
            self.images[digest(found)] += 1
            self._holds.add(image=digest(found))
            return found

    def layer(self, key: str) -> None:
        """Hold a layer, before it is in the store or where nothing can remove it."""
        with self._holds.guard:
            self.layers[key] += 1
            self._holds.add(layer=key)

    def step(self, find: Callable[[], T | None], key: Callable[[T], str]) -> T | None:
        """Look up what a step has made and hold it."""
        with self._holds.guard:
            found = find()
            if found is not None:
                self.layer(key(found))
            return found
