"""The bench runs from one end to the other, with whatever peers the machine has, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.conftest import DAEMON_NEEDS
from tests.harness.abilities import require

BENCH = Path(__file__).parents[2] / "bench" / "run"


def test_a_quick_run_measures_us_and_tells_who_is_missing(busybox_tar: Path, tmp_path: Path) -> None:
    require(*DAEMON_NEEDS, "unshare", "setpriv")
    scratch, output = tmp_path / "scratch", tmp_path / "results"
    scratch.mkdir()
    peers = ("--peers", "bulkhead,chroot,runc")
    only = ("--only", "starts,exec,memory,import")
    done = subprocess.run(
        [BENCH, "--quick", *only, *peers, "--root", busybox_tar, "--output", output],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(scratch.iterdir()) == []
    assert {path.name for path in output.iterdir()} == {"results.json", "results.md", "plot.svg"}
    figures = {figure["key"]: figure for figure in json.loads((output / "results.json").read_text())["figures"]}
    assert set(figures) == {"starts", "exec", "memory", "import"}
    for figure in figures.values():
        measured = {series["peer"] for series in figure["series"]}
        assert "bulkhead" in measured, (figure["missing"], done.stderr)
    told = {missing["label"]: missing["reason"] for missing in figures["starts"]["missing"]}
    assert told["crun"] == "left out by --peers"
