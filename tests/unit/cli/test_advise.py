"""The command lines of advise and collect: what they refuse, what they write."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from bulkhead.cli.main import main
from bulkhead.errors import Refused


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("advise") / "estate.csv"
    assert main(["advise", "generate", "--servers", "6", "--days", "2", "--step", "3600", "-o", str(path)]) == 0
    return path


def test_from_csv_to_a_report_in_every_format(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [made.with_suffix(suffix) for suffix in (".html", ".md", ".json")]
    words = [word for path in outputs for word in ("-o", str(path))]
    assert main(["advise", str(made), "--seconds", "2", "--fit", "1G,1x1,1G", *words]) == 0
    said = capsys.readouterr().out
    assert "worth doing" in said and "more of 1G,1x1,1G would fit" in said
    assert "<svg" in outputs[0].read_text() and "## Steps" in outputs[1].read_text()
    told = json.loads(outputs[2].read_text())
    assert told["estate"]["servers"] == 6 and told["estate"]["sources"] == ["estate.csv"]
    assert main(["advise", "report", "--format", "json", "--seconds", "2", "--price", "kwh=0.5", str(made)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [price["source"] for price in again["prices"] if price["name"] == "kwh"] == ["--price kwh=0.5"]


def test_use_over_time_goes_out_and_comes_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts, use, whole = tmp_path / "e.csv", tmp_path / "u.csv", tmp_path / "e.json"
    common = ["--servers", "3", "--days", "2", "--step", "7200", "--seed", "5"]
    assert main(["advise", "generate", *common, "-o", str(facts), "--use", str(use)]) == 0
    assert main(["advise", "generate", *common, "-o", str(whole)]) == 0
    from bulkhead.advise.reading import read

    one, two = read([str(facts)], str(use)), read([str(whole)])
    assert one.steps == two.steps == 24 and one.start == two.start
    for a, b in zip(one.loads, two.loads, strict=True):
        assert a.use == pytest.approx(b.use, rel=1e-3) and a.workload == b.workload and a.owner == b.owner
    assert main(["advise", str(facts), "--use", str(use), "--seconds", "1"]) == 0
    assert "worth doing" in capsys.readouterr().out


def test_everything_that_is_wrong_with_a_command_line(made: Path) -> None:
    words = ["advise", str(made), "-o", "report.pdf", "--add", "x", "--fit", "y", "--seconds", "0", "--price", "kwh"]
    with pytest.raises(Refused) as caught:
        main(words)
    told = " | ".join(problem.what for problem in caught.value.problems)
    for word in ("report.pdf", "--add 'x'", "--fit 'y'", "--seconds 0", "--price 'kwh'"):
        assert word in told, told
    with pytest.raises(Refused, match="No such file"):
        main(["advise", str(made) + ".none"])
    with pytest.raises(Refused, match=r"estate\.png"):
        main(["advise", "generate", "-o", "estate.png"])


def test_prices_and_the_schema_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "prices"]) == 0
    assert "Eurostat" in capsys.readouterr().out
    assert main(["advise", "prices", "--format", "json", "--price", "pue=1.1"]) == 0
    assert {price["name"]: price["value"] for price in json.loads(capsys.readouterr().out)}["pue"] == 1.1
    assert main(["advise", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"].startswith("https://json-schema.org/")


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["--for", "5s", "--every", "10s", "x"], "shorter than --every"),
        (["--for", "10d", "x"], "--for|is not a time"),
        (["--every", "0", "x"], "not in 1s to 1h"),
        (["--for", "24h", "--every", "1s", "x"], "more than 20000"),
        (["-oProxyCommand=x"], "TARGET"),
    ],
)
def test_collect_refuses(words: list[str], word: str) -> None:
    with pytest.raises(Refused, match=word):
        main(["collect", *words])


def test_the_tutorials_commands_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each in turn, with fewer days and less time than a reader takes; but for those that need a fleet."""
    text = (Path(__file__).resolve().parents[3] / "docs/tutorial/advice.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(lines) >= 6 and all(line.startswith("bulkhead advise ") for line in lines)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        words = shlex.split(line)[1:]
        if words[1] == "generate":
            words += ["--days", "2", "--step", "3600"]
        elif words[1] != "prices":
            words += ["--seconds", "1"]
        assert main(words) == 0, line
        said = capsys.readouterr()
        if "--fit" in words:
            assert "more of 512M,2x2,5G would fit" in said.out
    page = (tmp_path / "report.html").read_text()
    for heading in re.findall(r"^\d\. \*\*([^*]+?)\.?\*\*", text, re.MULTILINE)[1:4]:
        assert heading.rstrip("?") in page, heading
    facts = (tmp_path / "estate.csv").read_text().splitlines()
    rows = [line.split(",") for line in facts]
    rows[2][rows[0].index("memory")] = "64Q"
    rows[6][rows[0].index("trust")] = "friend"
    (tmp_path / "estate.csv").write_text("\n".join(",".join(row) for row in rows))
    with pytest.raises(Refused) as caught:
        main(["advise", "estate.csv", "--use", "use.csv"])
    for problem in caught.value.problems:
        assert f"error: {problem.what}" in text, problem.what
