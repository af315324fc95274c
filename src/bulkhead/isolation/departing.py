"""A machine leaves while it runs: QEMU sends its disk (a mirror) and its memory (a migration) through sockets.

The disk first: once the mirror has come as far as what changes, every write goes to both. Then the memory. Just before
the end the guest's agent is parked, so that the agent on the other host can go on with it; then QEMU stops the guest
and waits (`pause-before-switchover`), the mirror is ended, and the devices' state goes. QEMU 7.2.

Under TCG the memory goes in one pass (see `Departing._sees_changes`).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from bulkhead.agent.operations import clock
from bulkhead.agent.session import SOCKET, Session, short_path
from bulkhead.errors import AgentError
from bulkhead.host.qmp import Qmp, QmpError
from bulkhead.isolation import saving, vmm
from bulkhead.isolation.migration import Amount, Told, Wishes
from bulkhead.moves import Flow

DISK_SOCKET = "disk.sock"
"""In the directory of a machine's sockets: by what its disk goes, or comes."""
EXPORT = "disk"
HOLD = 128 << 20
"""Bytes of memory that are left to go through when the agent is parked: QEMU takes the last of it so quickly, where it
is zeros, that there would be no time later."""
PARKED_SECONDS = 5.0
"""How much longer than foreseen the agent stays parked, before a guest that changes too much gets it back meanwhile."""
ZEROS = 45
"""Seconds of sending that take the place of HOLD where it is slow: a page of zeros is sent as nine bytes."""
SWITCH_SECONDS = 60.0
"""In which what is left must have gone, the guest standing still."""
_JOB, _THERE, _FILTER, _FD = "move", "there", "moving", "memory"
_PAUSE, _TOLD_SECONDS = 0.005, 0.25
_PAGE = 4096
_SMALL = 1
"""Milliseconds: as good as never, while the agent is not parked yet."""
_UNLIMITED = 1 << 40
_TRICKLE = 64 << 10
"""Bytes per second while QEMU must not come to its end: in a tenth of a second a page, or 700 of zeros."""
_SETTINGS = {"pause-before-switchover": True, "auto-converge": True, "x-ignore-shared": False}


