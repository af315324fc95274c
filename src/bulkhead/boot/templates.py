"""Templates: the memory and the device state of guests that have booted to their ready point.

On disk a template is a directory of three files: `key.json`, `state` (QEMU's device state) and `ram` (sparse). For
starts, RAM is a memory file that nobody can write any more: a QEMU maps it copy-on-write, and what has broken out
of one guest cannot reach the next by it (docs/design/0005). Nothing of a tenant is ever in a template.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bulkhead.errors import HostError
from bulkhead.host import sparse
from bulkhead.host.workspace import abandoned, workspace

KEY, STATE, RAM = "key.json", "state", "ram"
WORK = "work"
"""Below the templates' directory: those that are being made."""


@dataclass(frozen=True, slots=True)
class TemplateKey:
    """What must be the same for a guest to go on where the template stopped."""

    kernel: str
    """Digest of the kernel's ELF."""
    initrd: str
    vmm: str
    """QEMU's version, as the jail's root has it."""
    processor: str
    """Accelerator and the host's processor."""
    cpu_model: str
    """One of QEMU's; "": all that there is."""
    memory: int
    """Bytes."""
    vcpus: int
    most_memory: int
    """Bytes that it can have in all while it runs."""
    most_vcpus: int
    disks: int
    """Slots for disks."""
    inner: int
    """Instances that it can hold."""
    network: bool

    @property
    def name(self) -> str:
        """Of its directory."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Template:
    """One that can be started from. `ram` is a descriptor of the caller's own."""

    key: TemplateKey
    ram: int
    state: Path


@dataclass(frozen=True, slots=True)
class Stored:
    """One on disk. `size` in bytes as stored, `used` in seconds since the epoch."""

    key: TemplateKey
    path: Path
    size: int
    used: float


class Templates:
    """The templates of one daemon below `directory`, at most `max_bytes` of them. Thread-safe."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._memories: dict[str, int] = {}
        self._lock = threading.Lock()

    def find(self, key: TemplateKey) -> Template | None:
        """The template to start from, None where there is none. The caller closes its `ram`.

        One that cannot be read is removed, so that it is made again.
        """
        path = self._directory / key.name
        with self._lock:
            if _read_key(path) != key:
                return None
            try:
                memory = self._memories.get(key.name)
                if memory is None:
                    memory = self._memories[key.name] = sparse.sealed(path / RAM, size=key.memory)
                os.utime(path / KEY)
                return Template(key, os.dup(memory), path / STATE)
            except (OSError, HostError):
                self._remove(path)
                return None

    @contextmanager
    def making(self, key: TemplateKey) -> Iterator[Path]:
        """A directory in which the caller makes `ram` and `state`; with the block's good end it is a template.

        The oldest of the others make room for it. Raises HostError where it alone is larger than the bound.
        """
        with workspace(self._directory / WORK) as (work, _):
            yield work
            sparse.punch(work / RAM)
            (work / KEY).write_text(json.dumps(asdict(key)))
            size = _size(work)
            if size > self._max_bytes:
                raise HostError(
                    f"a template of {size} bytes is larger than what templates may take ({self._max_bytes})",
                    hint="raise template_space in the configuration, or run with --no-template",
                )
            with self._lock:
                self._make_room(size)
                self._remove(self._directory / key.name)
                (self._directory / key.name).mkdir(mode=0o700)
                # The key comes last: without it there is no template.
                for name in (RAM, STATE, KEY):
                    (work / name).rename(self._directory / key.name / name)

    def stored(self) -> list[Stored]:
        """All of them, the one that was used last first."""
        with self._lock:
            return self._found()

    def retain(self, wanted: Callable[[TemplateKey], bool]) -> list[str]:
        """Remove those that no start can use any more, and what a crash left; says what it was."""
        unfinished = abandoned(self._directory / WORK)
        with self._lock:
            stored = self._found()
            stale = [item.path for item in stored if not wanted(item.key)]
            known = {item.path for item in stored}
            broken = [path for path in self._directory.glob("*") if path not in known and path.name != WORK]
            for path in (*stale, *broken):
                self._remove(path)
            return [f"template {path.name[:12]}" for path in (*stale, *broken, *unfinished)]

    def close(self) -> None:
        """Give the memory back; guests that run keep theirs."""
        with self._lock:
            for memory in self._memories.values():
                os.close(memory)
            self._memories.clear()

    def _found(self) -> list[Stored]:
        found = []
        for path in self._directory.glob("*"):
            key = _read_key(path)
            if key is not None and key.name == path.name:
                found.append(Stored(key, path, _size(path), (path / KEY).stat().st_mtime))
        return sorted(found, key=lambda item: -item.used)

    def _make_room(self, size: int) -> None:
        stored = self._found()
        while stored and sum(item.size for item in stored) + size > self._max_bytes:
            self._remove(stored.pop().path)

    def _remove(self, path: Path) -> None:
        memory = self._memories.pop(path.name, None)
        if memory is not None:
            os.close(memory)
        # First what makes it a template: half of one is never found.
        (path / KEY).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)


class Makers:
    """Makes templates in the background, one at a time, each at most once at the same time."""

    def __init__(
        self, make: Callable[[TemplateKey], None], *, failed: Callable[[TemplateKey, Exception], None]
    ) -> None:
        self._make = make
        self._failed = failed
        self._waiting: dict[str, TemplateKey] = {}
        self._refused: dict[str, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def want(self, key: TemplateKey) -> None:
        """Make the template soon. One that has failed is tried again after some minutes only."""
        with self._lock:
            last = self._refused.get(key.name)
            if self._closed or key.name in self._waiting or (last and time.monotonic() - last < _RETRY_SECONDS):
                return
            self._waiting[key.name] = key
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="templates", daemon=True)
                self._thread.start()

    def settle(self) -> None:
        """Wait until nothing is wanted any more."""
        with self._lock:
            thread = self._thread
        if thread:
            thread.join()

    def close(self) -> None:
        """Take no more, and wait for the one that is being made."""
        with self._lock:
            self._closed = True
        self.settle()

    def _work(self) -> None:
        while True:
            with self._lock:
                key = next(iter(self._waiting.values()), None)
                if key is None or self._closed:
                    self._thread = None
                    return
            with ExitStack() as always:
                always.callback(self._done, key)
                try:
                    self._make(key)
                except Exception as error:
                    self._refused[key.name] = time.monotonic()
                    self._failed(key, error)

    def _done(self, key: TemplateKey) -> None:
        with self._lock:
            self._waiting.pop(key.name, None)


_RETRY_SECONDS = 300.0


def _read_key(path: Path) -> TemplateKey | None:
    try:
        return TemplateKey(**json.loads((path / KEY).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _size(directory: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in directory.iterdir())
