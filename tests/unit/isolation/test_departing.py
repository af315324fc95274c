"""How a departure leads QEMU's migration: with a monitor that plays QEMU, and a guest without an agent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import pytest

from bulkhead.errors import AgentError
from bulkhead.host.qmp import Qmp
from bulkhead.isolation.departing import HOLD, Departing
from bulkhead.isolation.migration import Amount, To, Wishes

GIB = 1 << 30


class Monitor:
    """Answers query-migrate from a list, whose last answer it repeats, and keeps what it is told."""

    def __init__(
        self,
        states: list[dict[str, Any]],
        *,
        memory: int = GIB,
        jobs: list[dict[str, Any]] | None = None,
        kvm: bool = True,
    ) -> None:
        self._states, self._memory, self._jobs, self._kvm = states, memory, jobs or [], kvm
        self.told: list[tuple[str, dict[str, Any]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        if command == "query-migrate":
            return self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if command == "query-memory-size-summary":
            return {"base-memory": self._memory}
        if command == "query-kvm":
            return {"enabled": self._kvm, "present": True}
        if command in ("query-jobs", "query-block-jobs"):
            return self._jobs
        self.told.append((command, dict(arguments or {})))
        return {}

    def commands(self) -> list[str]:
        """What it was told, in order; of settings that of how fast memory goes alone, as bytes per second."""
        paced = [(command, each.get("max-bandwidth")) for command, each in self.told]
        return [str(pace or command) for command, pace in paced if pace or not command.startswith("migrate-set")]

    def limits(self) -> list[int]:
        """The downtimes that QEMU was given, in milliseconds."""
        return [each["downtime-limit"] for command, each in self.told if "downtime-limit" in each]


def active(remaining: int, *, syncs: int = 1, rate: int = 0, mbps: float = 800.0) -> dict[str, Any]:
    ram = {"remaining": remaining, "total": GIB, "dirty-sync-count": syncs, "dirty-pages-rate": rate, "mbps": mbps}
    return {"status": "active", "ram": ram}


def converge(monitor: Monitor, *, patience: float = 60.0, rate: int | None = None) -> list[tuple[To, Amount]]:
    heard: list[tuple[To, Amount]] = []
    departing = Departing(Path("/bundle"), cast(Qmp, monitor), node="disk", agent=False)
    wishes = Wishes(downtime=0.05, patience=patience, rate=rate)
    departing.converge(wishes, lambda to, amount: heard.append((to, amount)))
    return heard


ENDED = {"status": "pre-switchover", "ram": {}}


def test_the_downtime_is_allowed_near_the_end_alone() -> None:
    far, near = active(GIB // 2), active(HOLD)
    monitor = Monitor([far, far, near, ENDED])
    heard = converge(monitor)
    assert monitor.limits() == [1, 50]
    assert heard[0][0] == "memory"
    never = Monitor([far, far, ENDED])
    converge(never)
    assert never.limits() == [1]


def test_a_small_machine_is_parked_from_the_start() -> None:
    monitor = Monitor([ENDED], memory=HOLD)
    converge(monitor)
    assert monitor.limits() == [1, 50]
    commands = [command for command, _ in monitor.told]
    assert commands[-1] == "migrate"


def test_where_it_is_slow_less_is_near() -> None:
    monitor = Monitor([active(HOLD), ENDED])
    converge(monitor, rate=1 << 20)
    assert monitor.limits() == [1]


def test_what_changes_faster_than_half_of_what_goes_is_not_near() -> None:
    fast = active(1 << 20, syncs=5, rate=20_000)  # 80 MB/s of 100
    calm = active(1 << 20, syncs=9, rate=1_000)
    still = Monitor([fast, fast, ENDED])
    converge(still)
    assert still.limits() == [1]
    slowed = Monitor([fast, calm, ENDED])
    converge(slowed)
    assert slowed.limits() == [1, 50]


FAST, SLOW = str(1 << 40), str(64 << 10)
SETUP = {"status": "setup"}


def test_tcg_looks_for_changes_while_the_guest_stands_still_alone() -> None:
    monitor = Monitor([SETUP, SETUP, active(GIB), active(GIB // 2), active(HOLD), active(0), ENDED], kvm=False)
    converge(monitor)
    # Whatever is left: at the end of a pass QEMU would look for changes, were it allowed a downtime.
    assert monitor.limits() == [0]
    # It begins while the guest stands still, and comes neither to its end by then nor while the agent is parked.
    assert monitor.commands() == [FAST, SLOW, "stop", "migrate", "cont", FAST, SLOW, FAST]


def test_a_small_machine_under_tcg_is_parked_before_it_stands_still() -> None:
    monitor = Monitor([SETUP, active(HOLD), active(0), ENDED], memory=HOLD, kvm=False)
    converge(monitor, rate=1 << 30)
    assert monitor.limits() == [0]
    assert monitor.commands() == [str(1 << 30), SLOW, "stop", "migrate", "cont", str(1 << 30)]


def test_what_takes_too_long_under_tcg_is_given_up_and_runs() -> None:
    monitor = Monitor([SETUP], kvm=False)
    with pytest.raises(AgentError, match="faster than it can be sent"):
        converge(monitor, patience=0.05)
    assert monitor.commands()[-2:] == ["cont", FAST]


def test_patience_ends_with_what_can_be_done() -> None:
    with pytest.raises(AgentError, match="faster than it can be sent") as told:
        converge(Monitor([active(GIB // 2, syncs=7, rate=50_000)]), patience=0.05)
    assert "--stop" in told.value.hint


@pytest.mark.parametrize("status", ["failed", "cancelled", "completed"])
def test_what_ends_in_another_way_has_failed(status: str) -> None:
    with pytest.raises(AgentError, match="could not be sent"):
        converge(Monitor([{"status": status, "error-desc": "Connection reset by peer"}]))


@pytest.mark.parametrize("answer", [{"status": "active", "ram": "no"}, {"status": "active", "ram": {"remaining": "x"}}])
def test_what_makes_no_sense_is_taken_for_nothing(answer: dict[str, Any]) -> None:
    converge(Monitor([answer, {"status": 7}, ENDED]))


def test_a_mirror_that_has_ended_says_why() -> None:
    job = {"id": "move", "device": "move", "status": "concluded", "error": "No space left on device"}
    departing = Departing(Path("/bundle"), cast(Qmp, Monitor([ENDED], jobs=[job])), node="disk", agent=False)
    with pytest.raises(AgentError, match="No space left"):
        departing.mirror(Wishes(downtime=0.05, patience=1.0, rate=None), lambda to, amount: None)
