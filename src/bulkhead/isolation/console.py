"""What a machine said on its serial port, as its log has it."""

from __future__ import annotations

from pathlib import Path

_TAIL = 1 << 15


def last_words(log: Path) -> str:
    """The end of what the machine said, on one line; it comes from a guest, so only what can be printed."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            entries = file.read(_TAIL).decode(errors="replace").splitlines()[1:]
    except OSError:
        return ""
    # A serial port says a character at a time: "time stdout P text", F with the end of a line.
    words = [entry.split(" ", 3) for entry in entries if entry.count(" ") >= 3]
    text = "".join(f"{word[3]} / " if word[2] == "F" else word[3] for word in words)
    return "".join(char for char in text.rstrip(" /") if char.isprintable())[-300:]
