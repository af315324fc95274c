"""Guests that are kept warm: their start is rehearsed with disks of no one's, and an instance's take their places.

Under TCG a guest's first start is slow because QEMU has translated nothing of what it does yet, and that is nowhere
kept. A guest that has done it once has that behind it; what is left to do is what is the instance's own.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace

from bulkhead.agent.session import Session
from bulkhead.host.qmp import Qmp
from bulkhead.isolation import guest, vmm
from bulkhead.isolation.base import Bundle

REHEARSALS = 2
"""The second time some paths are others: what the first has left in the kernel's caches is there."""


def rehearse(session: Session, bundle: Bundle) -> None:
    """Let the guest go through the start of `bundle` to its end. Raises AgentError."""
    for _ in range(REHEARSALS):
        moment = guest.Moment.present()
        session.rehearse(guest.start_request(bundle, vmm.require_boot(bundle).guest_limits, moment))


def give_disks(monitor: Qmp, bundle: Bundle) -> None:
    """Put the disks of `bundle` in the places of those rehearsed with. Raises QmpError, Unavailable.

    QEMU gets them as open files: its jail is closed, and no name leads from it to them.
    """
    given = vmm.drives(bundle)
    limits = {"path": f"/objects/{vmm.LIMITS}", "property": "limits", "value": vmm.throttle(bundle.spec.plan)}
    monitor.execute("qom-set", limits)
    for number, drive in enumerate(given):
        with ExitStack() as always:
            descriptor = os.open(drive.source, (os.O_RDONLY if drive.read_only else os.O_RDWR) | os.O_CLOEXEC)
            always.callback(os.close, descriptor)
            path = monitor.add_file(descriptor)
        node = vmm.node(vmm.disk_node(number), replace(drive, inside=path))
        monitor.execute("blockdev-add", node)
        slot = f"/machine/peripheral/{vmm.slot(number)}"
        monitor.execute("qom-set", {"path": slot, "property": "drive", "value": vmm.disk_node(number)})
        monitor.execute("blockdev-del", {"node-name": vmm.rehearsal_node(number)})
