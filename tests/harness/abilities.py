"""What the machine that runs the tests can do, found by trying. Missing: a failure in CI, a told skip elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from bulkhead.host import mounts, syscalls
from bulkhead.host.syscalls import CallError

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


def _root() -> str:
    return "" if os.geteuid() == 0 else "the tests must run as root"


def _kernel_fs(kind: str) -> Callable[[], str]:
    def look() -> str:
        known = Path("/proc/filesystems").read_text().split()
        if kind in known:
            return ""
        subprocess.run(["modprobe", kind], capture_output=True, check=False)
        return "" if kind in Path("/proc/filesystems").read_text().split() else f"the kernel has no {kind}"

    return look


def _cgroups() -> str:
    trees = [entry.target for entry in mounts.table() if entry.kind in ("cgroup", "cgroup2")]
    if not trees:
        return "no cgroup hierarchy is mounted"
    closed = [str(tree) for tree in trees if not os.access(tree, os.W_OK)]
    return f"cgroup hierarchies cannot be written to: {', '.join(closed)}" if closed else ""


def _loop() -> str:
    return "" if Path("/dev/loop-control").exists() else "there is no /dev/loop-control"


def _mount_namespace() -> str:
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
        except CallError:
            os._exit(1)
        os._exit(0)
    return "" if os.waitpid(pid, 0)[1] == 0 else "mount namespaces cannot be made"


def _program(name: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(name) else f"the program {name} is missing: scripts/setup --tests installs it"


_PROBES: dict[str, Callable[[], str]] = {
    "root": _root,
    "mount namespaces": _mount_namespace,
    "cgroups": _cgroups,
    "loop devices": _loop,
    "erofs": _kernel_fs("erofs"),
    "overlay": _kernel_fs("overlay"),
    "ksm": lambda: "" if os.access("/sys/kernel/mm/ksm/run", os.W_OK) else "the kernel does not merge pages (KSM)",
}


@cache
def missing(ability: str) -> str:
    """Why the ability is not there; "" when it is. What is not in the table is the name of a program."""
    return _PROBES.get(ability, _program(ability))()


def require(*abilities: str) -> None:
    """End the test unless the machine has all of them: failed in CI, skipped with the reasons elsewhere."""
    reasons = [reason for reason in map(missing, abilities) if reason]
    if not reasons:
        return
    if IN_CI:
        pytest.fail(f"this machine cannot run the test: {'; '.join(reasons)}", pytrace=False)
    pytest.skip("; ".join(reasons))
