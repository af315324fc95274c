"""What a system (`--init system`) gets on top of a container's or a guest's root: systemd's container interface.

https://systemd.io/CONTAINER_INTERFACE: /run a tmpfs with /run/host, `container` and `container_uuid` in the
environment, /sys and /proc/sys read-only, a terminal as /dev/console, cgroup v2 to manage.
"""

from __future__ import annotations

import uuid

from bulkhead.agent.operations import Attr, Code, Operation, mount, simple
from bulkhead.errors import Problem
from bulkhead.isolation.capabilities import SYSTEM, mask
from bulkhead.model import Spec

NOT_ISOLATED = (
    "as a system: its root mounts file systems, makes namespaces and manages cgroups of its own; more of the kernel's "
    "code can be reached than from other containers, and the masks of /proc are no wall to it",
    "terminals of other containers: its root can mount a second /dev/pts, and take as many as the kernel has but for "
    "those that the host keeps (kernel.pty.reserve)",
)
BOUNDING = mask(SYSTEM)
RUN = "/run"
MANAGER = "bulkhead"
NETWORK_UNITS = (
    "NetworkManager.service",
    "networking.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
)
"""Masked at each start: interfaces, addresses and routes are the host's work, and these would fail at it."""
MASKS = "/run/systemd/system"


def is_system(spec: Spec) -> bool:
    """Whether the first process is a system's init."""
    return spec.init == "system"


def run_directory(spec: Spec, owner: int) -> list[Operation]:
    """Stage: /run, before anything that a user wants mounted below it. `owner`: root's uid and gid on the host."""
    data = f"mode=0755,uid={owner},gid={owner},size={spec.plan.memory // 4}"
    texts = {"container-manager": MANAGER, "container-uuid": identity(spec)}
    return [
        mount("tmpfs", RUN, attrs=Attr.NOSUID | Attr.NODEV, data=data),
        simple(Code.MKDIRS, f"{RUN}/host", 0o755, 0, 0),
        *(simple(Code.FILE, f"{RUN}/host/{name}", 0o444, 0, 0, f"{text}\n") for name, text in texts.items()),
        simple(Code.MKDIRS, MASKS, 0o755, 0, 0),
        *(simple(Code.SYMLINK, "/dev/null", f"{MASKS}/{unit}") for unit in NETWORK_UNITS),
    ]


def environment(spec: Spec) -> Spec:
    """With what an init looks for, below what the user has set. The uuid becomes the machine's id where it has none."""
    return spec.model_copy(update={"env": (f"container={MANAGER}", f"container_uuid={identity(spec)}", *spec.env)})


def identity(spec: Spec) -> str:
    """The instance's id as a UUID."""
    return str(uuid.UUID(spec.id))


def problems(spec: Spec) -> list[Problem]:
    """What cannot be, whatever the level."""
    if not is_system(spec):
        return []
    found = []
    if spec.user.partition(":")[0] not in ("", "0", "root"):
        found.append(Problem(f"a system's init runs as root, not as {spec.user}", "leave out --user"))
    run = [item.target for item in spec.mounts if item.target.rstrip("/") == RUN]
    found += [Problem(f"nothing can be mounted at {target}: a system has its own", "choose another") for target in run]
    return found
