"""What servers draw and cost."""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead.advise.estate import Server
from bulkhead.advise.prices import Prices

YEAR_HOURS = 8766.0


@dataclass(frozen=True, slots=True)
class Draw:
    """A server's power curve: from idle to peak as cpu use goes from nothing to all (Fan, Weber, Barroso, ISCA
    2007)."""

    idle: float
    peak: float

    def watts(self, part: float) -> float:
        """At this part of its cpu."""
        return self.idle + (self.peak - self.idle) * min(1.0, part)


def draw(server: Server, prices: Prices) -> Draw:
    """Its own figures, or the price list's."""
    if server.idle_watts is not None and server.peak_watts is not None:
        return Draw(server.idle_watts, server.peak_watts)
    return Draw(prices.of("idle_watts"), prices.of("peak_watts"))


def kwh_year(watts: float, prices: Prices) -> float:
    """What a mean draw takes from the grid in a year, cooling and all."""
    return watts / 1000 * YEAR_HOURS * prices.of("pue")


def hardware_year(server: Server, prices: Prices) -> float:
    """What it, or its successor, costs in a year."""
    price = prices.of("server") if server.purchase is None else server.purchase
    return price / prices.of("years")


def fixed_year(server: Server, prices: Prices) -> float:
    """What it costs in a year to have it on and idle: hardware, rack, care, power."""
    idle = kwh_year(draw(server, prices).idle, prices) * prices.of("kwh")
    return hardware_year(server, prices) + prices.of("rack") + prices.of("care_server") * prices.of("staff") + idle


def ghz_year(server: Server, prices: Prices) -> float:
    """What a GHz that is busy all year costs in power, beyond idle."""
    curve = draw(server, prices)
    return kwh_year((curve.peak - curve.idle) / server.capacity[0], prices) * prices.of("kwh")
