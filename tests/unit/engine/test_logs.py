"""Reading logs: the format, tails over files, and following over a rotation."""

from __future__ import annotations

import threading
from pathlib import Path

from bulkhead.engine import logs


def entry(second: int, text: str, *, stream: str = "stdout", tag: str = "F") -> str:
    return f"2026-01-02T03:04:{second:02}.123456789Z {stream} {tag} {text}\n"


def test_entries_are_parsed() -> None:
    line = logs.parse(entry(5, "hello  world ", stream="stderr").encode())
    assert line is not None
    assert (line.stream, line.text, line.partial) == ("stderr", b"hello  world ", False)
    assert line.stamp == "2026-01-02T03:04:05.123456789Z"
    assert abs(line.when - 1767323045.123456789) < 1e-5


def test_what_is_not_an_entry_is_passed_over() -> None:
    for raw in (
        b"\n",
        b"2026 stdout F\n",
        b"2026-01-02T03:04:05Z nowhere F x\n",
        b"no-time stdout F x\n",
        b"\xff\xfe\n",
    ):
        assert logs.parse(raw) is None


def test_tail_counts_whole_lines_over_rotated_files(tmp_path: Path) -> None:
    (tmp_path / "log.2").write_text(entry(1, "one"))
    (tmp_path / "log.1").write_text(entry(2, "two") + entry(3, "thr", tag="P") + entry(3, "ee"))
    (tmp_path / "log").write_text(entry(4, "four"))
    texts = [line.text for line in logs.read(tmp_path, tail=2)]
    assert texts == [b"thr", b"ee", b"four"]
    assert [line.text for line in logs.read(tmp_path)][:2] == [b"one", b"two"]
    assert list(logs.read(tmp_path, tail=0)) == []


def test_since_and_until(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(entry(second, str(second)) for second in range(5)))
    first = next(iter(logs.read(tmp_path)))
    texts = [line.text for line in logs.read(tmp_path, since=first.when + 1, until=first.when + 3)]
    assert texts == [b"1", b"2", b"3"]


def test_an_unfinished_entry_waits_for_its_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(entry(1, "one") + entry(2, "two")[:-3])
    assert [line.text for line in logs.read(tmp_path)] == [b"one"]


def test_following_goes_over_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(entry(1, "one"))
    going = threading.Event()
    seen: list[bytes] = []

    def follow() -> None:
        for line in logs.read(tmp_path, follow=lambda: not going.is_set()):
            seen.append(line.text)
            if line.text == b"one":
                with log.open("a") as file:
                    file.write(entry(2, "two"))
                log.rename(tmp_path / "log.1")
                log.write_text(entry(3, "three"))
            if line.text == b"three":
                going.set()

    thread = threading.Thread(target=follow)
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert seen == [b"one", b"two", b"three"]


def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    assert list(logs.read(tmp_path)) == []
