"""Another plan for a VM that runs: its processors, its memory, its disk, through QEMU's monitor and the guest's agent.

What the guest started with stays: memory above it is plugged block by block (virtio-mem) and can be unplugged, memory
below it is taken by a balloon. The guest's kernel has to take part in both; the host's limits do not depend on it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from bulkhead.agent.operations import Code, read, simple, write
from bulkhead.agent.session import Session
from bulkhead.errors import AgentError, BulkheadError, Conflict, Problem, Refused, Unavailable
from bulkhead.host import processes
from bulkhead.host.qmp import Qmp, QmpError
from bulkhead.isolation import guest, vmm
from bulkhead.isolation.base import Bundle, Change, Handle, Room
from bulkhead.model import Plan
from bulkhead.quantities import format_size

SECONDS = 30.0
"""Within which a guest's kernel has given back, or taken, what an update is about; also under TCG."""
_PAUSE = 0.02
_BLOCK = 4096
_DEVICES = "/machine/peripheral"
_STOP = "stop it first"
_RESIZED = "resized"
_AVAILABLE = re.compile(r"^MemAvailable: +(\d{1,15}) kB$", re.MULTILINE | re.ASCII)
_KEPT_AVAILABLE = 4 << 20
"""Bytes that a guest's kernel is left to work with."""
_ONLINE = "/sys/devices/system/cpu/cpu{}/online"


def remember(bundle: Bundle) -> dict[str, str]:
    """What a handle keeps of a start, for `extent`."""
    began, most = vmm.started(bundle), vmm.require_boot(bundle).room or vmm.started(bundle)
    numbers = {"memory": began.memory, "vcpus": began.vcpus, "most_memory": most.memory, "most_vcpus": most.vcpus}
    return {name: str(number) for name, number in numbers.items()}


def extent(handle: Handle) -> tuple[Room, Room]:
    """With what the guest of a handle started, and how far it can grow."""
    try:
        numbers = {name: int(handle.data[name]) for name in ("memory", "vcpus", "most_memory", "most_vcpus")}
    except KeyError as error:
        raise Refused("the VM was started before plans of running VMs could change", hint=_STOP) from error
    return Room(numbers["memory"], numbers["vcpus"]), Room(numbers["most_memory"], numbers["most_vcpus"])


def marked(handle: Handle, old: Plan, new: Plan) -> Handle:
    """The handle that tells, from before a change on, that a VM's memory or processors are not as it began."""
    same = (old.memory, vmm.vcpus(old)) == (new.memory, vmm.vcpus(new))
    return handle if same else replace(handle, data={**handle.data, _RESIZED: "yes"})


def was_resized(handle: Handle) -> bool:
    """Whether a VM's memory or processors were changed since its start, be it forth and back.

    QEMU 7.2 ends when such a machine is to be saved.
    """
    return _RESIZED in handle.data


def check_available(reports: Sequence[str], taken: int) -> None:
    """Raise Conflict where a guest, by its /proc/meminfo, cannot part with `taken` bytes and live.

    A balloon takes the last free page; what the guest's kernel needs next then ends a program, or the guest.
    """
    found = _AVAILABLE.search(reports[0]) if reports else None
    if found is None:
        raise AgentError("the guest does not tell what memory it has available", hint=_STOP)
    available = int(found[1]) * 1024
    if available < taken + _KEPT_AVAILABLE:
        what = f"the guest has {format_size(available)} of memory available, {format_size(taken)} would be taken"
        raise Conflict(what, hint=f"let it use less, or {_STOP}")


def check(began: Room, most: Room, old: Plan, new: Plan) -> None:
    """Raise Refused with everything that a running guest cannot become."""
    problems = []
    if new.memory > most.memory:
        what = f"memory {format_size(new.memory)} is more than this VM can have while it runs"
        problems.append(Problem(what, f"at most --memory {format_size(most.memory)}, or {_STOP}"))
    elif new.memory > began.memory and (new.memory - began.memory) % vmm.MEMORY_STEP:
        what = f"memory {format_size(new.memory)}: from {format_size(began.memory)} a running VM grows by steps of 2M"
        problems.append(Problem(what, "give a multiple of 2M"))
    if vmm.vcpus(new) > most.vcpus:
        what = f"cpus {new.cpus:g} are more than this VM can have while it runs"
        problems.append(Problem(what, f"at most --cpus {most.vcpus}, or {_STOP}"))
    if new.disk < old.disk:
        what = f"the disk has {format_size(old.disk)}, {format_size(new.disk)} is less: a disk cannot shrink"
        problems.append(Problem(what, "create a new instance with the smaller plan and copy the data"))
    if problems:
        raise Refused(problems)


