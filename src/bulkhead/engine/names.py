"""Names for instances that were given none: an adjective and a part of a ship."""

from __future__ import annotations

import random
from collections.abc import Collection

_ADJECTIVES = """
amber brave brisk calm clear coral dapper deft eager fair fleet frank gentle glad golden hardy hazel humble jolly keen
kind level lively loyal lucid mellow merry mild modest neat nimble noble olive placid plucky polite proud quick quiet
ready ruby sage sharp silver smart snug solid spry stout sunny sure swift tidy trim true vivid warm wise witty
"""
_PARTS = """
anchor ballast beam berth bilge bollard boom bow bowsprit bridge brig buoy cabin capstan cleat compass davit deck
fender funnel galley gangway gunwale halyard hatch hawser helm hold hull jib keel lantern launch locker mast mizzen oar
pennant pier pinnace porthole prow quarterdeck quay raft ratline reef rigging rudder sail schooner sextant sloop spar
stanchion stern tender thwart tiller topsail transom wharf winch yard
"""


def generate_name(taken: Collection[str]) -> str:
    """A name that nobody has. Numbers are added once simple ones are scarce."""
    adjectives, parts = _ADJECTIVES.split(), _PARTS.split()
    for attempt in range(1000):
        # Names are labels, not secrets.
        name = f"{random.choice(adjectives)}-{random.choice(parts)}"  # noqa: S311
        if attempt >= 20:
            name += f"-{random.randrange(10**6)}"  # noqa: S311
        if name not in taken:
            return name
    raise AssertionError("a million names are taken")