class Departing:
    """One such machine, with the connection to its QEMU. `node`: the block node of its disk.

    `agent`: whether there is an agent of ours in the guest.
    """

    def __init__(self, bundle: Path, monitor: Qmp, *, node: str, agent: bool) -> None:
        self._bundle, self._node, self._agent = bundle, node, agent
        self._parked_until = 0.0
        """0: it is not."""
        self._unparked = False
        """Whether it was, and did not help."""
        self._once = False
        """Whether the memory goes in one pass."""
        self._undo = ExitStack()
        self._monitor = self._undo.enter_context(monitor)

    def close(self) -> None:
        """Let go of QEMU."""
        self._undo.close()

    # --- the disk

    def listen(self) -> socket.socket:
        """A socket in the jail by which its QEMU, of the instance's group, may connect."""
        path = self._bundle / vmm.DIRECTORY / DISK_SOCKET
        path.unlink(missing_ok=True)
        listener = self._undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
        with short_path(path) as name:
            listener.bind(name)
        os.chown(path, 0, path.parent.stat().st_gid)
        path.chmod(0o660)
        listener.listen(1)
        return listener

    def mirror(self, wishes: Wishes, told: Told) -> None:
        """Send the disk; holes stay holes. Returns once only what is new is still to go."""
        server = {"type": "unix", "path": f"{vmm.SOCKETS}/{DISK_SOCKET}"}
        target = {"driver": "nbd", "node-name": _THERE, "server": server, "export": EXPORT}
        self._execute("blockdev-add", {**target, "discard": "unmap", "detect-zeroes": "unmap"})
        job: dict[str, object] = {"job-id": _JOB, "device": self._node, "target": _THERE, "filter-node-name": _FILTER}
        # What the guest writes from now on is written in both places before it is told: the rest cannot grow.
        job |= {"sync": "full", "copy-mode": "write-blocking", "auto-dismiss": False}
        self._execute("blockdev-mirror", {**job, **({"speed": wishes.rate} if wishes.rate else {})})
        talked = 0.0
        while True:
            done, total, ready = self._mirrored()
            if ready or time.monotonic() - talked > _TOLD_SECONDS:
                talked = time.monotonic()
                told("disk", Amount(done, total))
            if ready:
                return
            time.sleep(_PAUSE * 4)

    def _mirrored(self) -> tuple[int, int, bool]:
        jobs = _list(self._monitor.execute("query-block-jobs"))
        found = next((job for job in jobs if job.get("device") == _JOB), None)
        if found is None or found.get("status") == "concluded":
            raise AgentError(f"the disk could not be sent: {self._why() or 'QEMU has given it up'}")
        return _number(found, "offset"), _number(found, "len"), found.get("ready") is True

    def _why(self) -> str:
        jobs = _list(self._monitor.execute("query-jobs"))
        found = next((job for job in jobs if job.get("id") == _JOB), {})
        return str(found.get("error", ""))[:200]

    def _end_mirror(self) -> None:
        """All of it there, and nothing sent any more."""
        self._execute("block-job-cancel", {"device": _JOB})
        if why := _conclude(self._monitor, SWITCH_SECONDS):
            raise AgentError(f"the end of the disk could not be sent: {why}")

    # --- the memory

    def memory(self) -> socket.socket:
        """Give QEMU one end of a pair, and have the other."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._undo.enter_context(ours)
        with theirs:
            self._monitor.hand_over(theirs.fileno(), _FD)
        return ours

    def converge(self, wishes: Wishes, told: Told) -> None:
        """Send the memory until QEMU has stopped the guest for the last of it."""
        deadline, talked = time.monotonic() + wishes.patience, 0.0
        _configure(self._monitor, _SETTINGS)
        self._once = not self._sees_changes()
        self._pace(wishes.rate or _UNLIMITED)
        self._execute("migrate-set-parameters", {"cpu-throttle-initial": 20, "cpu-throttle-increment": 10})
        self._limit(0 if self._once else _SMALL)
        told("memory", Amount(0, 0))
        if self._size() <= _hold(wishes):
            self._park(deadline)
            self._allow(wishes)
        self._begin(wishes, deadline)
        while True:
            state = self._state()
            status, ram = state.get("status"), _part(state, "ram")
            if status == "pre-switchover":
                break
            if status in ("failed", "cancelled", "completed"):
                raise AgentError(f"the memory could not be sent: {str(state.get('error-desc', status))[:200]}")
            self._judge(ram, wishes, deadline)
            now = time.monotonic()
            if now > deadline:
                hint = "--patience for more time, --downtime for a longer stop, or --stop"
                what = f"the guest changes its memory faster than it can be sent, for {wishes.patience:g} s"
                raise AgentError(what, hint=hint)
            if now - talked > _TOLD_SECONDS:
                talked = now
                changed = float(_number(ram, "dirty-pages-rate") * _PAGE)
                left, total = _number(ram, "remaining"), _number(ram, "total")
                told("memory", Amount(max(0, total - left), total, changed))
            time.sleep(_PAUSE)
        if self._agent and not self._parked_until:
            what = "the guest stood still before its agent was parked"
            raise AgentError(what, hint="try again; a host that is very busy may need --stop")

    def _sees_changes(self) -> bool:
        """Whether QEMU sees every change of the memory while the guest runs, however often it looks: with KVM.

        When QEMU before 9.0 looks under TCG, it takes the marks off what has changed and lets the processors write on
        past them, as long as they have the page in their TLB: such changes never go, and the guest is broken there.
        What a processor is just about to write can be missed by any QEMU. So it looks only while the guest stands
        still: as it begins, which empties the TLBs as well, and at the end. A downtime of 0 keeps it from looking.
        """
        return _answer(self._monitor.execute("query-kvm")).get("enabled") is True

    def _begin(self, wishes: Wishes, deadline: float) -> None:
        if not self._once:
            self._execute("migrate", {"uri": f"fd:{_FD}"})
            return
        self._pace(_TRICKLE)
        self._execute("stop", {})
        self._execute("migrate", {"uri": f"fd:{_FD}"})
        while self._state().get("status") == "setup" and time.monotonic() < deadline:
            time.sleep(_PAUSE / 5)
        self._execute("cont", {})
        self._pace(wishes.rate or _UNLIMITED)

    def _judge(self, ram: Mapping[str, object], wishes: Wishes, deadline: float) -> None:
        """Park the agent when the end is near, and then let QEMU come to it; undo both where it does not come."""
        remaining, now = _number(ram, "remaining"), time.monotonic()
        if self._once:
            if not self._parked_until and _number(ram, "total") and remaining <= _hold(wishes):
                self._pace(_TRICKLE)
                self._park(deadline)
                self._pace(wishes.rate or _UNLIMITED)
            return
        rate = wishes.rate or _number(ram, "mbps") * 125_000
        if self._parked_until:
            if now > self._parked_until:
                self._limit(_SMALL)
                self._unpark()
            return
        first = _number(ram, "dirty-sync-count") <= 1 and not self._unparked
        calm = first or _number(ram, "dirty-pages-rate") * _PAGE <= rate / 2
        if _number(ram, "total") and remaining <= _hold(wishes) and calm:
            self._park(now + PARKED_SECONDS + (2 * remaining / rate if rate else 0.0))
            self._allow(wishes)

    def _pace(self, rate: int) -> None:
        self._execute("migrate-set-parameters", {"max-bandwidth": rate})

    def _allow(self, wishes: Wishes) -> None:
        """Let QEMU stop the guest once what is left can go in the downtime; in one pass it is what that leaves."""
        if not self._once:
            self._limit(round(wishes.downtime * 1000))

    def _limit(self, milliseconds: int) -> None:
        self._execute("migrate-set-parameters", {"downtime-limit": milliseconds})

    def _park(self, until: float) -> None:
        if self._agent:
            with Session.connect(self._bundle / SOCKET) as session:
                session.park()
        self._parked_until = until

    def _unpark(self) -> None:
        self._parked_until, self._unparked = 0.0, True
        if self._agent:
            unpark(self._bundle)

    def switch(self) -> Flow:
        """The rest of both; the guest stands still here, and is whole there."""
        self._end_mirror()
        self._execute("migrate-continue", {"state": "pre-switchover"})
        deadline = time.monotonic() + SWITCH_SECONDS
        while (status := (state := self._state()).get("status")) != "completed":
            if status in ("failed", "cancelled") or time.monotonic() > deadline:
                raise AgentError(f"the machine's state could not be sent: {str(state.get('error-desc', status))[:200]}")
            time.sleep(_PAUSE / 5)
        ram = _part(state, "ram")
        return Flow(
            memory=self._size(),
            zeros=_number(ram, "duplicate") * _PAGE,
            sent=_number(ram, "transferred"),
            passes=_number(ram, "dirty-sync-count"),
            throttled=_number(state, "cpu-throttle-percentage"),
        )

    def _size(self) -> int:
        """Bytes of memory that the machine began with."""
        return _number(_answer(self._monitor.execute("query-memory-size-summary")), "base-memory")

    def _state(self) -> dict[str, object]:
        return _answer(self._monitor.execute("query-migrate"))

    def _execute(self, command: str, arguments: Mapping[str, object]) -> None:
        self._monitor.execute(command, arguments)


def stay(bundle: Path, *, agent: bool) -> None:
    """Let a machine run on, wherever its departure was left. Idempotent. Raises AgentError, Unavailable, HostError."""
    with Qmp.open(bundle / vmm.DIRECTORY, vmm.QMP) as monitor:
        with suppress(QmpError):  # there is nothing to cancel
            monitor.execute("migrate_cancel")
        saving.wait_settled(monitor)
        with suppress(QmpError):
            monitor.execute("block-job-cancel", {"device": _JOB, "force": True})
        _conclude(monitor, SWITCH_SECONDS)
        _configure(monitor, dict.fromkeys(_SETTINGS, False))
        monitor.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED, "downtime-limit": 300})
        monitor.execute("cont")
    (bundle / vmm.DIRECTORY / DISK_SOCKET).unlink(missing_ok=True)
    if agent:
        unpark(bundle)


def unpark(bundle: Path) -> None:
    """Give a guest its agent back, with the time that it is now. Nothing where that is not parked."""
    with Session.connect(bundle / SOCKET) as session:
        if session.info().get("state") == "parked":
            session.resume([clock(time.time_ns())])


def _conclude(monitor: Qmp, seconds: float) -> str:
    """Wait for the end of the mirror, and forget it with what it was for; why it failed, "" where it did not."""
    deadline, why = time.monotonic() + seconds, ""
    while job := next((one for one in _list(monitor.execute("query-jobs")) if one.get("id") == _JOB), None):
        if job.get("status") == "concluded":
            why = str(job.get("error", ""))[:200]
            monitor.execute("job-dismiss", {"id": _JOB})
        elif time.monotonic() > deadline:
            raise AgentError(f"QEMU has not given up sending a disk within {seconds:g} s")
        else:
            time.sleep(_PAUSE / 5)
    with suppress(QmpError):  # it has never been there
        monitor.execute("blockdev-del", {"node-name": _THERE})
    return why


def _configure(monitor: Qmp, settings: Mapping[str, bool]) -> None:
    wanted = [{"capability": name, "state": state} for name, state in settings.items()]
    monitor.execute("migrate-set-capabilities", {"capabilities": wanted})


def _hold(wishes: Wishes) -> int:
    """Bytes that are left to go when the agent is parked."""
    return min(HOLD, wishes.rate * ZEROS) if wishes.rate else HOLD


def _answer(answer: object) -> dict[str, object]:
    return answer if isinstance(answer, dict) else {}


def _list(answer: object) -> list[dict[str, object]]:
    return [one for one in answer if isinstance(one, dict)] if isinstance(answer, list) else []


def _part(answer: Mapping[str, object], name: str) -> dict[str, object]:
    found = answer.get(name)
    return found if isinstance(found, dict) else {}


def _number(answer: Mapping[str, object], name: str) -> int:
    """What QEMU, which may be its guest's, says of an amount."""
    found = answer.get(name, 0)
    return max(0, min(int(found), 1 << 62)) if isinstance(found, int | float) else 0
