"""Netlink attributes and answers: what the kernel sends is taken apart without running off the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bulkhead.host.netlink import Netlink, attribute, attributes, nested, text, u32


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=50)))
def test_attributes_are_read_as_they_are_written(pairs: dict[int, bytes]) -> None:
    packed = b"".join(attribute(kind, data) for kind, data in pairs.items())
    assert len(packed) % 4 == 0
    assert attributes(packed) == pairs


@given(st.binary(max_size=200))
def test_anything_can_be_read(data: bytes) -> None:
    attributes(data)


def test_kinds_of_attributes() -> None:
    assert text(3, "lo") == b"\x07\x00\x03\x00lo\0\0"
    assert u32(4, 1) == b"\x08\x00\x04\x00\x01\x00\x00\x00"
    assert attributes(nested(5, u32(4, 1))) == {5: u32(4, 1)}


def test_a_socket_needs_no_rights() -> None:
    with Netlink() as netlink:
        answers = netlink.dump(18, bytes(16), "list links")
    assert answers
