"""Sizes, rates and times as people write them. Standard library only: the CLI's hot path uses this too.

Sizes: `k`, `M`, `G`, `T` are powers of 1,024 as in Docker; `kB`, `MB`, `GB` powers of 1,000; `KiB`, `MiB` as
written. Network rates: powers of 1,000, bits per second, as in tc ("100M", "100Mbit"). Times: seconds, or
durations as in Go ("1m30s", "50ms").
"""

from __future__ import annotations

import re
import signal

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kKmMgGtTpP]?)(i?[bB]?)$")
_RATE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(?:bit|bps|bit/s)?$")
_TIME_PART = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
_TIME_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_POWERS = "kmgtp"


def parse_size(text: str) -> int:
    """Bytes of "512M", "5G", "1.5GiB", "100MB". Raises ValueError with the reason."""
    found = _SIZE.match(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a size such as 512M, 5G or 1.5GiB")
    number, letter, suffix = found.groups()
    base = 1000 if letter and suffix in ("B", "b") else 1024
    power = _POWERS.index(letter.lower()) + 1 if letter else 0
    return _times(number, base**power)


def parse_rate(text: str) -> int:
    """Bits per second of "100M", "1Gbit", "64k". Raises ValueError with the reason."""
    found = _RATE.match(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a rate such as 100M or 1Gbit (bits per second)")
    number, letter = found.groups()
    return _times(number, 1000 ** (_POWERS.index(letter.lower()) + 1 if letter else 0))


def _times(number: str, unit: int) -> int:
    """`number` ("1.5") of a unit, exactly, rounded down: a float would lose bytes beyond 2^53."""
    whole, _, part = number.partition(".")
    return int(whole) * unit + int(part or 0) * unit // int(10 ** len(part))


def parse_seconds(text: str) -> float:
    """Seconds of "30", "30s", "50ms", "1m30s", "1.5h": a plain number, or what Go and with it docker take.

    Raises ValueError with the reason.
    """
    text = text.strip()
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text):
        return float(text)
    if not re.fullmatch(f"(?:{_TIME_PART})+", text):
        raise ValueError(f"{text!r} is not a time such as 30s, 50ms, 1m30s or 2h")
    return sum(float(number) * _TIME_UNITS[unit] for number, unit in re.findall(_TIME_PART, text))


def format_size(size: int) -> str:
    """The shortest exact or one-decimal form: 536870912 is "512M"."""
    value = float(size)
    for letter in ("", "k", "M", "G", "T", "P"):
        if value < 1024 or letter == "P":
            return f"{value:.0f}{letter}" if value == int(value) else f"{value:.1f}{letter}"
        value /= 1024
    raise AssertionError("unreachable")


def format_rate(rate: int) -> str:
    """Bits per second in powers of 1,000: 100000000 is "100M"."""
    value = float(rate)
    for letter in ("", "k", "M", "G", "T"):
        if value < 1000 or letter == "T":
            return f"{value:.0f}{letter}" if value == int(value) else f"{value:.1f}{letter}"
        value /= 1000
    raise AssertionError("unreachable")


def parse_signal(text: str) -> int:
    """The number of "TERM", "SIGTERM", "15" or "RTMIN+3". Raises ValueError with the reason."""
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if name.isdecimal() and 1 <= int(name) <= signal.SIGRTMAX:
        return int(name)
    if base == "RTMIN" and (not plus or offset.isdecimal()) and signal.SIGRTMIN + int(offset or 0) <= signal.SIGRTMAX:
        return signal.SIGRTMIN + int(offset or 0)
    if f"SIG{name}" in signal.Signals.__members__:
        return signal.Signals[f"SIG{name}"]
    raise ValueError(f"{text!r} is not a signal such as TERM or 15")
