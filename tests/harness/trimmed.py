"""The trimmed kernel: its config and the kernel itself, made once, kept in $BULKHEAD_TEST_CACHE, found by later runs.

`python -m tests.harness.trimmed` builds what is missing, as `bulkhead image kernel --trim` does. That takes ten minutes
of two idle cores; so no test does it.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkhead.boot import trim
from bulkhead.config import Config
from bulkhead.engine import kernels
from bulkhead.events import Progress, Step, quiet
from bulkhead.host.workspace import workspace
from bulkhead.images import ImageStore
from tests.harness.abilities import require
from tests.harness.images import CACHE

NEEDS = ("root", "mmdebstrap", "apt-get")
MARK = "trimmed_kernel"
"""Of the tests that boot it, which `scripts/test kernel` runs alone."""
_DOWNLOADS = CACHE / "kernel-cache"


def trimmed_config() -> str:
    """The finished .config for the newest source. The first time its tools and the source are downloaded: minutes."""
    require(*NEEDS)
    build = trim.plan("debian", None)
    made = CACHE / f"trim-{_short(build)}.config"
    with _lock():
        if not made.exists():
            with workspace(_DOWNLOADS / "work") as (work, _):
                out = kernels.build_trimmed(_store(work), build, work, only_config=True, progress=quiet)
                _keep((out / "config").rename(work / "done"), made, "trim-*.config")
    return made.read_text()


def built() -> Path | None:
    """An OCI layout with kernel/trim:latest, for `bulkhead image import`; None where it was not built."""
    made = _layout(trim.plan("debian", None))
    return made if made.exists() else None


def trimmed_layout() -> Path:
    """The same. Ends the test where it was not built."""
    made = built()
    if made is None:
        pytest.fail("the trimmed kernel is not built: scripts/test kernel builds it", pytrace=False)
    return made


def build(progress: Progress = quiet) -> Path:
    """The layout of `trimmed_layout`, built where it is missing."""
    wanted = trim.plan("debian", None)
    made = _layout(wanted)
    with _lock():
        if not made.exists():
            draft = CACHE / "trim.new"
            shutil.rmtree(draft, ignore_errors=True)
            config = Config(cache_dir=_DOWNLOADS)
            kernels.trim(
                ImageStore(draft, _DOWNLOADS), config, "debian", version=wanted.version, name=None, progress=progress
            )
            _keep(draft, made, "trim-????????????")
    return made


def _layout(wanted: trim.Build) -> Path:
    return CACHE / f"trim-{_short(wanted)}"


def _short(wanted: trim.Build) -> str:
    return wanted.recipe.removeprefix("sha256:")[:12]


def _store(work: Path) -> ImageStore:
    return ImageStore(work / "images", _DOWNLOADS)


def _keep(draft: Path, made: Path, others: str) -> None:
    """Put what was made in its place, and remove what it replaces."""
    for old in CACHE.glob(others):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    shutil.move(draft, made)


@contextmanager
def _lock() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "trim.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(step: Step) -> None:
    print(step.label, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    print(build(_say))  # noqa: T201
