"""Fixtures of the tests of limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.config import Config
from bulkhead.host import cgroups, facts
from bulkhead.model import Plan
from tests.harness.abilities import require
from tests.harness.naming import make_config
from tests.integration.limited import PLAN, Limited, Make


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes instances whose cgroups are there, and removes them in the end."""
    require("root", "cgroups")
    layout, config = cgroups.detect(), make_config(Path("/nonexistent"))
    made: list[Limited] = []

    def prepare(plan: Plan = PLAN, **settings: object) -> Limited:
        host = facts.facts(Config())
        limited = Limited(plan, config.cgroup, layout, replace(host, ghz=host.ghz or 1.0), **settings)  # type: ignore[arg-type]
        made.append(limited)
        limited.prepare()
        return limited

    yield prepare
    for limited in made:
        cgroups.kill_and_remove(layout, config.cgroup, limited.id)
    assert cgroups.list_instances(layout, config.cgroup) == []
    cgroups.remove(layout, config.cgroup)
