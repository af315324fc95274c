"""A fleet advises on itself: by its own metering, of instances on whichever host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.fleet import laboratory
from tests.integration.lives import until

pytestmark = pytest.mark.timeout(900)


def test_a_fleet_is_advised_on_and_the_advice_applied(busybox_tar: Path, tmp_path: Path) -> None:
    with laboratory(busybox_tar, 2, overcommit_memory=1.0) as lab:
        alpha, beta = lab.hosts
        auto = ("--isolation", "auto", "--trust", "own", "-m", "64M", "--disk", "64M")
        for host, name in ((alpha, "one"), (beta, "two")):
            host.cli("run", "-d", "--name", name, "--host", host.name, *auto, "box", "sleep", "3600")

        def used() -> dict[str, Any]:
            found = json.loads(alpha.cli("usage", "--format", "json", "--by", "instance", "--by", "hour"))
            return {row["name"]: row for row in found["rows"] if row["uptime_seconds"] > 0}

        until("both are measured", lambda: set(used()) == {"one", "two"})
        assert {row["name"]: row["host"] for row in used().values()} == {"one": "alpha", "two": "beta"}
        report = str(tmp_path / "report.json")
        alpha.cli("advise", "--fleet", "--last", "1h", "--seconds", "1", "-o", report)
        told = json.loads(Path(report).read_text())
        assert {each["name"]: (each["server"], each["level"], each["rule"]) for each in told["workloads"]} == {
            "one": ("alpha", "container", 9),
            "two": ("beta", "container", 9),
        }
        assert told["estate"]["servers"] == 2 and told["after"]["count"] == 1
        # They are behind their walls already, on hosts: one moves, and its host is free.
        assert [step["what"] for step in told["steps"]] == ["move", "retire"]
        [step, _] = told["steps"]
        said = alpha.cli("advise", "apply", "--dry-run", report).splitlines()
        assert said[0].endswith(": to do") and "yours to do" in said[1]
        assert "done" in alpha.cli("advise", "apply", report)
        places = {each["spec"]["name"]: each["host"] for each in json.loads(beta.cli("ps", "--format", "json"))}
        assert set(places.values()) == {step["host"]}
        # Run again it finds nothing left to do.
        assert alpha.cli("advise", "apply", report).splitlines()[0].endswith(": done already")
        lab.reset()
