"""What-if questions as words: workloads that are still to come, of a plan."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count, islice

from bulkhead.advise.estate import Estate, Load
from bulkhead.advise.levels import Workload
from bulkhead.advise.sizing import Plan
from bulkhead.quantities import parse_rate, parse_size

MOST_ADDED = 10_000
_CPUS = re.compile(r"([0-9]+(?:\.[0-9]+)?)x([0-9]+(?:\.[0-9]+)?)(?:ghz)?", re.IGNORECASE)
SHAPE = "MEMORY,CPUSxGHZ,DISK[,BANDWIDTH], such as 512M,2x2,5G"


@dataclass(frozen=True, slots=True)
class Asked:
    """A plan, and its amounts: GHz, bytes, bytes, bits per second, in the order of RESOURCES."""

    text: str
    amounts: tuple[float, float, float, float]
    plan: Plan


@dataclass(frozen=True, slots=True)
class Added:
    """So many workloads of a plan, and the image that they are to be made of ("": it is a question alone)."""

    number: int
    asked: Asked
    image: str = ""


def parse_plan(text: str, flag: str) -> Asked:
    """`512M,2x2,5G`. Raises ValueError."""
    words = [word.strip() for word in text.split(",")]
    if not 3 <= len(words) <= 4:
        raise ValueError(f"{flag} {text!r}: a plan is {SHAPE}")
    found = _CPUS.fullmatch(words[1])
    if not found:
        raise ValueError(f"{flag} {text!r}: {words[1]!r} is not CPUSxGHZ, such as 2x2")
    try:
        memory, disk = parse_size(words[0]), parse_size(words[2])
        network = parse_rate(words[3]) if len(words) == 4 else 0
    except ValueError as error:
        raise ValueError(f"{flag} {text!r}: {error}") from None
    cpu = float(found[1]) * float(found[2])
    if not (cpu > 0 and memory > 0 and disk > 0):
        raise ValueError(f"{flag} {text!r}: a plan has some of everything")
    plan = Plan(float(found[1]), float(found[2]), int(memory), int(disk), int(network))
    return Asked(text, (cpu, float(memory), float(disk), float(network)), plan)


def parse_added(text: str, flag: str) -> Added:
    """`10:512M,2x2,5G` or `10:512M,2x2,5G:IMAGE`. Raises ValueError."""
    number, colon, rest = text.partition(":")
    if not colon or not number.isascii() or not number.isdigit() or not 1 <= int(number[:8]) <= MOST_ADDED:
        raise ValueError(f"{flag} {text!r} is not N:PLAN[:IMAGE], with N from 1 to {MOST_ADDED} and PLAN as {SHAPE}")
    plan, _, image = rest.partition(":")
    return Added(int(number), parse_plan(plan, flag), image)


def loads(estate: Estate, added: Added, group: int) -> list[Load]:
    """As many workloads. They are taken to use all of their plan at every hour: nothing else is known of them."""
    import numpy as np

    asked, taken = added.asked, {load.name for load in estate.loads}
    use = np.repeat(np.array(asked.amounts, dtype=np.float32)[:, None], estate.steps, axis=1)
    source = f"--add {added.number}:{asked.text}"
    free = (name for at in count(1) if (name := f"new{group}-{at}") not in taken)
    return [
        Load(name, "", Workload("own"), source, use, asked.amounts[0], plan=asked.plan, image=added.image)
        for name in islice(free, added.number)
    ]
