"""Changes of a VM that runs, against a monitor and a guest that are programmed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from bulkhead.agent.operations import Operation, read, write
from bulkhead.errors import AgentError, Conflict, Refused
from bulkhead.isolation import resizing
from bulkhead.isolation.base import Change, Handle, Room
from bulkhead.model import Plan

MIB = 1 << 20
PLAN = Plan(memory=128 * MIB, cpus=1, disk=64 * MIB)
BEGAN = Room(128 * MIB, 1)
MOST = Room(1024 * MIB, 4)


@dataclass
class Monitor:
    """QEMU's side: what a guest has of its memory and processors. `stubborn`: the guest follows in nothing."""

    plugged: int = 0
    kept: int = 128 * MIB
    processors: int = 1
    stubborn: bool = False
    nonsense: bool = False
    done: list[str] = field(default_factory=list)

    def execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        values = arguments or {}
        if self.nonsense:
            return {"what": None}
        match command:
            case "query-hotpluggable-cpus":
                present = [{"qom-path": f"/cpu/{number}"} if number < self.processors else {} for number in range(4)]
                cores = [{"type": "max", "props": {"core-id": number}, **present[number]} for number in range(4)]
                return list(reversed(cores))
            case "query-memory-devices":
                return [{"data": {"size": self.plugged, "requested-size": -1}}]
            case "query-balloon":
                return {"actual": self.kept}
        self.done.append(" ".join([command, *map(str, values.values())]))
        if not self.stubborn:
            self._follow(command, values)
        return {}

    def _follow(self, command: str, values: dict[str, object]) -> None:
        if command == "device_add":
            self.processors += 1
        elif command == "device_del":
            self.processors -= 1
        elif command == "balloon":
            self.kept = int(str(values["value"]))
        elif values.get("property") == "requested-size":
            self.plugged = int(str(values["value"]))


@dataclass
class Session:
    """The agents' side, which writes down what it is asked for. `available`: megabytes, by the guest's word."""

    did: list[str] = field(default_factory=list)
    refuses: str = ""
    available: int | None = 100

    def run(self, operations: Sequence[Operation]) -> list[str]:
        return self._do("host", operations)

    def guest_run(self, operations: Sequence[Operation]) -> list[str]:
        if operations == [read("/proc/meminfo")]:
            return [] if self.available is None else [f"MemFree: 1 kB\nMemAvailable: {self.available << 10} kB\n"]
        return self._do("guest", operations)

    def quit(self) -> None:
        self.did.append("quit")

    def _do(self, where: str, operations: Sequence[Operation]) -> list[str]:
        for operation in operations:
            said = f"{where} {operation.describe()}"
            if self.refuses and self.refuses in said:
                raise AgentError(f"{said}: busy")
            self.did.append(said)
        return []


def limit(old: Plan, new: Plan) -> list[Operation]:
    return [write("memory", f"{old.memory // MIB}-{new.memory // MIB}")]


def change(new: Plan, old: Plan = PLAN) -> Change:
    return Change(old, new, limit, limit)


def machine(monitor: Monitor, session: Session) -> resizing.Machine:
    return resizing.Machine(monitor, session, BEGAN)  # type: ignore[arg-type]


def plan(memory: int = 128, cpus: float = 1, **fields: int) -> Plan:
    return PLAN.model_copy(update={"memory": memory * MIB, "cpus": cpus, **fields})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizing, "SECONDS", 0.05)


def test_up_the_host_is_first_and_down_it_is_last() -> None:
    monitor, session = Monitor(), Session()
    resizing.resize(machine(monitor, session), change(plan(256, 2)))
    assert (monitor.plugged, monitor.kept, monitor.processors) == (128 * MIB, 128 * MIB, 2)
    assert session.did == [
        "host write memory 128-256",
        "guest write /sys/devices/system/cpu/cpu1/online 1",
        "guest write memory 128-256",
        "host write memory 256-256",
    ]
    session.did.clear()
    resizing.resize(machine(monitor, session), change(plan(96), old=plan(256, 2)))
    assert (monitor.plugged, monitor.kept, monitor.processors) == (0, 96 * MIB, 1)
    assert session.did == ["host write memory 256-256", "guest write memory 256-96", "host write memory 256-96"]


def test_the_first_processors_come_first_and_go_last() -> None:
    monitor = Monitor()
    resizing.resize(machine(monitor, Session()), change(plan(cpus=3)))
    resizing.resize(machine(monitor, Session()), change(plan(cpus=1), old=plan(cpus=3)))
    said = [line for line in monitor.done if "device" in line]
    assert said == ["device_add max cpu1 1", "device_add max cpu2 2", "device_del /cpu/2", "device_del /cpu/1"]


