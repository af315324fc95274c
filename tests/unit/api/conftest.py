"""A daemon with a fake engine behind the real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulkhead.client import Client
from tests.unit.api.fakes import FakeAgent, FakeEngine, Talk, served


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    """The engine behind the API."""
    return FakeEngine(tmp_path)


@pytest.fixture
def client(engine: FakeEngine, tmp_path: Path) -> Iterator[Client]:
    """A client of the daemon."""
    with served(engine, tmp_path / "api.sock"), Client(str(tmp_path / "api.sock")) as client:
        yield client


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
