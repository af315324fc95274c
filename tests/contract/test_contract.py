"""What every driver must do. A driver is done when this passes for it.

The leak check goes around each test: no process, mount, cgroup or file of a test outlives its delete.
"""

from __future__ import annotations

import json
import signal
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from bulkhead.agent.frames import WORKLOAD, Frame, Type
from bulkhead.agent.session import SOCKET, Session
from bulkhead.errors import AgentError, CommandNotExecutable, CommandNotFound, Problem, Refused
from bulkhead.isolation.base import Bundle, Change, Command, Driver, Flushes, Handle, Holds, Inspection, Pauses, Resizes
from bulkhead.isolation.fake import FakeDriver
from bulkhead.model import Exit, Spec
from tests.contract.factories import READY, Argv, Factory

pytestmark = pytest.mark.minutes(7)
PATIENCE = 30.0
"""Seconds to wait for what must happen; no test measures time."""


@contextmanager
def created(factory: Factory, argv: Argv) -> Iterator[tuple[Driver, Bundle]]:
    """An instance that has been created; deleted at the end."""
    driver, bundle = factory.driver(), factory.bundle(argv)
    driver.create(bundle)
    try:
        yield driver, bundle
    finally:
        driver.delete(bundle.directory, bundle.spec.id)


@contextmanager
def started(factory: Factory, argv: Argv) -> Iterator[tuple[Driver, Bundle, Handle]]:
    """An instance that runs and, if it is one that says so, is ready."""
    with created(factory, argv) as (driver, bundle):
        handle = driver.start(bundle)
        if READY in " ".join(argv):
            until(lambda: READY in log(bundle))
        yield driver, bundle, handle


def until(condition: object) -> None:
    """Wait until `condition()` is true."""
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def log(bundle: Bundle) -> str:
    """What the workload has written, each line as "STREAM TEXT". What comes by a serial port comes in parts (P)."""
    file = bundle.directory / "log"
    lines = ""
    for entry in file.read_text().splitlines() if file.exists() else ():
        _, stream, kind, text = entry.split(" ", 3)
        lines += (f"{stream} " if not lines or lines.endswith("\n") else "") + text + ("\n" if kind == "F" else "")
    return lines


def ended(driver: Driver, bundle: Bundle, handle: Handle) -> Exit:
    """How the workload ended, once it has."""
    found: list[Inspection] = []

    def look() -> bool:
        found.append(driver.inspect(bundle.directory, handle))
        return not found[-1].running

    until(look)
    exit_ = found[-1].exit
    assert exit_ is not None, "it ended without a trace"
    return exit_


# --- probe and check


def test_probe_says_whether_it_works(factory: Factory) -> None:
    driver = factory.driver()
    found = driver.probe()
    assert found.works, f"{found.reason}; {found.hint}"
    assert found.not_isolated, "no level isolates everything: it says what it shares with the host"
    assert driver.probe() == found


def test_an_ordinary_spec_has_no_problems(factory: Factory) -> None:
    assert factory.driver().check(factory.bundle(factory.commands.runs).spec) == []


def test_all_problems_are_told_at_once(factory: Factory) -> None:
    spec, least = factory.faulty(factory.bundle(factory.commands.runs).spec)
    problems = factory.driver().check(spec)
    assert len(problems) >= least
    for problem in problems:
        assert isinstance(problem, Problem)
        assert problem.what
        assert problem.hint, f"no hint: {problem.what}"


def test_check_changes_nothing(factory: Factory) -> None:
    bundle = factory.bundle(factory.commands.runs)
    before = sorted(bundle.directory.iterdir())
    factory.driver().check(bundle.spec)
    assert sorted(bundle.directory.iterdir()) == before


def test_the_spec_is_the_same_after_a_round_trip(factory: Factory) -> None:
    spec = factory.bundle(factory.commands.runs).spec
    assert Spec.model_validate_json(spec.model_dump_json()) == spec


# --- create and delete


