"""What a contender can do. A contender has the abilities of the classes that it comes from, and no others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench import timing

SLEEP = ("sleep", "infinity")
IMAGE = "bench"


@dataclass(frozen=True, slots=True)
class Scene:
    """What one run of the bench has to itself."""

    name: str
    """Begins the name of every cgroup, link and table that a contender makes."""
    scratch: Path
    checkout: Path
    archive: Path
    """The root file system as a tar ..."""
    root: Path
    """... and unpacked."""
    bulkhead: Path
    """Our program."""
    floor: Path
    """The sketch that measures the floor; need not exist."""
    kernel: Path | None = None
    """An OCI layout with the kernel of virtual machines."""
    trimmed: Path | None = None
    """The same with the trimmed kernel."""
    stock: Path | None = None
    """A root file system as a tar, with a distribution's kernel and initramfs."""
    servers: Path | None = None
    """The same with nginx."""

    output: Path | None = None
    """Where the results go: what is found is kept there as soon as it is found."""

    def directory(self, name: str) -> Path:
        """A directory for one contender's things."""
        path = self.scratch / name
        path.mkdir(parents=True, exist_ok=True)
        return path


class Peer(ABC):
    """A contender. `setup` runs once per run of the bench, before anything is measured."""

    name: ClassVar[str]

    @abstractmethod
    def setup(self, scene: Scene, stack: ExitStack) -> str:
        """Get ready; what has to be undone goes on `stack`. Returns the version. Raises Unusable."""


class ImageBuilder(Peer):
    """Makes images by Containerfiles."""

    @abstractmethod
    def build(self, context: Path, *, image: str, cache: bool) -> float:
        """Milliseconds of a build of `context`'s Containerfile (also there as Dockerfile) as a whole process."""


class Starter(Peer):
    """Starts a root file system, runs one program in it, and removes what it made."""

    @abstractmethod
    def run_true(self, *, network: bool) -> float:
        """Milliseconds of start + `true` + remove."""


class CommandLine(Starter):
    """An engine with a daemon or a store, driven by its command line."""

    env: dict[str, str] | None = None
    prefix: tuple[str, ...] = ()
    """Program and options that begin every command."""
    run_options: tuple[str, ...] = ()
    pull_options: tuple[str, ...] = ("--tls-verify=false",)
    remove_options: tuple[str, ...] = ("rm", "-f")

    def command(self, *arguments: str) -> float:
        """Milliseconds of one command."""
        return timing.timed([*self.prefix, *arguments], env=self.env)

    def run_true(self, *, network: bool) -> float:
        """Milliseconds of `run --rm` as a whole process."""
        return self.command(
            "run", "--rm", *self.run_options, *([] if network else ["--network", "none"]), IMAGE, "true"
        )

    def exec_true(self, ref: str) -> float:
        """Milliseconds of `exec` as a whole process."""
        return self.command("exec", ref, "true")

    def start_detached(self, ref: str) -> float:
        """Milliseconds of `run -d` with a network as a whole process."""
        return self.command("run", "-d", "--name", ref, *self.run_options, IMAGE, *SLEEP)

    def remove(self, refs: Sequence[str]) -> None:
        """Remove running instances."""
        self.command(*self.remove_options, *refs)

    def pull(self, image: str) -> float:
        """Milliseconds of a pull from a registry that speaks HTTP."""
        return self.command("pull", "-q", *self.pull_options, image)

    @abstractmethod
    def import_tar(self, archive: Path, image: str) -> float:
        """Milliseconds of importing a root file system."""

    @abstractmethod
    def remove_image(self, image: str) -> None:
        """Remove an image and what it stored."""

    @abstractmethod
    def keepers(self) -> list[int]:
        """Processes of the engine's that exist once per running instance."""

    @abstractmethod
    def daemons(self) -> list[int]:
        """Processes of the engine's that exist once."""
