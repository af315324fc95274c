"""`--isolation auto`: the level that the rules choose is what runs, is told, and is never lowered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.integration.lives import PLAN, with_image


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon that has the image busybox, and no kernel for VMs."""
    return with_image(shared_daemon, busybox_tar, "busybox")


def test_it_runs_behind_the_level_that_was_chosen(bulkhead: Daemon) -> None:
    auto = ("--isolation", "auto", "--trust", "own", *PLAN)
    done = bulkhead.cli("run", "--rm", *auto, "busybox", "hostname")
    assert done.stderr.startswith("isolation: container, since ")
    assert done.stdout.strip() != bulkhead.cli("run", "--rm", *auto, "--network", "host", "busybox", "hostname").stdout
    made = bulkhead.cli("create", "--name", "picked", *auto, "--hostile-input", "busybox", "true")
    assert "(rule 7)" in made.stderr
    [told] = bulkhead.json("inspect", "picked")
    assert told["isolation"] == "container"
    assert told["config"]["choice"] == {
        "rule": 7,
        "reason": told["config"]["choice"]["reason"],
        "trust": "own",
        "needs_kernel": False,
        "hostile_input": True,
    }
    bulkhead.clear()


def test_a_level_that_does_not_work_is_refused_not_lowered(bulkhead: Daemon) -> None:
    done = bulkhead.cli("run", "--rm", "--isolation", "auto", *PLAN, "busybox", "true", check=False)
    assert done.returncode == 125
    assert "kernel" in done.stderr
    assert bulkhead.json("ps", "-a", "--format", "json") == []


def test_the_rules_and_levels_are_printed(bulkhead: Daemon) -> None:
    rules = bulkhead.cli("isolation", "explain").stdout.splitlines()
    assert rules[0].split() == ["RULE", "WHEN", "LEVEL", "BECAUSE"]
    assert len(rules) == 1 + len(bulkhead.json("isolation", "explain", "--format", "json"))
    levels = {item["level"]: item["works"] for item in bulkhead.json("isolation", "ls", "--format", "json")}
    assert levels["container"] is True
