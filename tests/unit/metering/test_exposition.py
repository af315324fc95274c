"""What Prometheus is told: its own tools take it, and the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bulkhead.metering import exposition
from bulkhead.metering.exposition import Amount, Health, Shown
from bulkhead.metering.meters import Counters
from tests.harness.abilities import require

DASHBOARD = Path(__file__).parents[3] / "dashboards/bulkhead.json"
EVIL = 'a"b\\c\nd{}'
WEB = Shown(
    id="0" * 32,
    name="web",
    tenant="acme",
    plan="small",
    isolation="container",
    state="running",
    started=1.7e9,
    restarts=0,
    healthy=True,
    cores=1.5,
    hertz=2e9,
    memory_limit=1 << 29,
    disk_limit=1 << 30,
    bandwidth=1_250_000,
    pids_limit=512,
    memory=1 << 20,
    disk=4096,
    counters=Counters(cpu=1_500_000_000, received=1, sent=2, read=3, written=4, reads=5, writes=6),
)
AMOUNT = Amount(3.0, 2.0, 1.0)


def text(*shown: Shown, left_out: int = 0) -> str:
    """All that is told."""
    resources = dict.fromkeys(("memory_bytes", "disk_bytes", "cpu_hertz"), AMOUNT)
    health = Health("1.2.3", 1.7e9, 0.01, 0, 4096)
    told = exposition.render(shown, left_out, states={"running": 1}, resources=resources, health=health)
    return told.decode()


def samples(told: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Labels and value of each sample, by name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(told):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_limits_and_use_are_told_in_base_units() -> None:
    found = samples(text(WEB))
    labels = {"tenant": "acme", "name": "web"}
    assert found["bulkhead_instance_cpu_seconds_total"] == [(labels, 1.5)]
    assert found["bulkhead_instance_cpu_limit_hertz"] == [(labels, 2e9)]
    assert found["bulkhead_instance_memory_limit_bytes"] == [(labels, float(1 << 29))]
    assert found["bulkhead_instance_network_limit_bytes_per_second"] == [(labels, 1_250_000.0)]
    assert found["bulkhead_host_memory_sold_bytes"] == [({}, 1.0)]
    assert found["bulkhead_build_info"] == [({"version": "1.2.3"}, 1.0)]
    assert ({"state": "running"}, 1.0) in found["bulkhead_instances"]
    assert "process_resident_memory_bytes" in found


def test_what_cannot_be_told_is_left_out() -> None:
    stopped = Shown(
        **{
            **{name: getattr(WEB, name) for name in Shown.__dataclass_fields__},
            "started": 0.0,
            "healthy": None,
            "bandwidth": None,
            "memory": None,
            "counters": Counters(),
        }
    )
    found = samples(text(stopped))
    assert found["bulkhead_instance_running"][0][1] == 0
    for name in ("healthy", "start_time_seconds", "network_limit_bytes_per_second", "memory_used_bytes"):
        assert f"bulkhead_instance_{name}" not in found
    assert "bulkhead_instance_cpu_seconds_total" not in found


def test_a_tenant_hears_nothing_of_the_host() -> None:
    found = samples(exposition.render([WEB], 0).decode())
    assert {name for name in found if not name.startswith("bulkhead_instance_")} == {
        "bulkhead_metrics_instances_left_out"
    }


def test_labels_cannot_break_out() -> None:
    evil = Shown(**{**{name: getattr(WEB, name) for name in Shown.__dataclass_fields__}, "plan": EVIL})
    assert samples(text(evil))["bulkhead_instance_info"][0][0]["plan"] == EVIL


def test_promtool_has_nothing_to_say() -> None:
    require("promtool")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text(WEB, left_out=3), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- the dashboard


def dashboard() -> dict[str, Any]:
    """The file."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions() -> list[str]:
    """All that the dashboard asks Prometheus."""
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    variables = [each["query"]["query"] for each in dashboard()["templating"]["list"] if each["type"] == "query"]
    return panels + variables


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    known = set(samples(text(WEB)))
    for expression in expressions():
        names = set(re.findall(r"\b(?:bulkhead|process)_[a-z_]+", expression))
        assert names, expression
        assert names <= known, f"{expression}: {names - known}"


@pytest.mark.parametrize("expression", [each for each in expressions() if not each.startswith("label_values")])
def test_the_dashboards_expressions_can_be_read(expression: str, tmp_path: Path) -> None:
    """By Prometheus itself, as a rule."""
    require("promtool")
    plain = expression.replace("$__rate_interval", "5m").replace("$tenant", ".*").replace("$name", ".*")
    rules = tmp_path / "rules.yml"
    rules.write_text(json.dumps({"groups": [{"name": "x", "rules": [{"record": "x", "expr": plain}]}]}))
    done = subprocess.run(["promtool", "check", "rules", str(rules)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


def test_the_dashboards_panels_have_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
