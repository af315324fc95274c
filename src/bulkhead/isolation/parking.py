"""A running machine whole in a file: its devices and its memory, and back.

The file is a head of 4,096 bytes that tells what a machine must have to go on from it (`Shape`), then QEMU's migration
stream, in which pages of zeros take a few bytes. QEMU writes to a pipe and reads from a descriptor that is open for
reading: it never holds a file of the host's that it could write.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from bulkhead.agent.files import Files
from bulkhead.agent.operations import Code, clock, simple
from bulkhead.agent.session import SOCKET, Session
from bulkhead.errors import AgentError, BulkheadError, HostError, Refused, Unavailable
from bulkhead.host.qmp import Qmp
from bulkhead.isolation import guest, root, saving, shapes, vmm
from bulkhead.isolation.base import Bundle, Handle, Room
from bulkhead.isolation.shapes import Shape
from bulkhead.quantities import format_size

HEAD = 4096
MAGIC = b"bulkhead machine 1\n"
SECONDS = 600.0
"""Within which a machine is loaded."""
SYNC_SECONDS = 60.0
"""Within which a guest has written back what it keeps in memory."""
QUIET_SECONDS = 60.0
"""After so long without a byte QEMU is taken to hang."""
_PORTION = 1 << 20
_PIPE = "saved"
_SLACK = 64 << 20
"""Bytes beyond a machine's memory that its devices and the stream's own marks may take."""
_UNLIMITED = {"max-bandwidth": 1 << 40}


def save(bundle: Path, handle: Handle, state: Path) -> None:
    """Let the guest write its file systems back, park it, stop it, and write all of it to the new file `state`.

    It stays stopped until `resume_saved`; where this fails it goes on. Raises AgentError, HostError, Unavailable.
    """
    if "shape" not in handle.data:
        raise AgentError("this machine was started by another version of Bulkhead", hint="stop and start it first")
    shape = shapes.decode(handle.data["shape"])
    with ExitStack() as undo:
        undo.callback(_try_to_go_on, bundle)
        with Session.connect(bundle / SOCKET) as session:
            session.guest_run([simple(Code.SYNC)], timeout=SYNC_SECONDS)
            session.park()
        with Qmp.open(bundle / vmm.DIRECTORY, vmm.QMP) as monitor:
            write(monitor, state, shape)
        undo.pop_all()


def resume_saved(bundle: Path) -> None:
    """Let a machine that was parked go on, from wherever its saving was left. Nothing where none is parked."""
    try:
        session = Session.connect(bundle / SOCKET)
    except Unavailable:  # it has ended
        return
    with session:
        if session.info().get("state") != "parked":
            return
        with Qmp.open(bundle / vmm.DIRECTORY, vmm.QMP) as monitor:
            go_on(monitor)
        session.resume([clock(time.time_ns())])


def _try_to_go_on(bundle: Path) -> None:
    with suppress(BulkheadError):  # what has failed before is what is told
        resume_saved(bundle)


def fitted(bundle: Bundle) -> Bundle:
    """The bundle for a machine that can go on with `boot.resumed`, if that is asked for. Raises Refused, HostError."""
    boot = vmm.require_boot(bundle)
    if boot.resumed is None:
        return bundle
    shape = read_shape(boot.resumed)
    if found := shapes.problems(shape, bundle):
        raise Refused(found)
    room = Room(shape.most_memory, shape.most_vcpus)
    return replace(bundle, boot=replace(boot, slots=shape.disks, saved=None, room=room))


def resume(session: Session, bundle: Bundle, moment: guest.Moment) -> None:
    """Tell a guest that has been loaded who and where it is now, and let its workload go on."""
    session.resume(guest.resume_operations(bundle, moment))
    files = Files(session)
    for operation in root.names(bundle, hostname=True):
        path, text = str(operation.arguments[0]), str(operation.arguments[-1])
        files.create(path, mode=0o644, uid=0, gid=0)
        files.write(path, 0, text.encode())
    files.close()


def read_shape(state: Path) -> Shape:
    """The shape of the machine in a file. Raises HostError."""
    try:
        with state.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise HostError(f"the saved machine {state} cannot be read: {error.strerror}") from error
    if len(head) != HEAD or not head.startswith(MAGIC):
        raise HostError(f"{state} holds no saved machine", hint="it may be of another version of Bulkhead")
    return shapes.decode(head[len(MAGIC) :].rstrip(b"\0"))


def write(monitor: Qmp, state: Path, shape: Shape) -> None:
    """Stop the guest and write it to the new file `state`; it stays stopped. Leaves no file when that fails."""
    with ExitStack() as undo, ExitStack() as always:
        target = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        undo.callback(state.unlink, missing_ok=True)
        always.callback(os.close, target)
        os.write(target, (MAGIC + shape.encode().encode()).ljust(HEAD, b"\0"))
        source, theirs = os.pipe2(os.O_CLOEXEC)
        always.callback(os.close, source)
        with suppress(OSError):  # a smaller pipe does as well
            fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, _PORTION)
        try:
            monitor.execute("stop")
            monitor.execute("migrate-set-capabilities", saving.WHOLE)
            monitor.execute("migrate-set-parameters", _UNLIMITED)
            monitor.hand_over(theirs, _PIPE)
            monitor.execute("migrate", {"uri": f"fd:{_PIPE}"})
        finally:
            os.close(theirs)
        _copy(source, target, most=shape.most_memory + shape.most_memory // 64 + _SLACK)
        saving.wait_saved(monitor)
        os.fsync(target)
        undo.pop_all()


def load(monitor: Qmp, state: Path) -> None:
    """Give a QEMU that waits for it (`-incoming defer`) what `write` wrote."""
    saving.load(monitor, state, offset=HEAD, whole=True, seconds=SECONDS)


def go_on(monitor: Qmp) -> None:
    """Let a stopped guest go on, whatever became of its saving. Idempotent."""
    with suppress(HostError):  # there is nothing to cancel
        monitor.execute("migrate_cancel")
    saving.wait_settled(monitor)
    monitor.execute("cont")


def _copy(source: int, target: int, *, most: int) -> None:
    """From a pipe to its end into a file. It comes from QEMU, which may be its guest's by now: bounded."""
    poll, total = select.poll(), 0
    poll.register(source, select.POLLIN)
    while poll.poll(QUIET_SECONDS * 1000):
        count = os.splice(source, target, _PORTION)
        if count == 0:
            return
        total += count
        if total > most:
            raise AgentError(f"a machine's state is larger than {format_size(most)}, which is all that it can need")
    raise AgentError(f"QEMU has written nothing of its state for {QUIET_SECONDS:g} s")
