"""CSV files of servers, and of use over time: what they say, and every problem with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.advise import reading, tables, uses
from bulkhead.advise.reading import read
from bulkhead.advise.troubles import Troubles
from bulkhead.errors import Refused
from tests.unit.advise.estates import GIB, problems_of, write

GOOD = """\
server,cores,ghz,memory,disk,workload,trust,hostile_input,data,cpu_peak,cpu_mean,memory_used,disk_used
# a remark
web1,8,2.5,32G,500G,shop,partner,yes,personal,50%,11%,8G,"100G"

db1,16,2.5,64G,1T,,own,no,secret,4,1.5,40G,300G
db1,,,,,backup,own,,,1,0.1,1G,10G
spare,8,2.5,32G,500G,-,,,,,,,
"""


def test_a_row_is_a_server_with_its_workload(tmp_path: Path) -> None:
    estate = read([write(tmp_path / "estate.csv", GOOD)])
    assert [server.name for server in estate.servers] == ["web1", "db1", "spare"]
    assert [(load.name, load.server) for load in estate.loads] == [("shop", "web1"), ("db1", "db1"), ("backup", "db1")]
    shop = estate.loads[0]
    assert shop.workload.trust == "partner" and shop.workload.hostile_input and shop.data == "personal"
    # Half of 8 cores at 2.5 GHz.
    assert shop.use[:, 0].tolist() == [10.0, 8 * GIB, 100 * GIB, 0.0]
    assert shop.cpu_mean == pytest.approx(0.11 * 20)
    assert shop.source == "estate.csv:3" and estate.servers[1].source == "estate.csv:5"
    assert estate.steps == 1 and "no values over time" in " ".join(estate.notes)


def test_every_problem_is_told_at_once_with_line_and_cell(tmp_path: Path) -> None:
    text = """\
server,cores,ghz,memory,disk,trust,cpu_peak,cpu_mean,memory_used,disk_used
a,eight,2.5,32G,500G,own,1,0.1,1G,1G
b,8,2.5,32X,500G,friend,1,0.1,1G,1G
c,8,2.5,32G,500G,own,1,,1G,1G
a,8,2.5,32G,500G,own,1,0.1,1G,1G
d,8,2.5,,500G,own,1,0.1,1G,1G
e,8,2.5,32G,500G,own,1,0.1,1G,1G,more
"""
    with pytest.raises(Refused) as caught:
        read([write(tmp_path / "bad.csv", text)])
    told = problems_of(caught.value)
    for place, word in (
        ("bad.csv:2:2", "cores"),
        ("bad.csv:3:4", "memory"),
        ("bad.csv:3:6", "trust"),
        ("bad.csv:5:2", "further up"),
        ("bad.csv:6:1", "memory is missing"),
        ("bad.csv:7:11", "11 cells"),
    ):
        assert any(what.startswith(f"{place}:") and word in what for what in told), (place, told)


def test_what_does_not_fit_together_is_told_with_its_place(tmp_path: Path) -> None:
    text = """\
server,cores,ghz,memory,disk,workload,near,apart,cpu_peak,cpu_mean,memory_used,disk_used
a,8,2.5,32G,500G,one,two ghost,two,9,0.1,1G,1G
b,8,2.5,32G,500G,two,,,1,,64G,1G
c,8,2.5,32G,500G,two,,,1,0.1,1G,1G
d,8,2.5,32G,500G,four,,,,,,
"""
    with pytest.raises(Refused) as caught:
        read([write(tmp_path / "odd.csv", text)])
    told = " | ".join(problems_of(caught.value))
    assert "odd.csv:2:7: near of one: 'ghost' is no other workload" in told
    assert "odd.csv:2:7: one is to be both near to two and apart from it" in told
    assert "odd.csv:4:6: workload two is there already: odd.csv:3" in told
    assert "odd.csv:5:1: nothing is told of what four uses" in told


def test_use_beyond_the_server_and_means_that_lack_are_told(tmp_path: Path) -> None:
    text = """\
server,cores,ghz,memory,disk,cpu_peak,cpu_mean,memory_used,disk_used
a,8,2.5,32G,500G,9,0.1,64G,1G
b,8,2.5,32G,500G,120%,,1G,1G
"""
    with pytest.raises(Refused) as caught:
        read([write(tmp_path / "much.csv", text)])
    told = " | ".join(problems_of(caught.value))
    assert "much.csv:2:6: a uses more cpu than a has: 22.5 of 20 GHz" in told
    assert "much.csv:2:8: a uses more memory than a has" in told
    assert "much.csv:3:6: cpu_mean of b is missing" in told


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "the file is empty"),
        ("server,cores,ghz,memory\n", "there is no column disk"),
        ("server,cores,ghz,memory,disk,colour\n", "'colour' is no column"),
        ("server,cores,ghz,memory,disk,disk\n", "there twice"),
        ('server,cores,ghz,memory,disk\n"a,8,2,1G,1G\n', "this is no CSV"),
        ("server,cores,ghz,memory,disk\n", "there is no server in it"),
        (",".join(f"cores{at}" for at in range(300)) + "\n", "names 300 columns"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(Refused, match=word):
        read([write(tmp_path / "none.csv", text)])


def test_text_of_a_file_acts_upon_no_terminal(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        read([write(tmp_path / "evil.csv", "server,cores,ghz,memory,disk,\x1b[2J\n")])
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("owner", ["=1+1", "@SUM(A1)", "+1", "-1", "a\x9b2J", "a\tb"])
def test_an_owner_that_a_spreadsheet_or_a_terminal_would_act_upon(tmp_path: Path, owner: str) -> None:
    text = f"server,cores,ghz,memory,disk,owner\na,8,2,32G,500G,{owner}\n"
    with pytest.raises(Refused, match="owner: "):
        read([write(tmp_path / "e.csv", text)])


def test_a_device_is_no_estate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells no size, and has no end."""
    monkeypatch.setattr(reading, "MOST_BYTES", 1 << 20)
    with pytest.raises(Refused, match="it has more than 1048576 bytes"):
        read(["/dev/zero"])
    with pytest.raises(Refused, match="Is a directory"):
        read([str(tmp_path)])


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    troubles = Troubles()
    tables.read(text, "any.csv", troubles)
    tables.read("server,cores,ghz,memory,disk,workload\n" + text, "any.csv", troubles)
    uses.read("time,workload,cpu,memory,disk\n" + text, "any.csv", troubles)


