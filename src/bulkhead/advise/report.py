"""An advice as a document (what JSON has), and the same as HTML with charts, as Markdown, as lines for a terminal."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from bulkhead.advise import charts
from bulkhead.advise.advising import Advice
from bulkhead.advise.estate import RESOURCES, Load
from bulkhead.advise.prices import CURRENCY
from bulkhead.advise.recommending import Option
from bulkhead.advise.weighing import HostUse, Side
from bulkhead.quantities import format_size

_TEMPLATE = Path(__file__).with_name("report.html")
_MARKDOWN = Path(__file__).with_name("report.md.txt")
MODEL = (
    "own = sum over workloads of taken * breach of its data",
    "neighbour = sum over workloads of taken * escape of its wall * breach of all others on the same host",
    "outage = sum over workloads of failures * repair * outage_hour",
)


def document(advice: Advice) -> dict[str, Any]:
    """All of it as plain data: money in EUR, energy in kWh a year, times in seconds or years."""
    estate = advice.estate
    return {
        "version": 1,
        "estate": {
            "sources": list(estate.sources),
            "servers": len(estate.servers),
            "workloads": len(estate.loads),
            "fleet": bool(estate.hosts),
            "days": estate.seconds / 86400,
            "step": estate.step if estate.steps > 1 else None,
            "slots": {"name": advice.folded.name, "count": advice.folded.count},
        },
        "currency": CURRENCY,
        "verdict": asdict(advice.verdict),
        "before": _side(advice.before),
        "after": _side(advice.after),
        "once": {**asdict(advice.once), "total": advice.once.total},
        "simulation": {**asdict(advice.played), "saved": advice.played.saved},
        "held_out": asdict(advice.held_out) if advice.held_out else None,
        "packing": {"gap": advice.arrangement.gap, "seconds": advice.arrangement.seconds},
        "workloads": [_workload(advice, load) for load in estate.loads],
        "steps": [{**asdict(step), "text": str(step)} for step in advice.steps],
        "variants": [asdict(variant) for variant in advice.variants],
        "risk_model": list(MODEL),
        "prices": [
            {"name": price.name, "value": price.value, "unit": price.unit, "what": price.what, "source": price.source}
            for price in advice.prices.values()
        ],
        "notes": list(advice.notes),
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "hosts": [_host(host) for host in side.hosts],
        "count": len(side.hosts),
        "cpu_mean": side.cpu_mean,
        "kwh": side.kwh,
        "costs": {**asdict(side.costs), "total": side.costs.total},
        "loss": {**asdict(side.loss), "total": side.loss.total},
        "total": side.total,
        "scarcest": RESOURCES[max(range(4), key=lambda row: sum(host.kept[row] for host in side.hosts))],
    }


def _host(host: HostUse) -> dict[str, Any]:
    return {
        "server": host.server,
        "host": host.host,
        "workloads": list(host.workloads),
        "cpu_mean": host.cpu_mean,
        "kept": dict(zip(RESOURCES, host.kept, strict=True)),
        "kwh": host.kwh,
        "loss": host.loss,
    }


def _workload(advice: Advice, load: Load) -> dict[str, Any]:
    size, wall = advice.sizes[load.name], advice.walls[load.name]
    stays = load.name in advice.arrangement.bare
    return {
        "name": load.name,
        "source": load.source,
        "owner": load.owner,
        "data": load.data,
        "server": load.server,
        "host": advice.arrangement.places[load.name],
        "stays_as_it_is": stays,
        "level": wall.level.value,
        "rule": wall.rule.number,
        "reason": wall.reason,
        "options": [_option(option) for option in wall.options],
        "next_best": _option(wall.next_best) if wall.next_best else None,
        "image": load.image,
        "plan": {field.name: getattr(size.plan, field.name) for field in fields(size.plan)},
        "cpu_ghz": {"mean": size.mean, "p95": size.p95, "p99": size.p99, "peak": size.peak},
        "seasonal": size.seasonal,
    }


def _option(option: Option) -> dict[str, Any]:
    return {"level": option.level.value, "allowed": option.allowed, "cost": option.cost, "loss": option.loss}


def html(advice: Advice) -> str:
    """A whole page without scripts, links or anything from elsewhere. All text in it is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= FILTERS
    told = document(advice)
    # Charts escape what they show themselves, and are marked as safe in the template.
    return environment.from_string(_TEMPLATE.read_text()).render(told=told, charts=charts.all_of(told, _week(advice)))


