"""What the fake driver can be told, on top of the contract."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bulkhead.agent.frames import AttachFlag, Type
from bulkhead.agent.session import SOCKET, Session
from bulkhead.errors import HostError, Problem
from bulkhead.isolation.base import Bundle, Driver, Holds, NoLimits, Pauses, Probe, Resizes
from bulkhead.isolation.fake import STEPS, FakeDriver
from bulkhead.model import Exit, Isolation, Plan, Spec


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Callable[..., Bundle]]:
    with ExitStack() as stack:

        def make(*argv: str) -> Bundle:
            spec = Spec(
                id="ab" * 16,
                name="web",
                image="i",
                image_digest="d",
                isolation=Isolation.CONTAINER,
                plan=Plan(memory=64 << 20, cpus=1, disk=16 << 20),
                argv=argv,
                hostname="h",
                network="none",
                created=0.0,
            )
            stack.callback(FakeDriver().delete, tmp_path, spec.id)
            return Bundle(directory=tmp_path, spec=spec)

        yield make


def run(driver: Driver, bundle: Bundle) -> Exit:
    """Start the workload and wait for its end."""
    handle = driver.start(bundle)
    while (found := driver.inspect(bundle.directory, handle)).running:
        time.sleep(0.005)
    assert found.exit is not None
    return found.exit


def test_it_offers_what_can_be_offered() -> None:
    driver: object = FakeDriver()
    assert isinstance(driver, Resizes)
    assert isinstance(driver, Pauses)
    assert isinstance(driver, Holds)


@pytest.mark.parametrize("step", ["probe", "check", "create", "start", "launched", "inspect", "stop", "delete"])
def test_it_fails_where_it_is_told(bundle: Callable[..., Bundle], step: str) -> None:
    assert step in STEPS
    driver, made = FakeDriver(failures={step: HostError("told so")}), bundle("sleep", "infinity")

    def live() -> None:
        driver.probe()
        driver.check(made.spec)
        driver.create(made)
        handle = driver.start(made)
        driver.inspect(made.directory, handle)
        driver.stop(made.directory, handle, signal="SIGTERM", timeout=10)
        driver.delete(made.directory, made.spec.id)

    with pytest.raises(HostError, match="told so"):
        live()
    assert driver.calls[-1] == step
    assert (made.directory / SOCKET).exists() == (step in ("inspect", "stop"))
    del driver.failures[step]
    driver.delete(made.directory, made.spec.id)
    live()


def test_it_takes_its_time(bundle: Callable[..., Bundle]) -> None:
    began = time.monotonic()
    FakeDriver(delays={"create": 0.05}).create(bundle("true"))
    assert time.monotonic() - began >= 0.05


def test_it_finds_faults(bundle: Callable[..., Bundle]) -> None:
    problem = Problem("no", "yes")
    driver = FakeDriver(problems={"bad": problem}, ability=Probe(works=False, reason="told so"))
    assert driver.probe().reason == "told so"
    assert driver.check(bundle("bad", "good").spec) == [problem]


def test_it_runs_out_of_memory(bundle: Callable[..., Bundle]) -> None:
    found = run(FakeDriver(), bundle("oom", "0.01"))
    assert (found.oom, found.code, found.signal) == (True, 137, 9)


def test_a_kill_is_no_lack_of_memory(bundle: Callable[..., Bundle]) -> None:
    driver, made = FakeDriver(), bundle("oom", "1000")
    handle = driver.start(made)
    driver.stop(made.directory, handle, signal="SIGKILL", timeout=1)
    found = driver.inspect(made.directory, handle).exit
    assert found is not None
    assert (found.oom, found.signal) == (False, 9)


def test_its_end_without_a_trace(bundle: Callable[..., Bundle]) -> None:
    driver, made = FakeDriver(), bundle("true")
    handle = driver.start(made)
    while not (made.directory / "exit.json").exists():
        time.sleep(0.005)
    (made.directory / "exit.json").unlink()
    found = driver.inspect(made.directory, handle).exit
    assert found is not None
    assert "without a trace" in found.error


def test_its_output_reaches_the_log_and_who_attached_at_the_launch(bundle: Callable[..., Bundle]) -> None:
    made, output = bundle("echo", "one", "two"), []

    def attach(socket: Path) -> None:
        session = Session.connect(socket)
        stream = session.open(Type.ATTACH, int(AttachFlag.OUTPUT).to_bytes(4, "little"))
        output.append((session, stream))

    FakeDriver().start(made, on_launch=attach)
    ((session, stream),) = output
    with session:
        frames = [session.next(stream, 10) for _ in range(3)]
    assert [frame.type for frame in frames] == [Type.OK, Type.DATA, Type.EXIT]
    assert frames[1].payload == b"one two\n"
    assert (made.directory / "log").read_text().endswith(" stdout F one two\n")


def test_its_record_tells_what_it_was_asked_for(bundle: Callable[..., Bundle]) -> None:
    driver, made = FakeDriver(), bundle("sleep", "infinity")
    driver.create(made)
    handle = driver.start(made)
    driver.pause(made.directory, handle)
    assert json.loads((made.directory / "fake.json").read_text())["state"] == "paused"
    driver.resume(made.directory, handle)
    assert json.loads((made.directory / "fake.json").read_text())["state"] == "running"
    assert made.limits == NoLimits()
