"""Why an instance could not be started elsewhere when its host is lost: told when it is made, not too late."""

from __future__ import annotations

from bulkhead.engine.admission import SHARED_NETWORKS
from bulkhead.errors import Problem
from bulkhead.model import Spec
from bulkhead.quantities import format_size

USUAL_NETWORK = "default"
MOST_DISK = 1 << 37
"""Bytes of a disk that is copied: what tells what has changed of it is asked for at once."""


def problems(spec: Spec, *, copied: bool) -> list[Problem]:
    """Everything that would be missing there. `copied`: its disk is a snapshot's to begin with."""
    where = spec.where
    if where.on_host_loss == "stay":
        hint = "--on-host-loss recreate, or --replicas 1"
        what = f"priority {where.priority} decides nothing of what waits for its host"
        return [Problem(what, hint)] if where.priority else []
    found = []
    for mount in spec.mounts:
        what = f"volume {mount.source} is" if mount.kind == "volume" else f"the host's {mount.source} is"
        found.append(f"{what} lost with the host")
    found += [f"disk {disk.source} is lost with the host" for disk in spec.disks]
    found += [f"secret {use.source} is that host's own" for use in spec.secrets]
    if spec.network not in (*SHARED_NETWORKS, USUAL_NETWORK):
        found.append(f"network {spec.network} does not go with it yet")
    if copied and not where.replicas:
        found.append("its disk is made of a snapshot, which is lost with the host")
    if spec.system is not None:
        found.append("it is an unmodified system, which has more than its disk")
    if where.replicas and spec.plan.disk > MOST_DISK:
        found.append(f"its disk has more than {format_size(MOST_DISK)}, which is not copied")
    if spec.inside or spec.only_for:
        found.append("it runs in a VM: let that be started elsewhere")
    if spec.auto_remove or spec.room or spec.build:
        found.append("it is removed as soon as it has ended")
    hint = "leave that out, or --on-host-loss stay"
    return [Problem(f"{spec.name} could not be started elsewhere: {why}", hint) for why in found]