def test_create_and_delete_are_idempotent(factory: Factory) -> None:
    driver, bundle = factory.driver(), factory.bundle(factory.commands.runs)
    driver.create(bundle)
    driver.create(bundle)
    driver.delete(bundle.directory, bundle.spec.id)
    driver.delete(bundle.directory, bundle.spec.id)


def test_delete_of_what_was_never_created(factory: Factory) -> None:
    bundle = factory.bundle(factory.commands.runs)
    factory.driver().delete(bundle.directory, bundle.spec.id)


def test_delete_by_a_new_driver_ends_what_runs(factory: Factory) -> None:
    with started(factory, factory.commands.stubborn) as (driver, bundle, handle):
        factory.driver().delete(bundle.directory, bundle.spec.id)
        until(lambda: not driver.inspect(bundle.directory, handle).running)


# --- start and inspect


def test_it_runs(factory: Factory) -> None:
    with started(factory, factory.commands.runs) as (driver, bundle, handle):
        found = driver.inspect(bundle.directory, handle)
        assert found.running
        assert found.exit is None
        assert found.pid == handle.pid > 0
        assert driver.inspect(bundle.directory, handle) == found


def test_the_handle_survives_a_new_driver_and_json(factory: Factory) -> None:
    with started(factory, factory.commands.runs) as (_, bundle, handle):
        again = Handle(**json.loads(json.dumps(asdict(handle))))
        assert again == handle
        driver = factory.driver()
        assert driver.inspect(bundle.directory, again).running
        driver.stop(bundle.directory, again, signal="SIGTERM", timeout=PATIENCE)
        assert not driver.inspect(bundle.directory, again).running


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_the_workloads(factory: Factory, code: int) -> None:
    with started(factory, factory.commands.exits(code)) as (driver, bundle, handle):
        found = ended(driver, bundle, handle)
        assert (found.code, found.signal, found.oom) == (code, 0, False)
        assert 0 < found.started <= found.ended
        assert ended(factory.driver(), bundle, handle) == found


def test_the_agents_watch_tells_of_the_end(factory: Factory) -> None:
    with (
        started(factory, factory.commands.runs) as (_, bundle, _),
        Session.connect(bundle.directory / SOCKET) as session,
    ):
        stream = session.watch()
        session.signal(signal.SIGTERM)
        assert session.ended(stream, timeout=PATIENCE) is not None


def test_a_program_that_is_missing(factory: Factory) -> None:
    if (argv := factory.commands.missing) is None:
        return
    with created(factory, argv) as (driver, bundle):
        with pytest.raises(CommandNotFound, match=argv[0]):
            driver.start(bundle)
        assert_nothing_runs(bundle)


def test_a_program_that_cannot_be_executed(factory: Factory) -> None:
    if (argv := factory.commands.not_executable) is None:
        return
    with created(factory, argv) as (driver, bundle):
        with pytest.raises(CommandNotExecutable, match=argv[0]):
            driver.start(bundle)
        assert_nothing_runs(bundle)


def assert_nothing_runs(bundle: Bundle) -> None:
    """No agent answers. What else could be left is for the leak check."""
    assert not (bundle.directory / SOCKET).exists()


def test_a_client_gone_in_the_middle_of_a_start_leaves_nothing(factory: Factory) -> None:
    class Gone(Exception):
        pass

    def leave(socket: Path) -> None:
        raise Gone

    with created(factory, factory.commands.runs) as (driver, bundle):
        with pytest.raises(Gone):
            driver.start(bundle, on_launch=leave)
        assert_nothing_runs(bundle)


def test_on_launch_comes_before_the_workload(factory: Factory) -> None:
    seen: list[tuple[Path, str]] = []
    with created(factory, factory.commands.echoes("word")) as (driver, bundle):
        handle = driver.start(bundle, on_launch=lambda socket: seen.append((socket, log(bundle))))
        assert seen == [(bundle.directory / SOCKET, "")]
        ended(driver, bundle, handle)
        assert "stdout word\n" in log(bundle)


