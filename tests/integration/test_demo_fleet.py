"""scripts/demo --fleet tells its story to the end, and leaves nothing, also where it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.abilities import require

pytestmark = [pytest.mark.timeout(900), pytest.mark.minutes(3)]
ROOT = Path(__file__).resolve().parents[2]


def begin(*options: str) -> subprocess.Popen[str]:
    """What scripts/demo --fleet runs once all is installed."""
    require("erofs", "nft", "etcd", "busybox")
    # As in a terminal, Ctrl-C is not ignored; and pytest's own coverage of PYTHONPATH is not enough for a script.
    argv = ["env", "--default-signal=INT", sys.executable, str(ROOT / "scripts" / "demo_fleet.py"), "--fleet", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(argv, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.parametrize("wall", ["container", pytest.param("vm", marks=pytest.mark.thorough)])
def test_it_is_told_to_the_end(wall: str) -> None:
    process = begin("--wall", wall)
    said = process.communicate(timeout=800)[0]
    assert process.returncode == 0, said
    assert "Nothing is left of it." in said
    written = re.findall(r"client +([\d,]+) writes answered in [\d.]+ s, (\w+) (?:of them are|is) lost; (.*?);", said)
    assert len(written) == 2, said
    assert all(int(count.replace(",", "")) > 0 for count, _, _ in written)
    if wall == "vm" and "started anew" not in said:  # it was drained while it ran; else that is told
        assert written[1][1:] == ("none", "its one connection stays up"), said
    seen = re.findall(r"client +([\d,]+) answers in [\d.]+ s, by ([a-z, ]+);", said)
    assert len(seen) == 2 and all(int(count.replace(",", "")) > 0 for count, _ in seen), said
    assert seen[0][1] == "beta" and ", then " in seen[1][1], "what is made anew elsewhere was not seen to answer"
    assert "Lost with its host" in said and "taken over" in said


@pytest.mark.parametrize("after", [pytest.param("cluster init", marks=pytest.mark.thorough), "client"])
def test_interrupted_it_leaves_nothing(after: str) -> None:
    """What is left fails the leak check around this test."""
    process = begin("--wall", "container")
    assert process.stdout
    said = ""
    while after not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=300)[0]
    assert process.returncode == 130, said
    assert "Nothing is left of it." in said
    assert "Traceback" not in said, said
