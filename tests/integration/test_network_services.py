"""Helper programs: started once, found again, ended by their own pid."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bulkhead.errors import HostError, Unavailable
from bulkhead.host import processes
from bulkhead.host.services import Service
from tests.integration.network_lab import eventually, private

PROGRAM = """#!/bin/sh
# A program that goes to the background, as dnsmasq does.
[ -z "$2" ] || { echo "it will not" >&2; exit 3; }
sh -c 'trap "" HUP; echo $$ > "$0.n"; mv "$0.n" "$0"; while :; do sleep 0.05; done' "$1" </dev/null >/dev/null 2>&1 &
while [ ! -e "$1" ]; do sleep 0.01; done
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A program that is installed."""
    file = tmp_path / "daemon"
    file.write_text(PROGRAM)
    file.chmod(0o755)
    find = processes.find
    monkeypatch.setattr(processes, "find", lambda name: file if name == "daemon" else find(name))
    return "daemon"


@private
def test_a_life(tmp_path: Path, program: str) -> None:
    file = tmp_path / "new" / "it.pid"
    service = Service(file)
    assert service.running() is None
    assert not service.stop()
    assert not service.signal(signal.SIGHUP)
    service.start([program, file])
    pid = service.running()
    assert pid
    assert Service(file).running() == pid  # another daemon finds it
    assert service.signal(signal.SIGHUP)
    assert service.stop()
    assert processes.start_time(pid) is None
    assert list(file.parent.iterdir()) == []
    assert not service.stop()


@private
def test_a_pid_that_is_somebody_elses_now(tmp_path: Path, program: str) -> None:
    file = tmp_path / "it.pid"
    service = Service(file)
    service.start([program, file])
    first = service.running()
    assert first
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: processes.start_time(first) is None)
    assert service.running() is None
    file.write_text(f"{os.getpid()}\n")  # this process, which is not to be ended
    assert service.running() is None
    assert not service.signal(signal.SIGKILL)
    assert not service.stop()
    file.write_text("nonsense")
    assert service.running() is None


@private
def test_found_by_its_arguments_when_the_record_is_missing(tmp_path: Path, program: str) -> None:
    file = tmp_path / "it.pid"
    service = Service(file)
    service.start([program, file])
    file.with_suffix(".started").unlink()
    assert service.running()
    assert service.stop()


@private
def test_what_does_not_start(tmp_path: Path, program: str) -> None:
    service = Service(tmp_path / "it.pid")
    with pytest.raises(HostError, match="it will not"):
        service.start([program, service.pid_file, "badly"])
    with pytest.raises(Unavailable, match="absent-daemon is not installed") as error:
        service.start(["absent-daemon"], package="absent")
    assert error.value.hint == "apt install absent"
    assert service.running() is None
