"""The life under an agent, seen from the files that it leaves."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.config import Config
from bulkhead.host import processes
from bulkhead.isolation import container
from bulkhead.isolation.base import Handle
from bulkhead.isolation.container import ContainerDriver
from bulkhead.isolation.supervised import Outside
from bulkhead.model import Isolation
from tests.unit.isolation.test_requests import make_spec

ME = Handle(os.getpid(), processes.start_time(os.getpid()) or 0, 4711, {"id": "x", "join": ""})
GONE = replace(ME, supervisor_started=1)


@pytest.fixture
def driver(tmp_path: Path) -> ContainerDriver:
    """A driver whose cgroups are a list of what was removed."""
    removed: list[str] = []
    made = ContainerDriver(
        Config(run_dir=tmp_path / "run"), Outside(removed.append, lambda reports: "oom 1" in reports)
    )
    made.removed = removed  # type: ignore[attr-defined]
    return made


def leave(bundle: Path, **changes: object) -> None:
    """An exit.json as the agent writes it."""
    usual = {"code": 0, "signal": 0, "started": 1.5, "ended": 2.5, "reports": []}
    (bundle / "exit.json").write_text(json.dumps({**usual, **changes}))


def test_running_is_a_supervisor_that_lives_and_has_not_said_otherwise(driver: ContainerDriver, tmp_path: Path) -> None:
    assert driver.inspect(tmp_path, ME).running
    assert driver.inspect(tmp_path, ME).pid == 4711
    found = driver.inspect(tmp_path, GONE)
    assert (found.running, found.exit) == (False, None)
    leave(tmp_path, code=3)
    found = driver.inspect(tmp_path, ME)
    assert (found.running, found.exit and found.exit.code) == (False, 3)


def test_how_it_ended(driver: ContainerDriver, tmp_path: Path) -> None:
    leave(tmp_path, signal=9, reports=["x", "oom 1"])
    found = driver.inspect(tmp_path, GONE).exit
    assert found
    assert (found.code, found.signal, found.oom, found.started, found.ended) == (137, 9, True, 1.5, 2.5)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"code": "x", "signal": 0}', '{"code":0,"signal":0,"reports":1}']
)
def test_an_exit_file_that_makes_no_sense(driver: ContainerDriver, tmp_path: Path, text: str) -> None:
    (tmp_path / "exit.json").write_text(text)
    found = driver.inspect(tmp_path, GONE)
    assert not found.running
    assert found.exit and found.exit.code == 255 and "exit.json is damaged" in found.exit.error


def test_delete_can_be_repeated_and_finds_what_a_crash_left(driver: ContainerDriver, tmp_path: Path) -> None:
    (tmp_path / "agent.sock").touch()
    driver.delete(tmp_path, "x")
    driver.delete(tmp_path, "x")
    driver.delete(tmp_path / "missing", "x")
    assert driver.removed == ["x"] * 3  # type: ignore[attr-defined]
    assert not (tmp_path / "agent.sock").exists()


def test_stopping_what_has_gone(driver: ContainerDriver, tmp_path: Path) -> None:
    driver.stop(tmp_path, GONE, signal="SIGTERM", timeout=1)
    assert driver.removed == ["x"]  # type: ignore[attr-defined]


def test_i386_images_where_tcp_connections_have_upper_protocols(
    driver: ContainerDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ulp"
    monkeypatch.setattr(container, "AVAILABLE_ULP", file)
    spec = make_spec(Isolation.CONTAINER, architecture="i386")
    assert driver.check(spec) == []
    file.write_text("mptcp\n")
    assert driver.check(spec) == []
    file.write_text("mptcp tls\n")
    (problem,) = driver.check(spec)
    assert "tls" in problem.what and "rmmod tls" in problem.hint
    assert driver.check(make_spec(Isolation.CONTAINER)) == []
