"""A corner of the host for one run: namespaces and directories of its own, all of it gone afterwards.

The outer process makes a scratch directory, starts the bench inside new mount, network and pid namespaces, and clears
up when that has ended for whatever reason: with the pid namespace every process of every engine has died.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
INSIDE = "BULKHEAD_BENCH_SCRATCH"
"""Set for the bench inside the namespaces: its scratch directory."""
PRIVATE = ("/var/lib/containers", "/var/lib/cni", "/var/lib/docker", "/var/lib/lxc", "/var/cache/lxc")
"""Where peers keep what their options cannot put elsewhere."""


def run_inside(arguments: Sequence[str], prepare: Callable[[Path], Sequence[str]]) -> int:
    """Run the bench again inside namespaces of its own; returns its exit code. Leaves nothing behind.

    `prepare(scratch)` does before what needs the host's network, and returns more arguments.
    """
    scratch = Path(tempfile.mkdtemp(prefix="bulkhead-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    command = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--net", "--pid"]
    command += ["--fork", "--kill-child", "--mount-proc", sys.executable, "-m", "bench", *arguments]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with ExitStack() as stack:
        stack.callback(clear_up, scratch)
        command += prepare(scratch)
        process = subprocess.Popen(command, env={**os.environ, INSIDE: str(scratch)})
        stack.callback(process.wait)
        stack.callback(process.kill)  # unshare(1) blocks TERM, and kills what is inside when it dies
        while True:
            try:
                code = process.wait()
            except KeyboardInterrupt:  # the terminal told everybody: let it end by itself
                continue
            return code if code >= 0 else 128 - code


def enter(scratch: Path) -> str:
    """Make the corner habitable, from its first process; returns the name prefix of all that is made on the host.

    Returns in a child: the first process stays behind to reap orphans, as an init does.
    """
    pid = os.fork()
    if pid:
        _reap(pid)
    for directory in ("/run", "/dev/shm"):
        _mount("-t", "tmpfs", "tmpfs", directory)
    for directory in PRIVATE:
        if Path(directory).is_dir():
            own = scratch / "host" / directory.strip("/").replace("/", "-")
            own.mkdir(parents=True)
            _mount("--bind", str(own), directory)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return name_of(scratch)


def hide_unified() -> bool:
    """Take the v2 tree of hybrid cgroups out of sight: crun refuses a host that has one. False: there was none."""
    unified = CGROUPS / "unified"
    return unified.is_dir() and subprocess.run(["umount", str(unified)], check=False).returncode == 0


def name_of(scratch: Path) -> str:
    """`bulkhead-bench-abc123` makes cgroups and links that begin with `bbabc123`."""
    return "bb" + "".join(letter for letter in scratch.name.rpartition("-")[2].lower() if letter.isalnum())


def clear_up(scratch: Path) -> None:
    """Remove the run's cgroups, loop devices and files, from outside of its namespaces."""
    name = name_of(scratch)
    for parent, directories, _ in os.walk(CGROUPS, topdown=False):
        for directory in directories:
            path = Path(parent, directory)
            if name in str(path.relative_to(CGROUPS)):
                _try_rmdir(path)
    for loop in Path("/sys/block").glob("loop*/loop/backing_file"):
        if str(scratch) in loop.read_text():
            print(f"bench: {loop.parts[3]} was left attached; detaching it", file=sys.stderr)
            subprocess.run(["losetup", "--detach", f"/dev/{loop.parts[3]}"], check=False)
    shutil.rmtree(scratch, ignore_errors=True)
    if scratch.exists():
        print(f"bench: {scratch} could not be removed", file=sys.stderr)


def _try_rmdir(path: Path) -> None:
    try:
        path.rmdir()
    except OSError as error:
        print(f"bench: {path} was left: {error.strerror}", file=sys.stderr)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _reap(child: int) -> None:
    """Wait for everybody; end with the child's exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(abs(os.waitstatus_to_exitcode(status)))
