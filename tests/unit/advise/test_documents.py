"""Estates as JSON: read, refused with line and column, and described by the schema that is published."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.advise import documents
from bulkhead.advise.entries import schema
from bulkhead.advise.reading import read
from bulkhead.advise.troubles import Troubles
from bulkhead.errors import Refused
from tests.unit.advise.estates import GIB, problems_of, write

ROOT = Path(__file__).resolve().parents[3]
GOOD: dict[str, Any] = {
    "version": 1,
    "start": 1767571200,
    "step": 3600,
    "servers": [{"name": "a", "cores": 8, "ghz": 2.0, "memory": "32G", "disk": "500G"}],
    "workloads": [
        {"name": "w", "server": "a", "use": {"cpu": [1, 2, 3.5], "memory": GIB, "disk": "10G", "network": [1, 2, 3]}},
        {"name": "v", "server": "", "trust": "public", "use": {"cpu": 1, "cpu_mean": 0.5, "memory": GIB, "disk": GIB}},
    ],
}


def test_series_and_single_values(tmp_path: Path) -> None:
    estate = read([write(tmp_path / "e.json", json.dumps(GOOD))])
    assert estate.steps == 3 and estate.step == 3600
    assert estate.loads[0].use[0].tolist() == [2.0, 4.0, 7.0] and estate.loads[0].use[2].tolist() == [10 * GIB] * 3
    assert estate.loads[1].server == "" and estate.loads[1].cpu_mean == 1.0


def test_every_problem_with_line_and_column(tmp_path: Path) -> None:
    text = """{
 "servers": [
  {"name": "a", "cores": 8, "ghz": 2, "memory": "32G", "disk": "500G"},
  {"name": "b", "cores": true, "ghz": 2, "memory": "32Q", "disk": "500G", "colour": "red"}
 ],
 "workloads": [
  {"name": "w", "server": "a", "trust": "friend", "use": {"cpu": [1, -2], "memory": 1, "disk": 1}},
  {"name": "x", "use": {"cpu": "much", "memory": 1, "disk": 1}}
 ]
}"""
    with pytest.raises(Refused) as caught:
        read([write(tmp_path / "e.json", text)])
    told = problems_of(caught.value)
    for start in (
        "e.json:4:26: servers[1].cores:",
        "e.json:4:52: servers[1].memory: '32Q' is not a size",
        "e.json:4:85: servers[1].colour: there is no such key",
        "e.json:7:41: workloads[0].trust:",
        "e.json:7:70: workloads[0].use.cpu[1]:",
        "e.json:8:3: workloads[1].server: is missing",
        "e.json:8:32: workloads[1].use.cpu: 'much'",
    ):
        assert any(what.startswith(start) for what in told), (start, told)


def test_what_does_not_fit_together(tmp_path: Path) -> None:
    value = json.loads(json.dumps(GOOD))
    value["workloads"][0]["server"] = "z"
    value["workloads"][1]["use"]["cpu"] = [1, 2]
    with pytest.raises(Refused) as caught:
        read([write(tmp_path / "e.json", json.dumps(value, indent=1))])
    told = " | ".join(problems_of(caught.value))
    assert "workload w is on 'z', which is no server" in told
    assert "cpu of v has 2 values, and w has 3" in told


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ('{"servers": [}', "e.json:1:14: this is no JSON"),
        ('{"servers": [],\n "servers": []}', "e.json:1:1: this is no JSON that can be read: a key is there twice"),
        ('{"servers": [{"name": NaN}]}', "e.json:1:1: this is no JSON that can be read: NaN"),
        ('{"a":' * 100_000, "e.json:1:1: this is no JSON that can be read"),
        ("{" + "".join(f'"k{at}":0,' for at in range(30_000)) + '"k29999":0}', "e.json:1:1: this is no JSON"),
        ('{"start": 1e999, "servers": [], "workloads": []}', "e.json:1:11: start: Input should be a finite number"),
    ],
)
def test_what_is_no_json(tmp_path: Path, text: str, start: str) -> None:
    with pytest.raises(Refused) as caught:
        read([write(tmp_path / "e.json", text)])
    assert problems_of(caught.value)[0].startswith(start)


def test_what_is_just_not_too_deep_to_be_read() -> None:
    for depth in range(sys.getrecursionlimit()):
        troubles = Troubles()
        documents.read('{"x":' + "[" * depth + "]" * depth + "}", "e.json", troubles)
        assert troubles


def test_more_values_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_VALUES", 100)
    troubles = Troubles()
    documents.read('{"x": [' + "0," * 101 + "0]}", "e.json", troubles)
    with pytest.raises(Refused, match="it has more than 100 values"):
        troubles.check()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, st.integers(0, 3))
def test_every_value_is_found_where_it_stands(value: Any, indent: int) -> None:
    text = json.dumps(value, indent=indent or None, ensure_ascii=bool(indent % 2))
    paths: dict[tuple[str | int, ...], Any] = {}

    def walk(inner: Any, path: tuple[str | int, ...]) -> None:
        paths[path] = inner
        items = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        for key, each in items:
            walk(each, (*path, key))

    walk(value, ())
    found = documents.locate(text, paths)
    assert set(found) == set(paths)
    for path, inner in paths.items():
        assert json.JSONDecoder().raw_decode(text, found[path])[0] == inner


@given(VALUES)
def test_no_document_breaks_the_reader(value: Any) -> None:
    documents.read(json.dumps({"servers": value, "workloads": value}), "e.json", Troubles())
    documents.read(json.dumps(value), "e.json", Troubles())


def test_the_published_schema_is_the_one_that_is_used() -> None:
    published = json.loads((ROOT / "docs/reference/estate.schema.json").read_text())
    assert published == json.loads(json.dumps(schema())), "bulkhead advise schema >docs/reference/estate.schema.json"