def test_it_can_be_started_again(factory: Factory) -> None:
    with created(factory, factory.commands.exits(3)) as (driver, bundle):
        first = ended(driver, bundle, driver.start(bundle))
        driver.delete(bundle.directory, bundle.spec.id)
        driver.create(bundle)
        second = ended(driver, bundle, driver.start(bundle))
        assert (first.code, second.code) == (3, 3)
        assert second.started >= first.ended


# --- stop


def test_stop_asks_first(factory: Factory) -> None:
    with started(factory, factory.commands.runs) as (driver, bundle, handle):
        driver.stop(bundle.directory, handle, signal="SIGTERM", timeout=PATIENCE)
        found = driver.inspect(bundle.directory, handle)
        assert not found.running
        assert found.exit is not None
        assert found.exit.signal != signal.SIGKILL


def test_stop_kills_what_does_not_listen(factory: Factory) -> None:
    with started(factory, factory.commands.stubborn) as (driver, bundle, handle):
        driver.stop(bundle.directory, handle, signal="SIGTERM", timeout=0.05)
        found = driver.inspect(bundle.directory, handle)
        assert not found.running
        assert found.exit is not None
        assert (found.exit.code, found.exit.signal) == (137, signal.SIGKILL)


def test_stop_with_kill(factory: Factory) -> None:
    with started(factory, factory.commands.runs) as (driver, bundle, handle):
        driver.stop(bundle.directory, handle, signal="SIGKILL", timeout=PATIENCE)
        found = driver.inspect(bundle.directory, handle).exit
        assert found is not None
        assert (found.code, found.signal, found.oom) == (137, signal.SIGKILL, False)


def test_stop_of_what_has_ended(factory: Factory) -> None:
    with started(factory, factory.commands.exits(5)) as (driver, bundle, handle):
        before = ended(driver, bundle, handle)
        driver.stop(bundle.directory, handle, signal="SIGTERM", timeout=PATIENCE)
        driver.stop(bundle.directory, handle, signal="SIGTERM", timeout=PATIENCE)
        assert driver.inspect(bundle.directory, handle).exit == before


# --- commands beside the workload


def test_a_command_beside_the_workload(factory: Factory) -> None:
    with (
        started(factory, factory.commands.runs) as (driver, bundle, handle),
        Session.connect(bundle.directory / SOCKET) as session,
    ):
        if not factory.commands.beside:
            with pytest.raises(Refused) as caught:
                driver.exec_request(bundle.spec, handle, Command(argv=factory.commands.echoes("word")))
            assert all(problem.hint for problem in caught.value.problems)
            return
        for argv, code, output in (
            (factory.commands.echoes("word"), 0, b"word\n"),
            (factory.commands.exits(9), 9, b""),
        ):
            request = driver.exec_request(bundle.spec, handle, Command(argv=argv))
            found = session.exec_collect(request, timeout=PATIENCE)
            assert (found.code, found.stdout) == (code, output)
        assert driver.inspect(bundle.directory, handle).running


def test_a_command_that_is_missing(factory: Factory) -> None:
    with (
        started(factory, factory.commands.runs) as (driver, bundle, handle),
        Session.connect(bundle.directory / SOCKET) as session,
    ):
        if not factory.commands.beside or factory.commands.missing is None:
            return
        request = driver.exec_request(bundle.spec, handle, Command(argv=factory.commands.missing))
        with pytest.raises(CommandNotFound):
            session.exec_collect(request, timeout=PATIENCE)
        assert driver.inspect(bundle.directory, handle).running


# --- several at once


def test_several_at_once_do_not_disturb_one_another(factory: Factory) -> None:
    bundles = [factory.bundle(factory.commands.exits(number)) for number in range(4)]
    driver = factory.driver()
    codes: dict[int, int] = {}

    def run(number: int, bundle: Bundle) -> None:
        driver.create(bundle)
        codes[number] = ended(driver, bundle, driver.start(bundle)).code
        driver.delete(bundle.directory, bundle.spec.id)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(bundles)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {0: 0, 1: 1, 2: 2, 3: 3}


