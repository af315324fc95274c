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
from bench.vectors import made
from bulkhead.advise.packing import check, pack

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


def test_made_instances_are_the_same_each_time_and_their_optimum_is_what_they_fill() -> None:
    instances = made(3)
    assert instances == made(3) and len({one.name for one in instances}) == len(instances)
    known = [one for one in instances if one.optimum]
    assert {one.group for one in known} >= {"perfect2", "perfect3", "perfect50"}
    for one in known:
        sums = [sum(column) for column in zip(*one.sizes, strict=True)]
        assert sums == [(one.optimum or 0) * room for room in one.capacity], one.name
    for one in instances:
        assert all(0 <= size <= room for row in one.sizes for size, room in zip(row, one.capacity, strict=True))
        assert int(one.name.split("_")[1]) == len(one.sizes) and int(one.name.split("_")[2]) == len(one.capacity)


def test_the_first_instances_of_a_run_are_of_all_kinds() -> None:
    mixed = packing._mixed(made())
    assert sorted(one.name for one in mixed) == sorted(one.name for one in made())
    assert len({one.group for one in mixed[:5]}) > 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 lines"),
        ("x\n10\n0\n", "line 1: 'x'"),
        ("1\n10\n-1\n", "line 3: '-1'"),
        ("0\n0\n0\n", "line 1: 0"),
        ("1\nnan\n1\n1 1\n", "line 2: 'nan'"),
        ("1\n10\n1\n1e999 1\n", "line 4: '1e999'"),
        ("1\n10\n1\n-1 1\n", "line 4: '-1'"),
        ("1\n10\n1\n11 1\n", "line 4: 11 is more than 10"),
        ("1\n10\n1\n1 1.5\n", "line 4: '1.5'"),
        ("1\n10\n1\n1 -3\n", "line 4: '-3'"),
        ("1\n10\n1\n1 9999999999\n", "line 4: 9999999999"),
    ],
)
def test_nonsense_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^x: ") as refused:
        parse(text, "some", "x")
    assert said in str(refused.value)


def test_items_of_nothing_and_of_everything_are_packed() -> None:
    for text, bins in (
        ("1\n10\n0\n", 0),
        ("1\n10\n1\n0 4\n", 1),
        ("2\n10 0\n2\n10 0 3\n0 0 5\n", 3),
        ("1\n10\n1\n3 0\n", 0),
        ("1\n0.3\n2\n0.1 3\n0.1 3\n", 2),
    ):
        problem = parse(text, "some", "x").problem()
        answer = pack(problem, seconds=2)
        assert check(problem, answer) == [] and answer.complete, text
        assert answer.hosts == bins and answer.proven, text
