"""Finding the agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.agent import launch
from bulkhead.errors import Unavailable


def test_a_named_agent_is_the_only_one_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "agent"
    monkeypatch.setenv("BULKHEAD_AGENT", str(binary))
    with pytest.raises(Unavailable, match=str(binary)) as caught:
        launch.find_agent()
    assert "make -C agent" in caught.value.hint
    binary.touch()
    assert launch.find_agent() == binary


def test_without_a_name_the_checkouts_or_the_installed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BULKHEAD_AGENT", raising=False)
    built = tmp_path / "agent/build/agent"
    monkeypatch.setattr(launch, "BUILT", built)
    monkeypatch.setattr(launch, "INSTALLED", tmp_path / "installed")
    with pytest.raises(Unavailable, match="installed"):
        launch.find_agent()
    (tmp_path / "installed").touch()
    assert launch.find_agent() == tmp_path / "installed"
    built.parent.mkdir(parents=True)
    built.touch()
    assert launch.find_agent() == built


def test_numbers_of_what_is_inherited() -> None:
    assert [launch.inherited_fd(index, netns=False) for index in range(2)] == [5, 6]
    assert [launch.inherited_fd(index, netns=True) for index in range(2)] == [6, 7]


def test_more_than_can_be_inherited(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 2"):
        launch.launch(tmp_path / "agent", tmp_path, inherit=[0, 1, 2])