@dataclass(frozen=True, slots=True)
class Machine:
    """A VM that runs, for the length of one update."""

    monitor: Qmp
    session: Session
    began: Room

    def change(self, change: Change) -> None:
        """From one plan to the other, but for the disk's size. Raises AgentError where the guest does not follow."""
        wanted = vmm.vcpus(change.new)
        self._add_processors(wanted)
        shrinks = change.new.memory < change.old.memory
        if shrinks:  # so that the workload lets go of what the guest is to give back
            self.session.guest_run(change.guest(change.old, change.new))
        self._set_memory(change.new.memory)
        self._set(f"/objects/{vmm.LIMITS}", "limits", vmm.throttle(change.new))
        if not shrinks:
            self.session.guest_run(change.guest(change.old, change.new))
        self._remove_processors(wanted)

    def check(self, change: Change) -> None:
        """Raise Conflict where the guest uses more memory than it would have: its workload, or all of it."""
        if change.new.memory >= change.old.memory:
            return
        if change.check_guest_use:
            change.check_guest_use(change.old, change.new, self.session.guest_run(change.guest_use))
        taken = self._left() - min(change.new.memory, self.began.memory)
        if taken > 0:
            check_available(self.session.guest_run([read("/proc/meminfo")]), taken)

    def grow_disk(self, pid: int, size: int) -> None:
        """The disk's file has `size` bytes already; make QEMU (its host pid) and the file system in it follow."""
        processes.raise_file_size(pid, size)
        self.monitor.execute("block_resize", {"node-name": vmm.disk_node(0), "size": size // _BLOCK * _BLOCK})
        grow = simple(Code.GROW, guest.device(0), size)
        self._retry(partial(self.session.guest_run, [grow]))

    # --- processors

    def _processors(self) -> list[dict[str, object]]:
        """Those that are there, or can be, the first first."""
        found = cast(list[dict[str, object]], self.monitor.execute("query-hotpluggable-cpus"))
        return sorted(found, key=lambda one: sorted(cast(dict[str, int], one["props"]).items()))

    def _present(self) -> int:
        return sum("qom-path" in one for one in self._processors())

    def _add_processors(self, wanted: int) -> None:
        for number, one in enumerate(self._processors()[:wanted]):
            if "qom-path" not in one:
                properties = cast(dict[str, object], one["props"])
                self.monitor.execute("device_add", {"driver": one["type"], "id": f"cpu{number}", **properties})
            if number > 0:  # the first cannot be taken offline, and has no such file
                self._retry(partial(self.session.guest_run, [write(_ONLINE.format(number), "1")]))

    def _remove_processors(self, wanted: int) -> None:
        for one in reversed(self._processors()[wanted:]):
            if "qom-path" in one:
                left = self._present() - 1
                self.monitor.execute("device_del", {"id": one["qom-path"]})
                self._wait(partial(self._has_at_most, left), "give a processor back")

    def _has_at_most(self, processors: int) -> bool:
        return self._present() <= processors

    # --- memory

    def _set_memory(self, size: int) -> None:
        """Shrinking, what was plugged goes before the balloon takes the rest; growing, the other way round."""
        for step in self._memory_steps(size):
            step()

    def _memory_steps(self, size: int) -> Iterable[Callable[[], None]]:
        plugged, kept = max(0, size - self.began.memory), min(size, self.began.memory)
        steps = (lambda: self._plug(plugged), lambda: self._inflate(kept))
        return steps if kept < self.began.memory else reversed(steps)

    def _plug(self, size: int) -> None:
        devices = cast(list[dict[str, dict[str, object]]], self.monitor.execute("query-memory-devices"))
        if not devices:
            return
        if devices[0]["data"]["requested-size"] != size:
            self._set(f"{_DEVICES}/{vmm.MORE_MEMORY}", "requested-size", size)
        self._wait(lambda: self._plugged() == size, f"come to {format_size(self.began.memory + size)} of memory")

    def _plugged(self) -> int:
        devices = cast(list[dict[str, dict[str, object]]], self.monitor.execute("query-memory-devices"))
        return int(str(devices[0]["data"]["size"]))

    def _inflate(self, kept: int) -> None:
        if self._left() != kept:
            self.monitor.execute("balloon", {"value": kept})
            self._wait(lambda: self._left() == kept, f"come to {format_size(kept)} of memory")

    def _left(self) -> int:
        return int(str(cast(dict[str, object], self.monitor.execute("query-balloon"))["actual"]))

    # --- the guest's share in it

    def _set(self, path: str, name: str, value: object) -> None:
        self.monitor.execute("qom-set", {"path": path, "property": name, "value": value})

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise AgentError(f"the guest did not {what} within {SECONDS:g} s", hint=f"let it use less, or {_STOP}")
            time.sleep(_PAUSE)

    def _retry(self, attempt: Callable[[], object]) -> None:
        """The guest hears of a new device some time after it has come."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                attempt()
            except AgentError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(_PAUSE)


def resize(machine: Machine, change: Change) -> None:
    """The whole of a change but the disk's: on the host first what grows, last what shrinks.

    Raises AgentError with the old plan in force. A guest that has taken and does not give back is ended.
    """
    with sensible():
        machine.check(change)
    memory, swap = max(change.old.memory, change.new.memory), max(change.old.swap, change.new.swap)
    between = change.new.model_copy(update={"memory": memory, "swap": swap})
    machine.session.run(change.host(change.old, between))
    try:
        with sensible():
            machine.change(change)
        machine.session.run(change.host(between, change.new))
    except BulkheadError as error:
        _undo(machine, change, between, error)
        raise _said(error) from error


def _undo(machine: Machine, change: Change, between: Plan, error: BulkheadError) -> None:
    back = replace(change, old=change.new, new=change.old)
    try:
        with sensible():
            machine.change(back)
    except BulkheadError:
        pass  # what the host allows is what counts
    try:
        machine.session.run(change.host(between, change.old))
    except (AgentError, Conflict):
        machine.session.quit()
        raise AgentError(
            f"{error.what}; nor did it give back what it had taken, and was ended", hint="start it again"
        ) from error


@contextmanager
def sensible() -> Iterator[None]:
    """QEMU may be its guest's: an answer of another shape is an error as any other."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise AgentError(f"QEMU's answer makes no sense: {error!r}"[:200]) from error


def _said(error: BulkheadError) -> BulkheadError:
    """What QEMU's monitor or the agent says, as an error of the instance's."""
    if isinstance(error, (QmpError, Unavailable)):
        return AgentError(f"the VM's plan could not be changed: {error.what}", hint=error.hint)
    return error
