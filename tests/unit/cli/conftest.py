"""A daemon with a fake engine, and the command line against it: in this process, or as a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from hypothesis import settings

from bulkhead import __main__ as program
from tests.unit.api.fakes import FakeAgent, FakeEngine, Talk, served

# How long an example takes depends on who else uses the machine.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Cli:
    """Runs commands against one daemon."""

    config: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *words: str, stdin: bytes = b"") -> Result:
        """Run a command in this process."""
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self.capsys.readouterr()
        code = program.run(["--config", str(self.config), *words])
        said = self.capsys.readouterr()
        return Result(code, said.out, said.err)

    def process(self, *words: str, stdin: bytes = b"", **settings: object) -> Result:
        """Run a command as a process."""
        done = subprocess.run(self.argv(*words), input=stdin, capture_output=True, timeout=60, check=False)
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *words: str, stdin: int | IO[bytes] = subprocess.PIPE, **more: int) -> subprocess.Popen[bytes]:
        """Start a command as a process with pipes."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.Popen(self.argv(*words), stdin=stdin, **pipes)  # type: ignore[call-overload,no-any-return]

    def argv(self, *words: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "bulkhead", "--config", str(self.config), *words]


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    """The engine behind the API."""
    return FakeEngine(tmp_path)


@pytest.fixture
def cli(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cli]:
    """The command line of a daemon."""
    config = tmp_path / "config.toml"
    config.write_text(f'run_dir = "{tmp_path}"\n')
    monkeypatch.setitem(os.environ, "BULKHEAD_CONFIG", str(config))
    with served(engine, tmp_path / "bulkhead.sock"):
        yield Cli(config, capsys, monkeypatch)


@pytest.fixture
def workload(engine: FakeEngine, tmp_path: Path) -> Iterator[Callable[[Callable[[Talk], int]], FakeAgent]]:
    """Puts an agent behind the engine whose workload is the given function."""
    agents: list[FakeAgent] = []

    def make(function: Callable[[Talk], int]) -> FakeAgent:
        agent = FakeAgent(tmp_path / f"agent{len(agents)}.sock", function)
        agent.serve()
        engine.agent = agent
        agents.append(agent)
        return agent

    yield make
    for agent in agents:
        agent.close()
