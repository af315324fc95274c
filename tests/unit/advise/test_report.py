"""Reports: every format says the same, text of files is escaped, every figure has its source, charts are whole."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bulkhead.advise import Workload, charts, report
from bulkhead.advise.advising import Advice, Effort, advise
from bulkhead.advise.prices import Prices
from tests.unit.advise.estates import estate, load, server

GOLDEN = Path(__file__).parents[2] / "golden" / "advise" / "report.md"
HOSTILE = "<script>alert(1)</script>|`*"


@pytest.fixture(scope="module")
def advice() -> Advice:
    loads = [load(f"w{at}", f"s{at}", [1.0 + at % 24 / 24 for at in range(336)], owner=HOSTILE) for at in range(3)]
    whole = estate([server(f"s{at}") for at in range(3)], loads)
    given = Prices().changed([("kwh", 0.33, f"{HOSTILE}:1")])
    return advise(replace(whole, notes=(HOSTILE,)), given, effort=Effort(1.0))


class Tags(HTMLParser):
    """Which there are, and whether all that are opened are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def test_the_page_stands_alone_and_escapes_what_it_shows(advice: Advice) -> None:
    page = report.html(advice)
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and "script" not in tags.seen and tags.addresses == []
    assert tags.seen.count("svg") == 4 and "&lt;script&gt;alert(1)" in page
    for part in ("Worth doing", "prefers-color-scheme: dark", "@media print", "retire s", "expected loss"):
        assert part in page, part


def test_every_price_is_there_with_its_source(advice: Advice) -> None:
    told = report.document(advice)
    assert {price["name"] for price in told["prices"]} == set(Prices())
    assert all(price["source"] for price in told["prices"])
    assert [price["source"] for price in told["prices"] if price["name"] == "kwh"] == [f"{HOSTILE}:1"]
    assert all(each["source"].startswith("test:") and each["reason"] for each in told["workloads"])
    json.dumps(told, allow_nan=False)


def test_the_sums_are_those_of_their_parts(advice: Advice) -> None:
    told = report.document(advice)
    for side in (told["before"], told["after"]):
        costs = dict(side["costs"])
        assert costs.pop("total") == pytest.approx(sum(costs.values()))
        loss = dict(side["loss"])
        assert loss.pop("total") == pytest.approx(sum(loss.values()))
        assert side["kwh"] == pytest.approx(sum(host["kwh"] for host in side["hosts"]))
        assert side["total"] == pytest.approx(side["costs"]["total"] + side["loss"]["total"])
    assert told["verdict"]["saved"] == pytest.approx(told["before"]["total"] - told["after"]["total"])


def test_markdown_says_the_same(advice: Advice) -> None:
    text = report.markdown(advice)
    told = report.document(advice)
    assert f"| servers | {told['before']['count']} | {told['after']['count']} |" in text
    assert "**Worth doing**" in text and "<script>" not in text
    for step in told["steps"]:
        assert step["text"] in text
    for line in text.splitlines():
        if line.startswith("| `"):
            assert line.replace("\\|", "").count("|") == 6, line


def test_a_terminal_gets_the_answer_in_a_few_lines(advice: Advice) -> None:
    lines = report.lines(advice)
    assert lines[0].startswith("worth doing: it saves ")
    assert any(line.split()[:1] == ["servers"] and line.split()[1:] == ["3", "->", "1"] for line in lines)


def test_charts_are_well_formed(advice: Advice) -> None:
    told = report.document(advice)
    pictures = charts.all_of(told, {"used": [1.0], "kept": [2.0], "peaks": [3.0], "before": [9.0], "after": [4.0]})
    for picture in pictures.values():
        tree = ElementTree.fromstring(picture)
        assert tree.tag == "svg" and tree.find("title") is not None
        for each in tree.iter():
            for name in ("x", "y", "width", "height", "cx", "cy"):
                assert float(each.get(name, "0")) >= 0


@pytest.mark.parametrize("most", [0.0, 0.3, 1.0, 7.0, 99.0, 1e6, 123456789.0])
def test_axes_have_round_marks_and_reach(most: float) -> None:
    marks = charts.nice(most)
    assert marks[0] == 0 and marks[-1] >= most * (1 - 1e-9) and 2 <= len(marks) <= 6


def test_golden() -> None:
    """A shop, its database, a printer that nobody may wait for, a stranger's program: to be read as a whole.

    `UPDATE_GOLDEN=1 pytest ...` writes the file anew.
    """
    loads = [
        load("shop", "s1", [2.0, 6.0] * 24, workload=Workload("own", hostile_input=True), data="personal"),
        load("db", "s2", [4.0, 1.0] * 24, memory=9, near=("shop",), data="secret", outage_hour=900.0),
        load("print", "s3", [0.5] * 48, downtime=2.0),
        load("guest", "s4", [1.0, 2.0] * 24, workload=Workload("public"), data="none", apart=("db",)),
        load("legacy", "s5", [3.0, 3.5] * 24, workload=Workload("own", system=True), licence_per_core=100.0),
    ]
    whole = estate([server(f"s{at}") for at in range(1, 7)], loads)
    text = report.markdown(advise(whole, Prices(), effort=Effort(3.0)))
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
