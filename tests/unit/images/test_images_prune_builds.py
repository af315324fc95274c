"""`prune` and `rm` in any order with builds, images and instances: nothing that is needed ever goes, all else does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import booleans, integers, lists, sampled_from

from bulkhead import ustar
from bulkhead.errors import Conflict, NotFound
from bulkhead.images import Bounds, ImageConfig, ImageStore
from bulkhead.images.steps import Made
from bulkhead.images.workshop import Product

NAMES = ("one:1", "two:1", "three:1")
STEPS = 6


def step(number: int) -> str:
    """What a step is known by."""
    return "sha256:" + sha256(f"step {number}".encode()).hexdigest()


def layer(number: int) -> Iterator[bytes]:
    """What it makes."""
    data = f"layer {number}".encode()
    yield ustar.head(ustar.Member(f"file-{number}".encode(), ustar.FILE, size=len(data)))
    yield data + ustar.padding(len(data))
    yield ustar.END


class Prunes(RuleBasedStateMachine):
    """A store beside a plain account of what is needed."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="bulkhead-prune-"))
        self.store = ImageStore(self.directory / "images", self.directory / "cache", bounds=Bounds(keep_free=0))
        self.names: dict[str, str] = {}
        self.images: dict[str, list[Made]] = {}
        self.instances: list[str] = []
        self.held: dict[str, Made] = {}
        self.serial = 0

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    @initialize()
    def a_base(self) -> None:
        self.make_image([0], "one:1")

    def _step(self, number: int) -> Made:
        found = self.store.workshop.find(step(number))
        if found is None:
            with self.store.workshop.make(step(number), layer(number), (), 0.0) as found:
                pass
        return found

    @rule(numbers=lists(integers(0, STEPS), min_size=1, max_size=4), name=sampled_from((*NAMES, "")))
    def make_image(self, numbers: list[int], name: str) -> None:
        """A build from its first step to its end."""
        made = [self._step(number) for number in numbers]
        self.serial += 1
        product = Product(made, ImageConfig(env=(f"N={self.serial}",)), (), (), "amd64", 0.0)
        digest = self.store.workshop.finish(product, [name] if name else [])
        self.images[digest] = made
        if name:
            self.names[name] = digest

    @rule(number=integers(0, STEPS))
    def a_build_gets_on(self, number: int) -> None:
        """A build has a layer and is not done yet."""
        made = self._step(number)
        self.held[made.key] = made

    @rule()
    def a_build_ends(self) -> None:
        if self.held:
            del self.held[sorted(self.held)[0]]

    @rule(name=sampled_from(NAMES))
    def start(self, name: str) -> None:
        if name in self.names:
            self.instances.append(self.names[name])

    @rule()
    def stop(self) -> None:
        if self.instances:
            self.instances.pop()

    @rule(name=sampled_from(NAMES), other=sampled_from(NAMES))
    def tag(self, name: str, other: str) -> None:
        """Another name for an image; whatever had that name before stays, without it."""
        if name in self.names:
            self.store.tag(name, [other])
            self.names[other] = self.names[name]

    @rule(name=sampled_from(NAMES))
    def remove(self, name: str) -> None:
        users = {digest: ["user"] for digest in self.instances}
        with suppress(NotFound, Conflict):
            self.store.remove(name, in_use=users)
            digest = self.names.pop(name)
            if digest not in self.names.values():
                del self.images[digest]

    @rule(everything=booleans())
    def prune(self, everything: bool) -> None:
        kept = set(self.instances) | (set() if everything else set(self.names.values()))
        self.store.prune(in_use=set(self.instances), held=set(self.held), all_images=everything)
        self.images = {digest: made for digest, made in self.images.items() if digest in kept}
        self.names = {name: digest for name, digest in self.names.items() if digest in self.images}
        needed = {made.digest for layers in self.images.values() for made in layers}
        needed |= {made.digest for made in self.held.values()}
        blobs = {f"sha256:{path.name}" for path in (self.directory / "images/blobs/sha256").iterdir()}
        documents = {digest for digest in blobs if digest in self.images}
        assert documents == set(self.images)
        others = blobs - documents - needed
        assert len(others) == len(self.images), "one configuration for each image and nothing else"

    @invariant()
    def what_is_needed_is_there(self) -> None:
        assert {image.digest for image in self.store.list()} == set(self.images)
        for digest, layers in self.images.items():
            image = self.store.resolve(digest)
            assert [each.diff_id for each in image.layers] == [made.key for made in layers]
            assert all(made.is_whole(self.store.workshop.layout) for made in layers)
        for made in self.held.values():
            assert made.is_whole(self.store.workshop.layout)
        for name, digest in self.names.items():
            assert self.store.resolve(name).digest == digest


TestPrunes = Prunes.TestCase
TestPrunes.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
