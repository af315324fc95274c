"""From opened files to steps."""

from __future__ import annotations

from bulkhead.engine.watching import Line, Tracker
from bulkhead.host.fanotify import Opened

PARENTS = {1: (0, 1), 10: (1, 100), 11: (10, 110), 12: (11, 120), 13: (10, 130)}


def told(*opened: tuple[int, str, str], parents: dict[int, tuple[int, int]] | None = None) -> list[Line]:
    """What a tracker tells of (pid, path, how): how is "" for open, "x" for execute, "#" for a script."""
    tracker = Tracker((parents or PARENTS).get)
    return [
        line
        for pid, path, how in opened
        for line in tracker.take(Opened(pid, path, executed=how != "", script=how == "#"))
    ]


def test_a_script_is_one_step_with_its_interpreter() -> None:
    assert told((10, "/it", "#"), (10, "/bin/sh", "x"), (10, "/lib/ld-linux.so.2", "x"), (10, "/lib/libc.so", "")) == [
        {"step": 1, "by": 0, "program": "/it"},
        {"step": 1, "path": "/lib/libc.so"},
    ]


def test_children_are_in_the_step_of_their_parent_until_they_execute() -> None:
    lines = told((10, "/a", "x"), (12, "/file", ""), (11, "/b", "x"), (12, "/other", ""), (12, "/c", "x"))
    assert lines == [
        {"step": 1, "by": 0, "program": "/a"},
        {"step": 1, "path": "/file"},
        {"step": 2, "by": 1, "program": "/b"},
        {"step": 1, "path": "/other"},
        {"step": 3, "by": 1, "program": "/c"},
    ]


def test_a_pid_that_is_used_again_is_another_process() -> None:
    parents = dict(PARENTS)
    tracker = Tracker(parents.get)
    assert list(tracker.take(Opened(11, "/a", executed=True, script=False))) == [{"step": 1, "by": 0, "program": "/a"}]
    parents[11] = (1, 999)
    assert list(tracker.take(Opened(11, "/file", executed=False, script=False))) == []


def test_files_are_told_once_and_those_from_outside_never() -> None:
    assert told((13, "/outside", "")) == []
    lines = told((10, "/a", "x"), (10, "/file", ""), (10, "/file", ""))
    assert lines[1:] == [{"step": 1, "path": "/file"}]
