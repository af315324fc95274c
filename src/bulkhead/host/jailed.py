"""Programs that read what is hostile: run by bubblewrap where there is nothing but what they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

USER = 4_200_000_000
"""The uid and gid that such a program has: nobody else's, above all that instances are given."""
PACKAGE = "bubblewrap"
_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
"""What setpriv needs to give everything away."""


_NO_DEVICES = ("--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom")
_DEVICES = ("--dev", "/dev")
"""Those that have no state, and an empty /dev/shm: gpg, which skopeo starts, does not work with less."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a program may take. Sizes in bytes."""

    memory: int
    file: int
    """The largest file that it can write."""
    cpu_seconds: int


@dataclass(frozen=True, slots=True)
class Given:
    """A file of the host's that the program finds under another path. It must belong to USER."""

    path: Path
    write: bool = False


def command(
    argv: Sequence[str], *, given: Mapping[str, Given], bounds: Bounds, network: bool = False, files: int = 64
) -> list[str]:
    """The argv that runs the program `argv`, whose first word is an absolute path below /usr.

    It has no network unless that is asked for, at most so many `files` open, sees no other process and of the host's
    files /usr alone, read-only, and the files in `given` (by their paths inside); it has a uid of its own, no
    capability and no environment, and ends with its caller.
    """
    binds = [(("--bind" if file.write else "--ro-bind"), str(file.path), inside) for inside, file in given.items()]
    above = sorted({str(parent) for inside in given for parent in PurePosixPath(inside).parents} - {"/"})
    return [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *(() if network else ("--unshare-net",)),
        *("--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"),
        *(word for capability in _CAPABILITIES for word in ("--cap-add", capability)),
        *("--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"),
        *(_DEVICES if network else _NO_DEVICES),
        # By itself bubblewrap makes them so that root alone may look into them.
        *(word for directory in above for word in ("--perms", "0755", "--dir", directory)),
        *(word for bind in binds for word in bind),
        *("--remount-ro", "/", "--chdir", "/", "--"),
        *("/usr/bin/setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
        *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"),
        *("/usr/bin/prlimit", f"--as={bounds.memory}", f"--fsize={bounds.file}", f"--cpu={bounds.cpu_seconds}"),
        *("--core=0", f"--nofile={files}", "--nproc=256", "--"),
        *argv,
    ]
