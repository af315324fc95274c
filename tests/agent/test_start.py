"""START: from a list of operations to a workload, and what it finds around itself."""

from __future__ import annotations

from tests.agent.box import Box


def test_workload_runs_and_its_exit_is_told_and_written(box: Box) -> None:
    code, out, err = box.sh("echo out; echo err >&2; exit 3")
    assert (code, out, err) == (3, b"out\n", b"err\n")
    written = box.agent.exit()
    assert (written["code"], written["signal"], written["reports"]) == (3, 0, [])
    assert written["started"] <= written["ended"]
    assert sorted(box.agent.log()) == [("stderr", "F", "err"), ("stdout", "F", "out")]
