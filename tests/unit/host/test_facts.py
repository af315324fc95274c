"""What files of the kernel's tell of a host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.config import Config
from bulkhead.host import facts


@pytest.mark.parametrize(
    ("text", "cores"), [("0", (0,)), ("0-3\n", (0, 1, 2, 3)), ("0-1,4,6-7", (0, 1, 4, 6, 7)), ("\n", ())]
)
def test_cpu_lists(text: str, cores: tuple[int, ...]) -> None:
    """The kernel's list format."""
    assert facts.parse_cpu_list(text) == cores


@given(st.sets(st.integers(0, 4095)))
def test_cpu_lists_round_trip(cores: set[int]) -> None:
    """Any set of cores."""
    ordered = tuple(sorted(cores))
    assert facts.parse_cpu_list(facts.format_cpu_list(ordered)) == ordered


def test_ghz_of_cpuinfo() -> None:
    """The rated speed in the name wins over what the clock is just now; the fastest core counts."""
    intel = "model name\t: Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz\ncpu MHz\t\t: 3300.000\n"
    amd = "model name\t: AMD EPYC\ncpu MHz\t\t: 1500.5\n\nmodel name\t: AMD EPYC\ncpu MHz\t\t: 2596.150\n"
    assert facts.parse_cpuinfo_ghz(intel) == 2.4
    assert facts.parse_cpuinfo_ghz(amd) == 2.596
    assert facts.parse_cpuinfo_ghz("processor\t: 0\nBogoMIPS\t: 100.00\n") is None


def test_meminfo() -> None:
    """Bytes, lines without a unit left out."""
    text = "MemTotal:       16384 kB\nSwapTotal:           8 kB\nActive(anon):       1 kB\nHugePages_Total:       3\n"
    assert facts.parse_meminfo(text) == {"MemTotal": 16 << 20, "SwapTotal": 8192, "Active": 1024}


def test_configuration_wins_over_what_is_found() -> None:
    """host_ghz is for hosts that tell nothing or lie."""
    found = facts.facts(Config())
    assert found.cores == len(found.online) > 0
    assert found.memory > 0
    configured = facts.facts(Config(host_ghz=9.9))
    assert (configured.ghz, configured.ghz_source) == (9.9, "configuration")
    assert configured.memory == found.memory
