"""Operations as data: what a guest is asked for, and that every operation can be said in words."""

from __future__ import annotations

import pytest

from bulkhead.agent.explain import words
from bulkhead.agent.operations import Attr, Code, Operation, clock, encode, mountdev, netif, simple


def test_a_guests_operations_in_words() -> None:
    assert mountdev("/dev/vdb", "erofs", "l0", attrs=Attr.RDONLY).describe() == "mountdev /dev/vdb erofs l0 1 ''"
    assert clock(1_700_000_000_000_000_005).arguments == (1_700_000_000, 5)
    wanted = "netif eth0 <6 bytes> 10.0.0.1 '' 0 10.0.0.2/24 fd00::2/64"
    made = netif("eth0", mac=b"\xfe\xff\0\0\0\1", addresses=["10.0.0.2/24", "fd00::2/64"], gateway4="10.0.0.1")
    assert made.describe() == wanted
    assert words(made) == "set up the guest's interface eth0"


@pytest.mark.parametrize("code", list(Code))
def test_every_operation_has_words(code: Code) -> None:
    assert words(Operation(code, ("a", "b", "c")))


def test_how_a_guests_operations_travel() -> None:
    assert encode([netif("eth0", mac=b"123456")]) == (
        b"\1\0\0\0" + b"\x3f\0\0\5" + b"\4\0\0\0eth0" + b"\6\0\0\x00123456" + b"\0" * 8 + b"\x08\0\0\0" + b"\0" * 8
    )
    assert encode([simple(Code.POWEROFF)]) == b"\1\0\0\0\x40\0\0\0"
