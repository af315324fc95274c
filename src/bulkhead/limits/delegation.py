"""A cgroup v2 subtree that a system manages itself, below the cgroup with the limits, which it does not own.

On a host with v1 controllers the v2 tree only groups processes: the limits are v1's, in which nothing can be made from
inside. What is handed over is what /sys/kernel/cgroup/delegate has named since there is delegation: the directory and
the files that move processes and enable controllers below. The limits of the subtree's root stay the host's.
"""

from __future__ import annotations

from collections.abc import Sequence

from bulkhead.agent.operations import Operation, chown, mkdir, write
from bulkhead.host.cgroups import Layout

OWN = "own"
"""The group that is handed over, below the instance's."""
BESIDE = f"{OWN}/.exec"
"""Where commands beside the workload are: a group with controllers for its children holds no process (Linux, "no
internal processes"), and it is within the subtree, so that they can be moved into sessions and scopes."""
FILES = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
MAX_GROUPS = 1024
MAX_DEPTH = 32
"""Groups cost the host memory, and removing them time."""


def directory(layout: Layout, group: str, name: str) -> str:
    """A group below the instance's, in the v2 tree."""
    return f"{layout.unified}/{group}/{name}"


def prepare(
    layout: Layout, cgroup: str, group: str, owner: int | None, controllers: Sequence[str]
) -> tuple[Operation, ...]:
    """Make the subtree and give it to `owner` (a uid of the host's). `controllers` are those of the v2 tree's."""
    tree, own = f"{layout.unified}/{group}", directory(layout, group, OWN)
    enable = " ".join(f"+{name}" for name in controllers)
    given = (own, *(f"{own}/{name}" for name in FILES))
    return (
        *(() if controllers else (mkdir(f"{layout.unified}/{cgroup}"), mkdir(tree))),
        write(f"{tree}/cgroup.max.descendants", str(MAX_GROUPS)),
        write(f"{tree}/cgroup.max.depth", str(MAX_DEPTH)),
        mkdir(own),
        mkdir(directory(layout, group, BESIDE)),
        *((write(f"{tree}/cgroup.subtree_control", enable),) if enable else ()),
        *(chown(path, owner) for path in given if owner),
    )


def joins(layout: Layout, group: str, join: Sequence[str], name: str) -> tuple[str, ...]:
    """`join` with the instance's own v2 group replaced by one below it."""
    own = f"{layout.unified}/{group}/cgroup.procs"
    return (*(path for path in join if path != own), f"{directory(layout, group, name)}/cgroup.procs")
