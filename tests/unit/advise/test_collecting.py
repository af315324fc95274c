"""What a server answers to the probe: read, refused where it is anything else. The script runs in a real shell."""

from __future__ import annotations

import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.advise import collecting, measured
from bulkhead.advise.troubles import Troubles
from bulkhead.errors import HostError
from bulkhead.host.remote import Shell, here

FACTS = "@name\nweb1\n@cpuinfo\nprocessor : 0\nprocessor : 1\ncpu MHz : 2400.000\n@clock\n3200000\n@speed\n-1\n1000\n"
DF = "Filesystem Type 1024-blocks Used Available Capacity Mounted on\n"


def look(uptime: float, busy: int, sent: int) -> str:
    return (
        f"@look\n{uptime} 99.0\ncpu  {busy} 0 0 5000 100 0 0 0 0 0\n"
        "@memory\nMemTotal:  8388608 kB\nMemAvailable: 6291456 kB\n"
        f"@links\n  lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\neth0: 100 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0\n"
        f"@disks\n{DF}/dev/sda1 ext4 104857600 10485760 90000000 11% /\ntmpfs tmpfs 99 9 90 10% /run\n"
        "/dev/sda1 ext4 104857600 10485760 90000000 11% /srv\n"
    )


GOOD = FACTS + look(1000.0, 100, 0) + look(1010.0, 1100, 125_000) + look(1020.5, 1100, 125_000) + "@end\n"


def test_looks_become_use() -> None:
    found = collecting.parse(GOOD.encode(), "user@web1", now=50_000.0)
    assert (found.name, found.cores, found.ghz, found.network) == ("web1", 2, 3.2, 10**9)
    assert found.memory == 8 << 30 and found.disk == 100 << 30
    assert [sample.time for sample in found.samples] == [49_979.5, 49_989.5, 50_000.0]
    entries, uses = measured.entries([found], Troubles())
    assert uses is not None and uses.series["web1"][0, 0] == pytest.approx(1.0, rel=0.05)
    assert uses.series["web1"][1, 0] == 2 << 30 and entries.servers[0].entry.cores == 2


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("", "ends in the middle"),
        ("Welcome to web1!\n" + GOOD, "begins with 'Welcome"),
        (GOOD.removesuffix("@end\n"), "ends in the middle"),
        (GOOD.replace("@name\nweb1", "@name\n../../etc"), "its name is"),
        (GOOD.replace("8388608", "8e9"), "is no number"),
        (GOOD.replace("8388608", "9" * 400), "is no number"),
        (GOOD.replace("cpu  1100", "cpu  -1"), "is no number"),
        (GOOD.replace("@memory\nMemTotal", "@memory\nMemFree"), "lacks something"),
        (GOOD.replace("processor", "core"), "0 cores"),
        (FACTS + look(1.0, 1, 1) + "@end\n", "1 looks"),
        (GOOD.replace("1010.0 99.0", "\x1b[2Jx"), "is no number"),
    ],
)
def test_strange_answers_are_refused(said: str, word: str) -> None:
    with pytest.raises(HostError, match=word) as caught:
        collecting.parse(said.encode(), "there", now=2000.0)
    assert "\x1b" not in str(caught.value)


@given(st.binary(max_size=200), st.integers(0, len(GOOD)))
def test_no_answer_breaks_the_reader(noise: bytes, at: int) -> None:
    data = GOOD.encode()
    for said in (noise, data[:at] + noise + data[at:], data[:at] + noise):
        try:
            collecting.parse(said, "there", now=2000.0)
        except HostError:
            pass


def test_the_script_runs_in_a_posix_shell_and_ends_by_itself() -> None:
    done = subprocess.run(["sh", "-c", collecting.script(2, 0.2)], capture_output=True, check=True, timeout=60)
    parts = done.stdout.decode().split("@look\n")
    assert len(parts) == 3 and done.stdout.endswith(b"@end\n")
    assert len(done.stdout) < collecting.limit(2)


@pytest.mark.parametrize("clock", ["000000400000" + "9" * 4000, "000000400000" + "9" * 5000, "-1", "\u0664" * 7, ""])
def test_a_clock_that_is_none_is_not_believed(clock: str) -> None:
    found = collecting.parse(GOOD.replace("3200000", clock).encode(), "user@web1", now=50_000.0)
    assert found.ghz == 2.4


def test_who_says_nothing_is_not_waited_for() -> None:
    began = time.monotonic()
    with pytest.raises(HostError):
        Shell("there", ("sh", "-c", "sleep 300; true", "x")).run("true", limit=100, timeout=0.5)
    assert time.monotonic() - began < 250


def test_who_says_too_much_is_cut_off() -> None:
    with pytest.raises(HostError, match="more than 1000 bytes"):
        here().run("yes", limit=1000, timeout=60)
