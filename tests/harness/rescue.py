"""The helper machine's image for broken disks: made once by the product's own code, kept in the cache."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

from bulkhead.boot import rescue
from bulkhead.config import Config
from bulkhead.engine import rescuing
from bulkhead.events import quiet
from bulkhead.images import ImageStore
from tests.harness.abilities import require
from tests.harness.images import CACHE
from tests.harness.kernels import NEEDS, kernel_layout

RELEASE = "org.bulkhead.kernel.release"


def rescue_layout() -> Path:
    """An OCI layout with kernel/debian:latest and rescue/debian:bookworm, for `bulkhead image import`."""
    require(*NEEDS, "mmdebstrap")
    kernel = kernel_layout()
    with (CACHE / "rescue.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store = ImageStore(kernel, CACHE / "kernel-cache")
        release = store.resolve("kernel/debian:latest").annotations[RELEASE]
        made = CACHE / f"rescue-{kernel.name}-{rescue.recipe(release)[:12]}"
        if not made.exists():
            draft = CACHE / "rescue.new"
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(kernel, draft)
            rescuing.prepare(ImageStore(draft, CACHE / "kernel-cache"), Config(cache_dir=CACHE / "kernel-cache"), quiet)
            for old in CACHE.glob("rescue-*"):
                shutil.rmtree(old)
            draft.rename(made)
    return made
