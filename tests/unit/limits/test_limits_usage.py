"""Reading what an instance uses, from directories that stand in for the kernel's."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from bulkhead.host.cgroups import Layout
from bulkhead.limits import Ended, Usage, interpret_reports, read_usage

V1_OOM = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"
V2_OOM = "low 0\nhigh 0\nmax 93\noom 3\noom_kill 0\noom_group_kill 0\n"
V1_CPU = "2000000000 1000000000 \n"
V2_CPU = "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 3\n"


def fill(directory: Path, files: dict[str, str]) -> None:
    """Files of a cgroup."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)


def test_v1(tmp_path: Path) -> None:
    """A tree per controller."""
    layout = Layout("v1", {name: tmp_path / name for name in ("memory", "cpu", "cpuacct", "pids")})
    fill(
        tmp_path / "memory/b/x",
        {
            "memory.usage_in_bytes": "1000\n",
            "memory.max_usage_in_bytes": "1500\n",
            "memory.oom_control": V1_OOM,
            "memory.stat": "cache 1\ninactive_file 9\ntotal_inactive_file 300\n",
        },
    )
    fill(tmp_path / "cpu/b/x", {"cpu.stat": "nr_periods 1\nnr_throttled 1\nthrottled_time 250000000\n"})
    fill(tmp_path / "cpuacct/b/x", {"cpuacct.usage": "3000000000\n"})
    fill(tmp_path / "pids/b/x", {"pids.current": "7\n"})
    assert read_usage(layout, "b", "x") == Usage(1000, 700, 1500, 3.0, 0.25, 7, 2)
    assert read_usage(layout, "b", "y") == Usage()


def test_v2(tmp_path: Path) -> None:
    """One tree; memory.peak is missing before Linux 5.19."""
    layout = Layout("v2", unified=tmp_path, v2=frozenset({"memory", "cpu", "pids"}))
    fill(
        tmp_path / "b/x",
        {
            "memory.current": "1000\n",
            "memory.events": V2_OOM,
            "memory.stat": "anon 5\ninactive_file 100\n",
            "cpu.stat": V2_CPU + "throttled_usec 1000000\n",
            "pids.current": "1\n",
        },
    )
    assert read_usage(layout, "b", "x") == Usage(1000, 900, 1000, 2.5, 1.0, 1, 0)


def test_reports() -> None:
    """In any order, with any of them missing."""
    assert interpret_reports([V1_OOM, "4096\n", V1_CPU]) == Ended(True, 4096, 3.0)
    assert interpret_reports([V2_CPU, V2_OOM]) == Ended(False, None, 2.5)
    assert interpret_reports(["4096\n", "3000000000 \n"]) == Ended(False, 4096, 3.0), "a host with one processor"
    assert interpret_reports([]) == Ended(False)


@example(["²"])
@example(["oom_kill " + "9" * 5000, "9" * 5000, "usage_usec " + "9" * 5000])
@example(["1 " * 5000 + "\n", "1 " + "9" * 5000 + " \n"])
@example(["1000000000 2000000000 "])
@given(st.lists(st.text(max_size=200), max_size=5))
def test_reports_of_any_content_do_no_harm(reports: list[str]) -> None:
    """They come from a file that a crash may have cut."""
    assert interpret_reports(reports).oom in (True, False)
