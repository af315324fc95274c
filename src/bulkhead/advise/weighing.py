"""Before and after in money and risk, what the change costs once, and whether it is worth doing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from bulkhead.advise import power, risk
from bulkhead.advise.arranging import Arrangement, downtime
from bulkhead.advise.estate import Estate, Load, Server
from bulkhead.advise.ordering import Step
from bulkhead.advise.prices import Prices
from bulkhead.advise.risk import Loss
from bulkhead.advise.sizing import Sized
from bulkhead.model import Isolation


@dataclass(frozen=True, slots=True)
class Costs:
    """Money in a year."""

    hardware: float = 0.0
    rack: float = 0.0
    power: float = 0.0
    care: float = 0.0
    licences: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.hardware + self.rack + self.power + self.care + self.licences

    def __add__(self, other: Costs) -> Costs:
        return Costs(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True, slots=True)
class HostUse:
    """One server that is on."""

    server: str
    workloads: tuple[str, ...]
    host: bool
    """Whether it holds workloads behind walls; else it stays as it is."""
    cpu_mean: float
    """The part that is busy in the mean."""
    kept: tuple[float, float, float, float]
    """Of each resource, the part that is kept for its workloads in the fullest hour (0 to 1)."""
    kwh: float
    loss: float


@dataclass(frozen=True, slots=True)
class Side:
    """The estate before, or after."""

    hosts: tuple[HostUse, ...]
    kwh: float
    costs: Costs
    loss: Loss

    @property
    def total(self) -> float:
        """Costs and expected loss of a year."""
        return self.costs.total + self.loss.total

    @property
    def cpu_mean(self) -> float:
        """The mean of the hosts'."""
        return sum(host.cpu_mean for host in self.hosts) / max(1, len(self.hosts))


@dataclass(frozen=True, slots=True)
class Once:
    """What the change costs, once."""

    work_hours: float
    work: float
    outages: float
    """The hours that workloads are away, at what an hour of each costs."""
    away_seconds: float
    """Of all of them together."""

    @property
    def total(self) -> float:
        """Both."""
        return self.work + self.outages


def before(estate: Estate, wants: Mapping[str, Sized], prices: Prices) -> Side:
    """As it is: every workload on its server, behind the wall that it has. Those that are still to come are left
    out."""
    on = {name: [(load, load.wall) for load in there] for name, there in estate.by_server().items()}
    return _side(estate, on, wants, prices, frozenset(on) - estate.hosts)


def after(estate: Estate, arrangement: Arrangement, wants: Mapping[str, Sized], prices: Prices) -> Side:
    """As it shall be: servers without workloads are gone."""
    on: dict[str, list[tuple[Load, Isolation | None]]] = defaultdict(list)
    for load in estate.loads:
        level = load.wall if load.name in arrangement.bare else arrangement.levels[load.name]
        on[arrangement.places[load.name]].append((load, level))
    bare = {arrangement.places[name] for name in arrangement.bare}
    return _side(estate, on, wants, prices, frozenset(bare))


def _side(
    estate: Estate,
    on: Mapping[str, Sequence[tuple[Load, Isolation | None]]],
    wants: Mapping[str, Sized],
    prices: Prices,
    bare: frozenset[str],
) -> Side:
    hosts, costs, loss, kwh = [], Costs(), Loss(), 0.0
    for server in estate.servers:
        held = on.get(server.name)
        if held is None:
            continue
        used = _host(server, held, wants, prices, host=server.name not in bare)
        hosts.append(used)
        kwh += used.kwh
        loss += risk.of_host(held, prices)
        costs += _costs(server, held, wants, prices, used.kwh)
    return Side(tuple(hosts), kwh, costs, loss)


def _host(
    server: Server,
    held: Sequence[tuple[Load, Isolation | None]],
    wants: Mapping[str, Sized],
    prices: Prices,
    *,
    host: bool,
) -> HostUse:
    import numpy as np

    from bulkhead.advise.sizing import with_wall

    capacity = server.capacity
    part = sum(load.cpu_mean * _more(level, prices) for load, level in held) / capacity[0]
    total = np.zeros((4, 1))
    for load, level in held:
        total = total + with_wall(wants[load.name], level or Isolation.CONTAINER, prices)
    kept = tuple(float(total[row].max()) / capacity[row] for row in range(4))
    kwh = power.kwh_year(power.draw(server, prices).watts(part), prices)
    names = tuple(sorted(load.name for load, _ in held))
    return HostUse(server.name, names, host, part, kept, kwh, risk.of_host(held, prices).total)  # type: ignore[arg-type]


def _more(level: Isolation | None, prices: Prices) -> float:
    return 1 + prices.of("vm_cpu") if level in (Isolation.VM, Isolation.UNIKERNEL) else 1.0


def _costs(
    server: Server,
    held: Sequence[tuple[Load, Isolation | None]],
    wants: Mapping[str, Sized],
    prices: Prices,
    kwh: float,
) -> Costs:
    care, licences = prices.of("care_server"), 0.0
    for load, level in held:
        # On a bare server it has a whole system to itself, as in a virtual machine, and licences count all its cores.
        care += prices.of_level("care", level or Isolation.VM)
        licences += load.licence_per_core * (server.cores if level is None else -(-wants[load.name].plan.cpus // 1))
    return Costs(
        power.hardware_year(server, prices),
        prices.of("rack"),
        kwh * prices.of("kwh"),
        care * prices.of("staff"),
        licences,
    )


def once(estate: Estate, arrangement: Arrangement, steps: Sequence[Step], prices: Prices) -> Once:
    """By the steps: hours of work, and what it costs that workloads are away."""
    from bulkhead.advise.arranging import SWITCH_SECONDS

    loads = {load.name: load for load in estate.loads}
    hours = outages = away = 0.0
    for step in steps:
        if step.what in ("prepare", "retire"):
            hours += prices.of("prepare_host" if step.what == "prepare" else "retire_server")
            continue
        load, level = loads[step.workload], arrangement.levels[step.workload]
        hours += prices.of_level("move", level)
        if step.what == "create":
            continue
        seconds = downtime(load, level, prices) if step.what == "move" else SWITCH_SECONDS[level]
        away += seconds
        outages += seconds / 3600 * risk.outage_hour(load, prices)
    return Once(hours, hours * prices.of("staff"), outages, away)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it is worth doing."""

    worth: bool
    reason: str
    saved: float
    """In a year: costs, less what more is lost."""
    payback: float | None
    """Years until it has paid; None: never."""


def judge(old: Side, new: Side, change: Once, steps: Sequence[Step], prices: Prices) -> Verdict:
    """By what is saved in a year and how soon it has paid."""
    saved = old.total - new.total
    limit = prices.of("payback")
    if not any(step.what in ("move", "create", "retire") for step in steps):
        return Verdict(False, "no arrangement with fewer or cheaper hosts was found that keeps the rules", 0.0, None)
    if saved <= 0:
        return Verdict(False, f"it would cost {-saved:,.0f} more in a year than it saves", saved, None)
    years = change.total / saved
    if years > limit:
        return Verdict(False, f"it pays after {years:.1f} years, and {limit:g} is the limit", saved, years)
    return Verdict(True, f"it saves {saved:,.0f} in a year and has paid after {_time(years)}", saved, years)


def _time(years: float) -> str:
    return f"{years:.1f} years" if years >= 2 else f"{years * 12:.0f} months"
