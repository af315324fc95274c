"""Named points at which the daemon can be made to die, so that tests can show that recovery mends everything.

`BULKHEAD_CRASH_AT=start.published` kills the daemon with KILL when it passes that point; `point:3` at the third
time. Each point lies between two acts that a crash could separate. POINTS is what the tests go through.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    "create.begin",
    "create.reserved",
    "create.bundle",
    "create.spec",
    "create.disk",
    "create.driver",
    "create.done",
    "start.begin",
    "start.layers",
    "start.disk",
    "start.volumes",
    "start.connected",
    "start.leased",
    "start.published",
    "start.named",
    "start.launched",
    "start.running",
    "start.handle",
    "start.metered",
    "start.done",
    "stop.begin",
    "stop.signalled",
    "pause.begin",
    "pause.frozen",
    "pause.done",
    "unpause.begin",
    "unpause.thawed",
    "unpause.done",
    "update.begin",
    "update.disk",
    "update.enforced",
    "update.saved",
    "update.done",
    "exit.begin",
    "exit.metered",
    "exit.network",
    "exit.saved",
    "exit.disk",
    "snapshot.begin",
    "snapshot.reserved",
    "snapshot.directory",
    "snapshot.still",
    "snapshot.copying",
    "snapshot.copied",
    "snapshot.done",
    "clone.copied",
    "restore.begin",
    "restore.copied",
    "restore.stopped",
    "restore.disk",
    "restore.saved",
    "unsnapshot.begin",
    "unsnapshot.marked",
    "unsnapshot.files",
    "delete.begin",
    "delete.marked",
    "delete.network",
    "delete.driver",
    "delete.disk",
    "delete.snapshots",
    "delete.machine",
    "delete.bundle",
    "delete.done",
)
MACHINES = ("start.machine",)
"""Of an instance with a VM of its own, beside the others."""
BUILDS = (
    "build.context",
    "build.created",
    "build.running",
    "build.ended",
    "build.layer",
    "build.step",
    "build.image",
)
MOVES = (
    "move.begin",
    "move.prepared",
    "move.stopped",
    "move.copying",
    "move.copied",
    "move.exchanged",
    "move.switched",
    "move.entering",
    "move.started",
    "move.well",
    "move.forgotten",
    "move.done",
)
"""Of a change of the wall forwards."""
PULLS = ("pull.blobs", "pull.stored")
"""Of an image that comes from a registry."""
ROOMS = ("room.created", "room.held", "room.changes", "room.layer", "room.closing", "room.closed")
"""Of clean rooms."""
SECRETS = ("secret.written", "secret.recorded", "secret.forgotten")
"""Of a secret that is kept, replaced, removed."""
RESCUES = ("rescue.made", "rescue.opened", "rescue.closing", "rescue.stopped")
"""Of a helper machine with a disk of the host's that it writes to."""
IMPORTS = ("import.receiving", "import.stored")
"""Of an archive, or a layer onto an image, that a client sends."""
FLEET = ("create.placed", "create.unconfirmed", "delete.unplaced")
"""Between the fleet's record of an instance and the host's own."""
PLACING = ("place.reserved", "place.taken")
"""Of a place on another host: here, where it was judged, and there, where it is to be."""
LEAVING = (
    "leave.begin",
    "leave.noted",
    "leave.begun",
    "leave.stopped",
    "leave.sending",
    "leave.sent",
    "leave.handed",
    "leave.told",
    "leave.erased",
)
"""Of a move to another host, on the host that it leaves."""
ARRIVING = ("arrive.begun", "arrive.received", "arrive.recorded", "arrive.named", "arrive.started")
"""On the host that it comes to."""
LIVE_LEAVING = (
    "leave.begin",
    "leave.noted",
    "leave.begun",
    "live.made",
    "live.mirroring",
    "live.mirrored",
    "live.sending",
    "live.stopped",
    "live.switched",
    "live.whole",
    "leave.sent",
    "leave.handed",
    "leave.told",
    "leave.erased",
)
"""Of a live one, on the host that it leaves."""
LIVE_ARRIVING = (
    "expect.begun",
    "expect.made",
    "expect.waiting",
    "expect.opened",
    "expect.loaded",
    "expect.whole",
    "arrive.recorded",
    "arrive.heard",
    "arrive.entered",
    "arrive.started",
)
"""On the host that it comes to."""
STAYING = ("stay.decided", "stay.noted", "stay.started")
"""Of such a move that comes to nothing, on the host that it was to leave."""
LOSING = ("take.claimed", "take.taken")
"""Of what a lost host had, on the host that decides where it goes."""
FINISHING = ("take.finished",)
"""Of a move whose source is lost, on the host that it was to come to."""
RECOVERING = ("recover.begin", "recover.created", "recover.started", "recover.confirmed")
"""On the host that it goes to."""
RESTORING = ("recover.linked",)
"""The same of what has a replica, beside the others."""
REPLICATING = ("replicate.chosen", "replicate.copied", "replicate.sent")
"""Of a replica, on the host that has the instance."""
COPIES = ("replica.begun", "replica.received", "replica.kept")
"""On the host that has the replica."""
RETURNING = ("return.begin", "return.erased", "return.forgotten")
"""On the host that was lost, once it is heard of again."""
WAYS_BACK = ("moveback.begin", "moveback.disk", "moveback.switched", "moveback.started")

_wanted, _left = "", 0


def ask(text: str) -> None:
    """Let this process die as `BULKHEAD_CRASH_AT` says."""
    global _wanted, _left  # noqa: PLW0603 - a process dies once
    _wanted, _, count = text.partition(":")
    _left = int(count or 1)


ask(os.environ.get("BULKHEAD_CRASH_AT", ""))


def checkpoint(point: str) -> None:
    """Die here when the environment asks for it; else nothing."""
    global _left  # noqa: PLW0603 - a process dies once
    if point != _wanted:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