# --- what a driver may offer


def test_resize(factory: Factory) -> None:
    with started(factory, factory.commands.runs) as (driver, bundle, handle):
        if not isinstance(driver, Resizes):
            return
        operations, in_force = factory.resize_operations(bundle)
        assert not in_force()
        plan = bundle.spec.plan
        driver.resize(bundle.directory, handle, Change(plan, plan, lambda *_: operations, lambda *_: ()))
        assert in_force()
        assert driver.inspect(bundle.directory, handle).running


def test_pause_and_resume(factory: Factory) -> None:
    with started(factory, factory.commands.runs) as (driver, bundle, handle):
        if not isinstance(driver, Pauses):
            return
        driver.pause(bundle.directory, handle)
        assert driver.inspect(bundle.directory, handle).running
        driver.resume(bundle.directory, handle)
        driver.stop(bundle.directory, handle, signal="SIGTERM", timeout=PATIENCE)
        found = driver.inspect(bundle.directory, handle).exit
        assert found is not None
        assert found.signal != signal.SIGKILL


def test_what_is_paused_does_nothing_until_it_is_resumed(factory: Factory) -> None:
    with (
        started(factory, factory.commands.runs) as (driver, bundle, handle),
        Session.connect(bundle.directory / SOCKET) as session,
    ):
        if not isinstance(driver, Pauses):
            return
        stream = session.watch()
        driver.pause(bundle.directory, handle)
        driver.pause(bundle.directory, handle)
        again = factory.driver()
        assert isinstance(again, Pauses)
        if not isinstance(driver, FakeDriver):  # its programs obey at once, whatever state it says
            # Not waited for: a machine that is frozen answers when it goes on.
            session.send(Frame(Type.SIGNAL, WORKLOAD, struct.pack("<II", signal.SIGTERM, 0)))
            assert session.ended(stream, timeout=0.2) is None
            again.resume(bundle.directory, handle)
            assert session.ended(stream, timeout=PATIENCE) is not None
        again.resume(bundle.directory, handle)


@pytest.mark.parametrize("way", ["stop", "delete"])
def test_what_is_paused_can_be_ended(factory: Factory, way: str) -> None:
    with started(factory, factory.commands.stubborn) as (driver, bundle, handle):
        if not isinstance(driver, Pauses):
            return
        driver.pause(bundle.directory, handle)
        if way == "stop":
            driver.stop(bundle.directory, handle, signal="SIGTERM", timeout=0.05)
        else:
            factory.driver().delete(bundle.directory, bundle.spec.id)
        until(lambda: not driver.inspect(bundle.directory, handle).running)


def test_what_is_flushed_runs_on(factory: Factory) -> None:
    with started(factory, factory.commands.runs) as (driver, bundle, handle):
        if not isinstance(driver, Flushes):
            # Where nobody is inside, a snapshot is what is there after a loss of power.
            told = factory.commands.beside
            assert bundle.disk is not None or not told, (
                "its disk is not the host's to freeze, and it cannot be told to write"
            )
            return
        driver.flush(bundle.directory, handle)
        driver.flush(bundle.directory, handle)
        assert driver.inspect(bundle.directory, handle).running


def test_hold_opens_the_root_without_the_program(factory: Factory) -> None:
    with created(factory, factory.commands.missing or factory.commands.runs) as (driver, bundle):
        if not isinstance(driver, Holds):
            return
        handle = driver.hold(bundle)
        assert driver.inspect(bundle.directory, handle).running
        driver.stop(bundle.directory, handle, signal="SIGKILL", timeout=PATIENCE)
        assert not driver.inspect(bundle.directory, handle).running


def test_errors_are_in_words(factory: Factory) -> None:
    if factory.commands.missing is None:
        return
    with created(factory, factory.commands.missing) as (driver, bundle):
        with pytest.raises(AgentError) as caught:
            driver.start(bundle)
        assert "errno" not in caught.value.what.lower()
        assert caught.value.exit_code == 127
