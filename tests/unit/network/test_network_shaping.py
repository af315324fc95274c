"""Token buckets."""

from __future__ import annotations

import struct

import pytest

from bulkhead.host.netlink import attributes
from bulkhead.network.shaping import SMALLEST_BURST, rate_message


@pytest.mark.parametrize(
    ("bandwidth", "rate", "burst"),
    [
        (100_000, 12_500, SMALLEST_BURST),
        (100_000_000, 12_500_000, 62_500),
        (10_000_000_000, 1_250_000_000, 6_250_000),
        (10**13, 1_250_000_000_000, 1 << 31),
    ],
)
def test_a_rate(bandwidth: int, rate: int, burst: int) -> None:
    message = rate_message(7, bandwidth, "it")
    assert struct.unpack_from("=i", message.body, 4) == (7,)
    found = attributes(message.body[20:])
    assert found[1] == b"tbf\0"
    options = attributes(found[2])
    assert struct.unpack("=I", options[6]) == (burst,)
    assert struct.unpack_from("=I", options[1], 8) == (min(rate, 0xFFFFFFFF),)
    assert (4 in options) == (rate > 0xFFFFFFFF)
    limit = struct.unpack_from("=I", options[1], 24)[0]
    assert limit >= min(burst + 1514, 1 << 31)


def test_no_rate() -> None:
    assert "unlimit" in rate_message(7, None, "it").what
