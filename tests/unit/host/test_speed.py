"""A core's speed over that of a reference core: measured once in a boot, and never believed where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from bulkhead.config import FLEET_DIRECTORY, FLEET_MEMBER, Config
from bulkhead.errors import HostError
from bulkhead.host import facts, speed

HERE = {"boot": "b1", "processor": "p1", "ghz": 2.0}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """At which clocks it was measured."""
    found: list[float] = []

    def measure(ghz: float) -> float:
        found.append(ghz)
        return 1.25

    monkeypatch.setattr(speed, "measure", measure)
    return found


def test_this_host_has_a_speed() -> None:
    assert speed.LEAST <= speed.measure(2.5) <= speed.MOST


def test_it_is_measured_once_in_a_boot_and_for_each_kind_of_processor(tmp_path: Path, counted: list[float]) -> None:
    for _ in range(2):
        assert speed.cached(tmp_path, **HERE) == 1.25  # type: ignore[arg-type]
    assert counted == [2.0]
    for other in ({"boot": "b2"}, {"processor": "p2"}, {"ghz": 3.0}):
        speed.cached(tmp_path, **{**HERE, **other})  # type: ignore[arg-type]
    assert len(counted) == 4


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"boot": "b1", "processor": "p1", "ghz": 2.0, "factor": 99}'])
def test_what_was_kept_and_cannot_be_is_measured_again(tmp_path: Path, counted: list[float], text: str) -> None:
    (tmp_path / speed.FILE).write_text(text)
    assert speed.cached(tmp_path, **HERE) == 1.25  # type: ignore[arg-type]
    assert json.loads((tmp_path / speed.FILE).read_text())["factor"] == 1.25


def test_twice_the_clock_at_the_same_time_is_half_the_factor() -> None:
    usual = 1.0 / speed.REFERENCE
    assert speed.factor_of(usual / 2, 2.0) == 1.0
    assert speed.factor_of(usual / 2, 1.0) == 2.0
    assert speed.factor_of(usual / 2, 4.0) == 0.5


@pytest.mark.parametrize(("seconds", "ghz"), [(0.0, 2.0), (1.0, 0.0), (1e-9, 2.0), (3600.0, 2.0)])
def test_nonsense_is_refused(seconds: float, ghz: float) -> None:
    with pytest.raises(HostError, match="speed"):
        speed.factor_of(seconds, ghz)


def member(tmp_path: Path, **settings: object) -> Config:
    (tmp_path / FLEET_DIRECTORY).mkdir()
    (tmp_path / FLEET_DIRECTORY / FLEET_MEMBER).write_text("{}")
    return Config.model_validate({"state_dir": tmp_path, "host_ghz": 2.0, **settings})


def test_a_host_in_no_fleet_counts_by_its_clock(tmp_path: Path, counted: list[float]) -> None:
    found = facts.facts(Config(state_dir=tmp_path, host_ghz=2.0))
    assert (found.ghz, found.factor, counted) == (2.0, 1.0, [])


def test_a_host_of_a_fleet_counts_by_the_reference_core(tmp_path: Path, counted: list[float]) -> None:
    found = facts.facts(member(tmp_path))
    assert (found.ghz, found.factor, found.factor_source) == (2.5, 1.25, "measured")
    assert counted == [2.0]


def test_the_operator_s_word_goes_first(tmp_path: Path, counted: list[float]) -> None:
    found = facts.facts(member(tmp_path, host_factor=0.5))
    assert (found.ghz, found.factor, found.factor_source, counted) == (1.0, 0.5, "configuration", [])
    for wrong in (0, -1, 50, "fast"):
        with pytest.raises(ValidationError):
            Config.model_validate({"host_factor": wrong})


def test_what_cannot_be_measured_is_the_clock_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(ghz: float) -> float:
        return speed.factor_of(3600.0, ghz)

    monkeypatch.setattr(speed, "measure", measure)
    found = facts.facts(member(tmp_path))
    assert (found.ghz, found.factor) == (2.0, 1.0)
    assert "cannot be" in found.factor_source
