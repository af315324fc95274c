"""Reading a probe's report, above all one that somebody has tampered with."""

from __future__ import annotations

import json
import random

import pytest

from bulkhead.audit.facts import CALLS, MAX_LINE, MAX_LINES, parse
from tests.unit.audit.lab import STATUS, calls, container, line, probed, report


def test_a_whole_report() -> None:
    look = parse(
        container(
            line("namespace", kind="pid", inode=4026531836),
            line("ids", kind="uid", map=[0, 100000, 65536]),
            line("attempt", name="io_uring", result=38),
            line("families", abi="x86_64", results=[0, 3000, 0, 0, 97, 3000]),
            line("protocols", results=[0, 0, 1, 3000]),
            line("reach", address="10.0.0.2", port=80, answer="open"),
        )
    )
    assert look.complete and not look.rejected
    assert look.namespaces == {"pid": 4026531836} and look.ids["uid"] == (0, 100000, 65536)
    assert look.attempts == {"io_uring": 38} and not look.done("io_uring")
    assert look.passes(1) and not look.passes(2) and not look.passes(99)
    assert look.protocols == ((0, 0), (1, 3000))


@pytest.mark.parametrize(
    "bad",
    [
        b"not json",
        b"{}",
        b'{"fact":"root"}',
        b"[" * 3000,
        line("attempt", name="io_uring", result=-1),
        line("attempt", name="io_uring", result=True),
        line("attempt", name="io_uring", result="0"),
        line("attempt", name="\x1b[2Jio_uring", result=0),
        line("attempt", name="x", result=0, weight=-100),
        line("mount", target="/\x1b]0;x\x07", kind="ext4", root="/", device="8:1", read_only=False, writable=True),
        line("mount", target="/" * 201, kind="ext4", root="/", device="8:1", read_only=False, writable=True),
        line("calls", abi="x86_64", first=CALLS + 1, results=[0]),
        line("calls", abi="x86_64", first=0, results=[0] * (CALLS + 1)),
        line("calls", abi="arm", first=0, results=[0]),
        line("reach", address="evil.example", port=80, answer="open"),
        line("reach", address="10.0.0.2", port=65536, answer="open"),
        line("probe", version=2, machine="x86_64", kernel="6", build="", uid=0, gid=0),
        line("status", **{**STATUS, "bounding": 1 << 64}),
        line("namespace", kind="pid", inode=1 << 40),
        b'{"fact":"processes","seen":' + b"9" * 5000 + b"}",
        line("writable", path="x" * MAX_LINE),
        "\udc80".encode("utf-8", "surrogateescape"),
    ],
)
def test_what_makes_no_sense_is_left_out_and_told(bad: bytes) -> None:
    look = parse(container(bad))
    assert look.rejected == 1 and not look.complete
    assert look.probed and look.calls, "the rest is there"


def test_a_report_that_was_cut_off_is_not_complete() -> None:
    whole = container(line("attempt", name="bpf_map", result=1))
    assert not parse(whole, truncated=True).complete
    for cut in (0, 1, len(whole) // 2, len(whole) - 20):
        assert not parse(whole[:cut]).complete


def test_facts_that_were_added_or_taken_away_are_noticed() -> None:
    facts = [probed(), line("status", **STATUS), calls()]
    end = line("end", facts=3)
    assert parse(b"\n".join([*facts, end])).complete
    assert not parse(b"\n".join([*facts, line("attempt", name="x", result=1), end])).complete
    assert not parse(b"\n".join([*facts[:2], end])).complete
    assert not parse(b"\n".join([*facts, end, line("attempt", name="x", result=0)])).complete
    assert not parse(report(probed())).complete, "without the calls there is no audit"


def test_the_first_word_of_a_kind_counts() -> None:
    look = parse(
        report(
            line("attempt", name="io_uring", result=0),
            line("attempt", name="io_uring", result=38),
            calls(results={1: 14}),
            calls(results={1: 38}),
        )
    )
    assert look.attempts["io_uring"] == 0 and look.calls["x86_64"][1] == 14


def test_a_flood_is_bounded() -> None:
    flood = b"\n".join([line("writable", path="/proc/sys/x")] * (MAX_LINES * 3))
    look = parse(flood)
    assert len(look.writable) <= MAX_LINES and look.rejected and not look.complete


def test_noise_never_raises() -> None:
    noise = random.Random(7)
    whole = container(line("writable", path="/proc/sys/x"), line("neighbour", address="10.0.0.1"))
    for _ in range(400):
        at, length = noise.randrange(len(whole)), noise.randrange(1, 40)
        parse(whole[:at] + noise.randbytes(length) + whole[at + noise.randrange(40) :])


def test_numbers_are_those_of_the_probe() -> None:
    """A report of the largest size that the probe makes fits."""
    mount = line("mount", target="/" + "t" * 199, kind="ext4", root="/" + "r" * 199, device="8:1", read_only=False,
                 writable=True)  # fmt: skip
    look = parse(container(*[mount] * 300, *[line("writable", path="/proc/sys/" + "x" * 190)] * 540))
    assert look.complete, json.dumps(look.rejected)