def test_what_has_been_done_already_is_not_done_again() -> None:
    monitor = Monitor(plugged=128 * MIB, processors=2)
    resizing.resize(machine(monitor, Session()), change(plan(256, 2)))
    assert not [line for line in monitor.done if "device" in line or "balloon" in line]


def test_disk_limits_are_all_set_so_that_none_is_left() -> None:
    monitor = Monitor()
    resizing.resize(machine(monitor, Session()), change(plan(iops=50)))
    (said,) = (line for line in monitor.done if "limits" in line)
    assert "'iops-read': 50" in said
    assert "'bps-write': 0" in said


@pytest.mark.parametrize("new", [plan(256), plan(64), plan(cpus=0.5, memory=192)])
def test_a_guest_that_does_not_follow_keeps_the_old_plan(new: Plan) -> None:
    session = Session()
    with pytest.raises(AgentError, match="did not"):
        resizing.resize(machine(Monitor(stubborn=True), session), change(new))
    assert session.did[-1] == f"host write memory {max(128, new.memory // MIB)}-128"
    assert "quit" not in session.did


def test_memory_that_the_host_cannot_take_back_is_given_back() -> None:
    """The guest says that it has shrunk, and the cgroup is as full as before."""
    monitor, session = Monitor(), Session(refuses="128-64")
    with pytest.raises(AgentError, match="busy"):
        resizing.resize(machine(monitor, session), change(plan(64)))
    assert monitor.kept == 128 * MIB
    assert session.did[-1] == "host write memory 128-128"


@pytest.mark.parametrize("available", [67, None])
def test_a_guest_that_could_not_live_with_less_keeps_what_it_has(available: int | None) -> None:
    """A balloon that takes the last free page has the guest's kernel end a program, or itself."""
    monitor, session = Monitor(), Session(available=available)
    with pytest.raises((AgentError, Conflict), match=r"available"):
        resizing.resize(machine(monitor, session), change(plan(64)))
    assert (monitor.done, session.did) == ([], [])
    resizing.resize(machine(monitor, Session(available=68)), change(plan(64)))
    assert monitor.kept == 64 * MIB


def test_a_guest_that_takes_and_does_not_give_back_is_ended() -> None:
    """It has grown, the rest of the update fails, and the host cannot narrow its limit."""
    session = Session(refuses="guest write memory")
    took = change(plan(256))

    def host(old: Plan, new: Plan) -> Sequence[Operation]:
        if new.memory < old.memory:
            raise Conflict("it holds more")
        return limit(old, new)

    with pytest.raises(AgentError, match="was ended"):
        resizing.resize(machine(Monitor(), session), Change(took.old, took.new, host, limit))
    assert session.did[-1] == "quit"


def test_a_monitor_that_talks_nonsense_is_an_error_like_any_other() -> None:
    session = Session()
    with pytest.raises(AgentError, match="makes no sense"):
        resizing.resize(machine(Monitor(nonsense=True), session), change(plan(256)))
    assert session.did[-1] == "host write memory 256-128"


def test_what_cannot_be_is_told_at_once() -> None:
    with pytest.raises(Refused) as refused:
        resizing.check(BEGAN, MOST, PLAN, plan(2048, 5, disk=32 * MIB))
    assert len(refused.value.problems) == 3
    with pytest.raises(Refused, match="steps of 2M"):
        resizing.check(BEGAN, MOST, PLAN, plan(129))
    resizing.check(BEGAN, MOST, PLAN, plan(127))


def test_a_handle_of_an_older_version_says_so() -> None:
    with pytest.raises(Refused, match="before plans"):
        resizing.extent(Handle(1, 1, 1, {"id": "x"}))


def test_a_handle_tells_that_the_machine_is_not_as_it_began() -> None:
    """Before the change, and for good: also where it is changed back."""
    handle = Handle(pid=1, supervisor_pid=2, supervisor_started=3, data={"id": "x"})
    assert resizing.marked(handle, PLAN, PLAN.model_copy(update={"pids": 7})) == handle
    for changed in (plan(256), plan(cpus=2)):
        told = resizing.marked(handle, PLAN, changed)
        assert resizing.was_resized(told) and not resizing.was_resized(handle)
        assert resizing.was_resized(resizing.marked(told, changed, changed))
