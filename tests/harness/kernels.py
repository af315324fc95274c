"""A kernel for virtual machines: made once from Debian's package, kept in $BULKHEAD_TEST_CACHE, found by later runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from bulkhead.boot import kernels
from bulkhead.config import Config
from bulkhead.engine import kernels as engine_kernels
from bulkhead.events import quiet
from bulkhead.images import ImageStore
from tests.harness.abilities import require
from tests.harness.images import CACHE

NEEDS = ("root", "qemu-system-x86_64", "depmod", "dpkg-deb", "apt-get")


def kernel_layout() -> Path:
    """An OCI layout with kernel/debian:latest, for `bulkhead image import`.

    With BULKHEAD_TEST_KERNEL=trim the trimmed kernel's instead, for whatever asks for no kernel by name.
    """
    if os.environ.get("BULKHEAD_TEST_KERNEL") == "trim":
        from tests.harness.trimmed import trimmed_layout

        return trimmed_layout()
    require(*NEEDS)
    CACHE.mkdir(parents=True, exist_ok=True)
    made = CACHE / f"kernel-{_recipe()}"
    with (CACHE / "kernel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            draft = CACHE / "kernel.new"
            shutil.rmtree(draft, ignore_errors=True)
            store = ImageStore(draft, CACHE / "kernel-cache")
            config = Config(cache_dir=CACHE / "kernel-cache")
            engine_kernels.make(store, config, "debian", version=None, name=engine_kernels.DEFAULT, progress=quiet)
            for old in CACHE.glob("kernel-????????????"):
                shutil.rmtree(old)
            draft.rename(made)
    return made


def _recipe() -> str:
    """Of the code that makes it: when that changes, it is made again."""
    files = sorted(Path(kernels.__file__).parent.glob("*.py"))
    wanted = ("cpio", "debian", "kernels", "modules", "unpacking", "vmlinux")
    code = b"".join(path.read_bytes() for path in files if path.stem in wanted)
    return hashlib.sha256(code).hexdigest()[:12]
