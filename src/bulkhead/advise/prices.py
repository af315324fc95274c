"""What things cost, and how likely they are: every figure with its unit and where it comes from.

A default is either published, with its source, or an assumption, which says so and why: those are the first to be
replaced by one's own (`--price k=v`, `--prices FILE`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from bulkhead.errors import Problem, Refused
from bulkhead.model import Isolation


@dataclass(frozen=True, slots=True)
class Price:
    """One figure."""

    name: str
    value: float
    unit: str
    what: str
    source: str
    least: float = 0.0
    most: float = 1e12


def _defaults() -> tuple[Price, ...]:
    """Those of prices.toml, in its order."""
    tables = tomllib.loads(Path(__file__).with_name("prices.toml").read_text())
    return tuple(Price(name, **fields) for name, fields in tables.items())


DEFAULTS = _defaults()
CURRENCY = "EUR"


class Prices(Mapping[str, Price]):
    """All figures by name; `prices.of("kwh")` is the value."""

    def __init__(self, prices: Sequence[Price] = DEFAULTS) -> None:
        self._prices = {price.name: price for price in prices}

    def __getitem__(self, name: str) -> Price:
        return self._prices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._prices)

    def __len__(self) -> int:
        return len(self._prices)

    def of(self, name: str) -> float:
        """A figure's value."""
        return self._prices[name].value

    def of_level(self, name: str, level: Isolation) -> float:
        """A figure that there is for each wall: "care" of a vm. A unikernel has a virtual machine's."""
        return self.of(f"{name}_{Isolation.VM if level is Isolation.UNIKERNEL else level}")

    def changed(self, given: Sequence[tuple[str, float, str]]) -> Prices:
        """With others: (name, value, where it comes from). Raises Refused with everything that is wrong."""
        found, problems = dict(self._prices), list[Problem]()
        for name, value, source in given:
            price = found.get(name)
            if price is None:
                near = get_close_matches(name, found, 1)
                hint = f"did you mean {near[0]}?" if near else "bulkhead advise prices lists them"
                problems.append(Problem(f"{source}: there is no price {name!r}", hint))
            elif not price.least <= value <= price.most:
                problems.append(Problem(f"{source}: {name} {value:g} is not in {price.least:g} to {price.most:g}"))
            else:
                found[name] = replace(price, value=value, source=source)
        if problems:
            raise Refused(problems)
        made = Prices(tuple(found.values()))
        if made.of("peak_watts") < made.of("idle_watts"):
            raise Refused(f"peak_watts {made.of('peak_watts'):g} is less than idle_watts {made.of('idle_watts'):g}")
        return made


def parse(text: str) -> tuple[str, float, str]:
    """`kwh=0.31` of a command line. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--price {text!r} is not NAME=VALUE")
    try:
        return name.strip(), float(value), f"--price {text}"
    except ValueError:
        raise ValueError(f"--price {text!r}: {value!r} is not a number") from None


def parse_file(text: str, file: str) -> list[tuple[str, float, str]]:
    """TOML: `kwh = 0.31` a line. Raises Refused."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"{file}: {error}") from None
    wrong = [name for name, value in values.items() if isinstance(value, bool) or not isinstance(value, int | float)]
    if wrong:
        raise Refused([Problem(f"{file}: {name} is not a number") for name in wrong])
    lines = text.split("\n")
    found = []
    for name, value in values.items():
        line = next((at for at, each in enumerate(lines, 1) if each.split("=")[0].strip().strip("\"'") == name), 1)
        found.append((name, float(value), f"{file}:{line}"))
    return found
