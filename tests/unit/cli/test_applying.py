"""advise apply: steps are judged by where things are; what cannot be done is told before anything is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bulkhead.cli import applying
from bulkhead.cli.parsing import Namespace
from bulkhead.errors import BulkheadError, Refused


class Response:
    def json_lines(self) -> Iterator[dict[str, Any]]:
        yield {"result": {}}


class Fleet:
    """What the API of a fleet does to instances: a client, and an app that has it."""

    def __init__(self, **places: tuple[str, str]) -> None:
        self.places = dict(places)
        self.moved: list[tuple[str, dict[str, Any]]] = []
        self.made: list[dict[str, Any]] = []
        self.client = self
        self.broken = False

    def call(self, method: str, path: str, **request: Any) -> list[dict[str, Any]]:
        assert path == "/v1/instances"
        if method == "POST":
            body, host = request["body"], request["query"]["host"]
            self.made.append(body)
            self.places[body["name"]] = (host, body["isolation"])
            return []
        return [
            {"spec": {"name": name, "tenant": "default", "isolation": level}, "host": host}
            for name, (host, level) in self.places.items()
        ]

    @contextmanager
    def stream(self, method: str, path: str, *, body: dict[str, Any]) -> Iterator[Response]:
        if self.broken:
            raise BulkheadError("the link is cut")
        name = path.split("/")[3]
        self.moved.append((name, body))
        host, level = self.places[name]
        self.places[name] = (body.get("host", host), body.get("isolation", level))
        yield Response()


def step(what: str, host: str, workload: str = "", source: str = "") -> dict[str, str]:
    return {"what": what, "host": host, "workload": workload, "source": source, "text": f"{what} {workload} {host}"}


STEPS = [step("enclose", "a", "one"), step("move", "a", "two", "b"), step("retire", "b")]


def report(tmp_path: Path, steps: list[dict[str, str]], *, fleet: bool = True, **levels: str) -> str:
    workloads = [{"name": name, "level": level} for name, level in levels.items()]
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"version": 1, "estate": {"fleet": fleet}, "steps": steps, "workloads": workloads}))
    return str(path)


def apply(fleet: Fleet, path: str, *, dry_run: bool = False) -> None:
    assert applying.main(Namespace(report=path, dry_run=dry_run), fleet) == 0  # type: ignore[arg-type]


def test_steps_are_done_in_order_and_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = Fleet(one=("a", "container"), two=("b", "container"))
    path = report(tmp_path, STEPS, one="vm", two="vm")
    apply(fleet, path, dry_run=True)
    assert fleet.moved == [] and capsys.readouterr().out.count(": to do") == 2
    apply(fleet, path)
    assert fleet.places == {"one": ("a", "vm"), "two": ("a", "vm")}
    assert [(name, sorted(body)) for name, body in fleet.moved] == [
        ("one", ["isolation", "plan"]),
        ("two", ["dry_run", "host"]),
        ("two", ["isolation", "plan"]),
    ]
    done = len(fleet.moved)
    capsys.readouterr()
    apply(fleet, path)
    assert len(fleet.moved) == done and capsys.readouterr().out.count("done already") == 2


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    fleet = Fleet(one=("a", "vm"), two=("b", "container"))
    path = report(tmp_path, STEPS, one="vm", two="vm")
    fleet.broken = True
    with pytest.raises(BulkheadError, match="the link is cut"):
        apply(fleet, path)
    fleet.broken = False
    # It had moved, and not got its wall yet.
    fleet.places["two"] = ("a", "container")
    apply(fleet, path)
    assert fleet.moved == [("two", {"isolation": "vm", "plan": {}})]


def test_a_detour_is_not_made_twice(tmp_path: Path) -> None:
    fleet = Fleet(one=("a", "vm"))
    path = report(tmp_path, [step("move", "b", "one", "a"), step("move", "c", "one", "b")], one="vm")
    apply(fleet, path)
    assert [body["host"] for _, body in fleet.moved] == ["b", "c"]
    apply(fleet, path)
    assert len(fleet.moved) == 2


def test_a_new_one_is_made_of_its_image_with_its_plan_and_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = Fleet(one=("a", "container"))
    path = Path(report(tmp_path, [step("create", "a", "new1-1")], one="container"))
    told = json.loads(path.read_text())
    plan = {"cpus": 1.0, "ghz": 2.0, "memory": 1 << 29, "disk": 1 << 30, "bandwidth": 0}
    told["workloads"].append({"name": "new1-1", "level": "container", "image": "box:1", "plan": plan})
    path.write_text(json.dumps(told))
    apply(fleet, str(path), dry_run=True)
    assert fleet.made == [] and ": to do" in capsys.readouterr().out
    apply(fleet, str(path))
    del plan["bandwidth"]
    assert fleet.made == [{"image": "box:1", "name": "new1-1", "isolation": "container", "plan": plan}]
    capsys.readouterr()
    apply(fleet, str(path))
    assert len(fleet.made) == 1 and ": done already" in capsys.readouterr().out
    fleet.places["new1-1"] = ("b", "container")
    with pytest.raises(Refused, match="there is one on b already"):
        apply(fleet, str(path))


def test_what_stands_in_the_way_is_told_before_anything_is_done(tmp_path: Path) -> None:
    fleet = Fleet(one=("a", "container"), two=("c", "vm"))
    steps = [*STEPS, step("move", "a", "gone", "b"), step("create", "a", "new1-1")]
    with pytest.raises(Refused) as caught:
        apply(fleet, report(tmp_path, steps, one="vm", two="vm", gone="vm"))
    told = " | ".join(problem.what for problem in caught.value.problems)
    assert "it is on c by now" in told and "no instance gone" in told and "of what image is not said" in told
    assert fleet.moved == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2}',
        '{"version": 1, "steps": [{}]}',
        '{"version": 1, "steps": 5}',
        '{"version": 1, "estate": {"fleet": true}, "workloads": [],'
        ' "steps": [{"what": "move", "host": "a", "workload": "one", "text": "x", "source": []}]}',
    ],
)
def test_what_is_no_report(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(Refused, match="no report"):
        apply(Fleet(), str(path))


def test_a_report_of_files_is_not_applied(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not of a fleet"):
        apply(Fleet(), report(tmp_path, STEPS, fleet=False, one="vm", two="vm"))
