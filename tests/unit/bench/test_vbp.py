"""Instances of vector bin packing: the format, collections of them, and what the bench makes of them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from bench.__main__ import _told
from bench.contest import Sizes
from bench.figures import Results, dump
from bench.measures import packing
from bench.report import markdown
from bench.vbp import collections, parse

TEXT = "2\n10 20\n3\n5 5 2\n2.5 1 1\n 1 20 3\n"


def test_an_instance_is_read_with_as_many_of_each_item_as_there_are() -> None:
    instance = parse(TEXT, "some", "class1_6_2_0")
    assert instance.capacity == (10, 20) and instance.group == "class1"
    assert instance.sizes == ((5, 5), (5, 5), (2.5, 1), (1, 20), (1, 20), (1, 20))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2\n10 20\n", "2 lines"),
        ("3\n10 20\n1\n1 1 1\n", "line 2: 2 capacities of 3"),
        ("2\n10 20\n2\n1 1 1\n", "1 items, and 2"),
        ("2\n10 20\n1\n1 1 1 1\n", "line 4: 4 numbers of 3"),
    ],
)
def test_what_is_wrong_with_an_instance_is_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text, "some", "x")


def _collection(directory: Path) -> None:
    files = directory / "toy" / "class1"
    files.mkdir(parents=True)
    for number in range(3):
        (files / f"class1_6_2_{number}.vbp").write_text(TEXT)
    (directory / "toy.csv").write_text("instance_name,LB,OPT,best_overall\nclass1_6_2_0,5,5,5\nclass1_6_2_1,5,-1,6\n")


def test_collections_are_directories_or_tars_with_what_is_known(tmp_path: Path) -> None:
    _collection(tmp_path)
    found = collections(tmp_path)
    assert [(one.collection, one.name, one.optimum, one.best) for one in found] == [
        ("toy", "class1_6_2_0", 5, 5),
        ("toy", "class1_6_2_1", None, 6),
        ("toy", "class1_6_2_2", None, None),
    ]
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "toy.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "toy" / "class1", "class1")
    assert [one.sizes for one in collections(packed)] == [one.sizes for one in found]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no \.vbp files"):
        collections(tmp_path / "empty")


def test_the_bench_compares_with_optima_and_writes_what_it_found(tmp_path: Path) -> None:
    _collection(tmp_path)
    sizes = Sizes(vbp=tmp_path, packing_seconds=2.0)
    figure = packing.measure(sizes, tmp_path / "out")
    series = figure.find("toy: bins / optimum")
    assert series is not None and series.values == (1.0,)
    assert "| toy/class1 | 3 | 1 | 1.0000 |" in figure.notes[0]
    rows = (tmp_path / "out" / "instances.csv").read_text().splitlines()
    assert rows[1].startswith("toy/class1_6_2_0,6,2,5,5,5,5,5,") and len(rows) == 4
    results = Results(0.0, {}, _told(sizes), figures=[figure])
    assert json.loads(dump(results))["figures"][0]["key"] == "packing"
    assert str(tmp_path) not in dump(results) and "toy/class1" in markdown(results)


def test_some_instances_can_be_chosen(tmp_path: Path) -> None:
    _collection(tmp_path)
    for sizes, expected in (
        (Sizes(vbp=tmp_path, packing_known=True), 1),
        (Sizes(vbp=tmp_path, packing_every=2), 2),
        (Sizes(vbp=tmp_path, packing_classes=("toy/class1",)), 3),
        (Sizes(vbp=tmp_path, packing_classes=("other",)), 0),
    ):
        packing.measure(sizes, tmp_path / "out")
        written = (tmp_path / "out" / "instances.csv").read_text().splitlines() if expected else []
        assert max(0, len(written) - 1) == expected