# --- use over time

USE = "time,workload,cpu,memory,disk,network\n"


def series(text: str) -> tuple[uses.Uses | None, Troubles]:
    troubles = Troubles()
    return uses.read(USE + text, "use.csv", troubles), troubles


def test_series_over_one_common_time() -> None:
    rows = "".join(
        f"2026-01-05T00:{5 * at:02d}:00Z,{name},{at},{at + 1},7,8\n" for at in (1, 0, 2) for name in ("a", "b")
    )
    found, troubles = series(rows)
    assert not troubles and found is not None
    assert (found.step, found.steps) == (300, 3)
    assert found.series["b"].tolist() == [[0, 1, 2], [1, 2, 3], [7, 7, 7], [8, 8, 8]]


def test_a_gap_is_filled_and_told_and_many_are_refused() -> None:
    rows = "".join(f"{1000 + 60 * at},a,{at},1,1,1\n{1000 + 60 * at},b,{at},1,1,1\n" for at in range(20))
    found, _ = series(rows.replace("1300,a,5,1,1,1\n", ""))
    assert found is not None and found.series["a"][0, 5] == 4 and "1 values were missing" in found.notes[0]
    few = "\n".join(line for line in rows.splitlines() if ",a," not in line or int(line.split(",")[0]) < 1300) + "\n"
    found, troubles = series(few)
    assert found is None
    with pytest.raises(Refused, match="a has only 5 of 20 values"):
        troubles.check()


def test_cells_that_are_no_amounts_are_told_each() -> None:
    _, troubles = series("1000,a,x,1,1,1\n1060,a,1,-1,1,1\nnever,a,1,1,1,1\n1120,a,1,1,nan,1\n1060,b,1\n")
    with pytest.raises(Refused) as caught:
        troubles.check()
    told = " | ".join(problems_of(caught.value))
    assert "use.csv:4:1: time: 'never' is neither" in told and "use.csv:6:1: there are 3 cells" in told
    _, troubles = series("1000,a,x,1,1,1\n1060,a,1,-1,1,1\n1120,a,1,1,nan,1\n")
    with pytest.raises(Refused) as caught:
        troubles.check()
    told = " | ".join(problems_of(caught.value))
    assert "use.csv:2:3: cpu of a: 'x'" in told and "use.csv:3:4: memory of a: '-1'" in told and "use.csv:4:5" in told


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ("0.0001,a,1,1,1,1\n0.0002,a,1,1,1,1\n", "less than a millisecond apart"),
        ("0,a,1,1e300,1,1\n60,a,1,1,1,1\n", "memory of a: '1e300' is no amount"),
        ("0,a,1,1,1,1\n1,a,1,1,1,1\n1e10,a,1,1,1,1\n", "more than can be weighed"),
    ],
)
def test_moments_and_amounts_beyond_all_measure(rows: str, word: str) -> None:
    _, troubles = series(rows)
    with pytest.raises(Refused, match=word):
        troubles.check()


def test_the_same_moment_twice_is_told() -> None:
    _, troubles = series("1000,a,1,1,1,1\n1060,a,1,1,1,1\n1060,a,2,1,1,1\n")
    with pytest.raises(Refused, match=r"use\.csv:4:1: a has this moment already in line 3"):
        troubles.check()


def test_an_estate_with_its_use_in_another_file(tmp_path: Path) -> None:
    facts = "server,cores,ghz,memory,disk\na,8,2,32G,500G\nb,8,2,32G,500G\n"
    rows = USE + "".join(f"{3600 * at},{name},{at},{GIB},{GIB},0\n" for at in range(3) for name in ("a", "c"))
    with pytest.raises(Refused) as caught:
        read([write(tmp_path / "estate.csv", facts)], write(tmp_path / "use.csv", rows))
    told = " | ".join(problems_of(caught.value))
    assert "nothing is told of what b uses" in told and "use of 'c', which is no workload" in told
    good = read([write(tmp_path / "estate.csv", facts)], write(tmp_path / "use.csv", rows.replace(",c,", ",b,")))
    assert good.steps == 3 and good.loads[1].use[0].tolist() == [0.0, 2.0, 4.0]
