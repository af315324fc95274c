"""A fleet's records as of one moment, and what is sold on a host as its record has it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from bulkhead.amounts import NOTHING, RESOURCES, Amounts
from bulkhead.errors import HostError
from bulkhead.fleet import Fleet, Host, Place

SELF, ALIVE, SOLD = "self", "alive", "sold"


@dataclass(frozen=True, slots=True)
class Sold:
    """What is sold on a host, and the number of the change that made it so: what a placement is judged by."""

    amounts: Amounts = NOTHING
    places: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """The fleet as of one moment."""

    hosts: tuple[Host, ...]
    alive: frozenset[str]
    """Ids of the hosts whose lease stands."""
    sold: dict[str, Sold]
    places: tuple[Place, ...]
    fleet: Fleet | None = None


def parse_sold(text: str | None) -> Sold:
    """Of a record, or of none."""
    if text is None:
        return Sold()
    try:
        document = json.loads(text)
        amounts = Amounts(**{name: int(document["amounts"].get(name, 0)) for name in RESOURCES})
        return Sold(amounts, int(document["places"]), int(document["version"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HostError(f"a record of what is sold on a host cannot be read: {text[:60]!r}") from error
