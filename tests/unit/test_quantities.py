"""Sizes, rates, times and signals as people write them."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.quantities import format_rate, format_size, parse_rate, parse_seconds, parse_signal, parse_size

SUFFIXES = {"": 1, "k": 1024, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512b", 512),
        ("512M", 512 << 20),
        ("5G", 5 << 30),
        ("5g", 5 << 30),
        ("1.5GiB", 3 << 29),
        ("100MB", 100_000_000),
        ("100MiB", 100 << 20),
        ("100Mi", 100 << 20),
        (" 2 kB ", 2000),
        ("0.1k", 102),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Powers of 1,024, but for kB, MB, GB."""
    assert parse_size(text) == size


@given(st.integers(0, 1 << 60))
def test_any_number_of_bytes_is_exact(size: int) -> None:
    """Also beyond what a float holds."""
    assert parse_size(str(size)) == size


@given(st.integers(0, 1 << 20), st.sampled_from(sorted(SUFFIXES)))
def test_units_multiply(number: int, suffix: str) -> None:
    """Whole numbers of any unit."""
    assert parse_size(f"{number}{suffix}") == number * SUFFIXES[suffix]


@given(st.integers(0, 1 << 60))
def test_shown_sizes_can_be_read_back(size: int) -> None:
    """Exactly for whole units, else within the one decimal that is shown."""
    back = parse_size(format_size(size))
    assert abs(back - size) <= size * 0.05
    if size % (1 << 50) == 0 or size < 1024:
        assert back == size


@given(st.integers(1, 1023), st.sampled_from(["", "k", "M", "G", "T"]))
def test_whole_units_are_shown_whole(number: int, suffix: str) -> None:
    """536870912 is 512M."""
    assert format_size(number * SUFFIXES[suffix]) == f"{number}{suffix}"


@given(st.integers(0, 10**15))
def test_shown_rates_can_be_read_back(rate: int) -> None:
    """Powers of 1,000."""
    assert abs(parse_rate(format_rate(rate)) - rate) <= rate * 0.05


@pytest.mark.parametrize(
    ("text", "rate"), [("100M", 10**8), ("1Gbit", 10**9), ("64k", 64_000), ("9bps", 9), ("1.5Mbit/s", 1_500_000)]
)
def test_rates(text: str, rate: int) -> None:
    """Bits per second, as in tc."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("0.5", 0.5),
        ("30s", 30),
        ("1m30s", 90),
        ("1.5h", 5400),
        ("1h1m1s", 3661),
        ("50ms", 0.05),
        ("1s500ms", 1.5),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("100ns", 1e-7),
        (".5s", 0.5),
        ("2.m", 120),
        ("30s1m", 90),
    ],
)
def test_times(text: str, seconds: float) -> None:
    """With and without units."""
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "M", "-1", "1e9", "5 GG", "0x10", "1.G", ".5G", "5G\n6G", "nan", "inf", "1_000"])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    """With the text in the reason."""
    for parse in (parse_size, parse_rate):
        with pytest.raises(ValueError, match="is not a"):
            parse(text)


@pytest.mark.parametrize("text", ["", "s", "1d", "-1s", "1m30", "abc", "1h 2m", "ms", ".s", "1e3s", "1ms\n2s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With the text in the reason."""
    with pytest.raises(ValueError, match="is not a time"):
        parse_seconds(text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Never another error."""
    for parse in (parse_size, parse_rate, parse_seconds, parse_signal):
        try:
            assert parse(text) >= 0
        except ValueError:
            pass


@pytest.mark.parametrize(
    ("text", "number"), [("TERM", 15), ("sigkill", 9), ("15", 15), ("RTMIN+3", signal.SIGRTMIN + 3)]
)
def test_signals(text: str, number: int) -> None:
    """By name, with or without SIG, or by number."""
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNOTHING", "RTMIN+99", "RTMIN+", "²", "RTMIN+²"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    """With the text in the reason."""
    with pytest.raises(ValueError, match="is not a signal"):
        parse_signal(text)
