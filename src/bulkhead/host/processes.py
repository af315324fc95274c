"""Programs of the host. Nothing else in Bulkhead starts one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bulkhead.errors import HostError, Unavailable

SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(program: str) -> Path | None:
    """Where a program is, looked up in the system's directories alone."""
    found = shutil.which(program, path=SAFE_PATH)
    return Path(found) if found else None


def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes | None = None,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    package: str = "",
    pass_fds: Sequence[int] = (),
) -> bytes:
    """Run a program to its end and return what it wrote to stdout.

    Raises Unavailable when it is not installed (`package` names what brings it), HostError with the last lines of
    its stderr when it fails or takes longer than `timeout` seconds.
    """
    program = find(str(argv[0]))
    if program is None:
        raise Unavailable(f"{argv[0]} is not installed", hint=f"apt install {package or argv[0]}")
    try:
        done = subprocess.run(
            [str(program), *map(str, argv[1:])],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            env={"PATH": SAFE_PATH, "LC_ALL": "C.UTF-8", **(os.environ if env is None else env)},
            pass_fds=pass_fds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{argv[0]} took longer than {timeout:g} s") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-5:]
        raise HostError(f"{argv[0]} failed with {done.returncode}: {' / '.join(said) or 'no message'}")
    return done.stdout


def start_time(pid: int) -> int | None:
    """Start of a process in clock ticks after boot (field 22 of proc(5) stat); None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] == b"Z" else int(fields[19])
