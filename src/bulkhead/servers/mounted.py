"""Which file systems of a server hold files of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PSEUDO = frozenset(
    {"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs"}
    | {"fusectl", "fuse.lxcfs", "fuse.gvfsd-fuse", "hugetlbfs", "mqueue", "nsfs", "overlay", "proc", "pstore", "ramfs"}
    | {"rpc_pipefs", "securityfs", "selinuxfs", "squashfs", "sysfs", "tmpfs", "tracefs"}
)
_REMOTE = re.compile(
    r"(nfs.*|cifs|smb.*|9p|afs|ceph|fuse\.(sshfs|glusterfs|s3fs|ceph.*|rclone)|glusterfs|lustre|ocfs2|gfs2)"
)
_ESCAPE = re.compile(r"\\([0-7]{3})")
MAX_MOUNTS = 4096


@dataclass(frozen=True, slots=True)
class Mounted:
    """What is copied and what is not."""

    starts: tuple[str, ...]
    """Relative to the root: "." and then "./srv" and its like."""
    remote: tuple[str, ...]
    """File systems of other hosts, in words: they are not this server's to copy."""


def read(mountinfo: str) -> Mounted:
    """From /proc/self/mountinfo, whose lines are "ID PARENT MAJ:MIN ROOT TARGET OPTIONS ... - TYPE SOURCE ..."."""
    starts, remote = ["."], []
    for line in mountinfo.splitlines()[:MAX_MOUNTS]:
        fields = line.split(" ")
        if "-" not in fields or fields.index("-") + 1 >= len(fields) or len(fields) < 6:
            continue
        target, kind = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), fields[4]), fields[fields.index("-") + 1]
        if not target.startswith("/") or target == "/" or ".." in target.split("/") or _inside_kernel(target):
            continue
        if _REMOTE.fullmatch(kind):
            remote.append(f"{target} ({kind})")
        elif kind not in _PSEUDO and f".{target}" not in starts:
            starts.append(f".{target}")
    return Mounted(tuple(starts), tuple(remote))


def _inside_kernel(target: str) -> bool:
    return target.split("/")[1] in ("proc", "sys", "dev", "run", "tmp", "boot")