def markdown(advice: Advice) -> str:
    """The same in Markdown."""
    from jinja2 import Environment, StrictUndefined

    # Names cannot hold what Markdown acts upon; other text of files is escaped by `cell`.
    environment = Environment(autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    environment.filters |= {**FILTERS, "cell": _cell}
    return environment.from_string(_MARKDOWN.read_text()).render(told=document(advice))


def lines(advice: Advice) -> list[str]:
    """What a terminal shows: the answer, before and after, and the first steps."""
    old, new, once = advice.before, advice.after, advice.once
    verdict = "worth doing" if advice.verdict.worth else "nothing worth doing"
    rows = [
        ("servers", f"{len(old.hosts)}", f"{len(new.hosts)}"),
        ("mean cpu use", _percent(old.cpu_mean), _percent(new.cpu_mean)),
        ("power, kWh a year", _count(old.kwh), _count(new.kwh)),
        (f"costs, {CURRENCY} a year", _count(old.costs.total), _count(new.costs.total)),
        (f"expected loss, {CURRENCY} a year", _count(old.loss.total), _count(new.loss.total)),
    ]
    walls: dict[str, int] = {}
    for name, wall in advice.walls.items():
        key = "as it is" if name in advice.arrangement.bare else wall.level.value
        walls[key] = walls.get(key, 0) + 1
    played = advice.played
    return [
        f"{verdict}: {advice.verdict.reason}",
        *(f"  {what:<30}{before:>12}  ->{after:>12}" for what, before, after in rows),
        f"  once: {once.work_hours:.0f} h of work, {_count(once.total)} {CURRENCY}",
        f"  walls: {', '.join(f'{count} {name}' for name, count in sorted(walls.items()))}",
        f"  played through {played.steps} steps: {_percent(played.saved)} of the power saved, "
        f"somebody short in {played.short:.3%} of the time",
        *_held_out(advice),
        f"  packing: at most {advice.arrangement.gap:.1%} above the cheapest arrangement",
        *(f"  note: {note}" for note in advice.notes),
    ]


def _held_out(advice: Advice) -> list[str]:
    held = advice.held_out
    if held is None:
        return []
    days = f"{held.checked_days:.3g} days" if held.checked_days > 1 else "day"
    return [
        f"  learned without the last {days}: {held.servers} servers, and somebody short there in {held.short:.3%} of it"
    ]


def _week(advice: Advice) -> dict[str, list[float]]:
    """cpu in GHz by slot: in the mean of all that fell into it, what is kept, and what the hosts have."""
    import numpy as np

    folded, estate = advice.folded, advice.estate
    count = np.maximum(np.bincount(folded.of, minlength=folded.count), 1)
    used = np.bincount(folded.of, sum(load.use[0].astype(np.float64) for load in estate.loads), folded.count) / count
    kept = sum(size.wants[0] for size in advice.sizes.values())
    peaks = sum(size.wants[0].max() for size in advice.sizes.values())
    servers = {server.name: server.capacity[0] for server in estate.servers}
    return {
        "used": [float(value) for value in used],
        "kept": [float(value) for value in np.broadcast_to(kept, folded.count)],
        "peaks": [float(peaks)],
        "before": [sum(servers.values())],
        "after": [sum(servers[host.server] for host in advice.after.hosts)],
    }


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{value:.1%}" if abs(value) < 0.1 else f"{value:.0%}"


def _figure(value: float) -> str:
    """A price: as many digits as it has."""
    return f"{value:,.6g}" if abs(value) < 1000 else f"{value:,.0f}"


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return "".join(f"\\{char}" if char in "\\|*_`<>[]#" else char for char in text).replace("\n", " ")


FILTERS = {"count": _count, "percent": _percent, "figure": _figure, "size": format_size}
