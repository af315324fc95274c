"""What is told of a machine's console: the end of it, harmless to print."""

from __future__ import annotations

from pathlib import Path

from bulkhead.isolation.console import last_words


def test_characters_become_lines_again(tmp_path: Path) -> None:
    log = tmp_path / "vmm.log"
    said = "early\nKernel panic: no memory\n\x1b[31mred\n"
    log.write_text("cut off\n" + "".join(f"t stdout {'F ' if char == chr(10) else f'P {char}'}\n" for char in said))
    assert last_words(log) == "early / Kernel panic: no memory / [31mred"


def test_whatever_a_machine_says_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "vmm.log"
    log.write_bytes(b"\xff\0garbage" * 10_000)
    assert last_words(log) == ""
    log.write_text("t stdout F " + "x" * 100_000 + "\n" + "t stdout F " + "y" * 1000 + "\n")
    assert last_words(log) == "y" * 300
    assert last_words(tmp_path / "missing") == ""
