"""Telling who has refused a call."""

from __future__ import annotations

import pytest

from bulkhead.audit.calls import Reached, judge, numbers, surfaces

EPERM, EFAULT, ENOSYS, SIGSYS, SIGSEGV, BLOCKED, UNTRIED = 1, 14, 38, 1031, 1011, 2000, 3000


@pytest.mark.parametrize(
    ("result", "reference", "filtered", "wanted"),
    [
        (0, None, True, Reached.REACHABLE),
        (EFAULT, None, True, Reached.REACHABLE),
        (SIGSEGV, None, True, Reached.REACHABLE),
        (BLOCKED, None, True, Reached.REACHABLE),
        (SIGSYS, 0, True, Reached.FILTERED),
        (ENOSYS, EFAULT, True, Reached.FILTERED),
        (EPERM, EFAULT, True, Reached.FILTERED),
        (EPERM, ENOSYS, True, Reached.FILTERED),
        (ENOSYS, ENOSYS, True, Reached.ABSENT),
        (EPERM, EPERM, True, Reached.GUARDED),
        (ENOSYS, None, False, Reached.ABSENT),
        (EPERM, None, False, Reached.GUARDED),
        (ENOSYS, None, True, Reached.CLOSED),
        (EPERM, UNTRIED, True, Reached.CLOSED),
        (UNTRIED, 0, True, Reached.UNTRIED),
    ],
)
def test_judging(result: int, reference: int | None, filtered: bool, wanted: Reached) -> None:
    assert judge(result, reference, filtered=filtered) is wanted


def test_the_table_of_numbers() -> None:
    table = numbers()
    assert table["x86_64"]["io_uring_setup"] == table["i386"]["io_uring_setup"] == 425
    assert (table["x86_64"]["openat"], table["i386"]["openat"]) == (257, 295)
    assert "socketcall" not in table["x86_64"] and table["i386"]["socketcall"] == 102
    for abi, names in table.items():
        assert len(set(names.values())) == len(names) > 350, abi


def test_surfaces_have_names() -> None:
    (found,) = surfaces({"x86_64": {0: EFAULT, 425: ENOSYS, 62: 3}}, {"x86_64": {425: EFAULT}}, filtered=True)
    assert found.named(Reached.REACHABLE) == ("kill", "read")
    assert found.named(Reached.FILTERED) == ("io_uring_setup",)
    assert found.counts()["reachable"] == 2 and sum(found.counts().values()) == 3
