"""Charts as SVG that stands in the page: colours come from the page's own style, so that they fit a dark one and
paper too.

Every chart has a title for those who do not see it. Numbers only, and names that are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH = 720
KINDS = ("hardware", "rack", "power", "care", "licences", "loss")
_LABELS = {"loss": "expected loss", "care": "care (work)"}


def all_of(told: Mapping[str, Any], week: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Every chart of a report by its name."""
    return {
        "costs": costs(told),
        "week": load(week, str(told["estate"]["slots"]["name"])),
        "front": front(told["variants"], told["currency"]),
        "payback": payback(told),
    }


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def nice(most: float) -> list[float]:
    """Marks of an axis from 0 to at least `most`, four or five of them."""
    if most <= 0:
        return [0.0, 1.0]
    raw = most / 4
    power = 10.0 ** int(f"{raw:e}".partition("e")[2])
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [step * at for at in range(int(-(-most // step)) + 1)]


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def costs(told: Mapping[str, Any]) -> str:
    """What a year costs before and after, by kind, with the expected loss at the end of each bar."""
    sides = [("before", told["before"]), ("after", told["after"])]
    values = [[*(side["costs"][kind] for kind in KINDS[:-1]), side["loss"]["total"]] for _, side in sides]
    marks = nice(max(sum(row) for row in values))
    left, right, high = 70.0, WIDTH - 20.0, 46.0
    scale = (right - left) / marks[-1]
    parts = [_line(left + mark * scale, 12, left + mark * scale, 138, "grid") for mark in marks]
    parts += [_text(left + mark * scale, 154, _short(mark), "tick", "middle") for mark in marks]
    for at, ((name, side), row) in enumerate(zip(sides, values, strict=True)):
        top, x = 18 + at * 62, left
        parts.append(_text(left - 10, top + high / 2 + 4, name, "label", "end"))
        for kind, value in zip(KINDS, row, strict=True):
            width = max(0.0, value * scale)
            tip = f"{name}: {_LABELS.get(kind, kind)} {value:,.0f}"
            parts.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{high:.1f}" class="c-{kind}">'
                f"<title>{escape(tip)}</title></rect>"
            )
            x += width
        inside = x > right - 60
        parts.append(
            _text(
                x - 8 if inside else x + 8,
                top + high / 2 + 4,
                _short(side["total"]),
                "sum in" if inside else "sum",
                "end" if inside else "start",
            )
        )
    x = left
    for kind in KINDS:
        label = _LABELS.get(kind, kind)
        parts.append(f'<rect x="{x:.1f}" y="170" width="12" height="12" rx="2" class="c-{kind}"/>')
        parts.append(_text(x + 17, 180.5, label, "tick"))
        x += 34 + 7.2 * len(label)
    return _svg(192, f"Costs and expected loss of a year in {told['currency']}", parts)


def load(week: Mapping[str, Sequence[float]], slot: str) -> str:
    """cpu over the slots: used, kept, and what hosts have."""
    used, kept, after = week["used"], week["kept"], week["after"][0]
    marks = nice(max([*used, *kept, after, week["peaks"][0]]))
    left, right, top, bottom = 56.0, WIDTH - 118.0, 12.0, 190.0
    scale = (bottom - top) / marks[-1]
    count = max(1, len(used) - 1)

    def path(values: Sequence[float]) -> str:
        points = list(values) if len(values) > 1 else [values[0], values[0]]
        return " ".join(
            f"{left + (right - left) * at / max(1, len(points) - 1):.1f},{bottom - value * scale:.1f}"
            for at, value in enumerate(points)
        )

    parts = [_line(left, bottom - mark * scale, right, bottom - mark * scale, "grid") for mark in marks]
    parts += [_text(left - 8, bottom - mark * scale + 4, _short(mark), "tick", "end") for mark in marks]
    parts.append(f'<polygon points="{left},{bottom} {path(used)} {right},{bottom}" class="area"/>')
    parts.append(f'<polyline points="{path(kept)}" class="kept"/>')
    for value, kind in ((after, "after"), (week["peaks"][0], "peaks")):
        parts.append(_line(left, bottom - value * scale, right, bottom - value * scale, kind))
    ends = [
        ("used", used[-1], "used"),
        ("kept", kept[-1], "kept"),
        ("hosts after", after, "after"),
        ("sum of peaks", week["peaks"][0], "peaks"),
    ]
    last = bottom + 99
    for label, value, kind in sorted(ends, key=lambda end: end[1]):
        last = min(bottom - value * scale + 4, last - 15)
        parts.append(_text(right + 8, last, label, f"end t-{kind}"))
    if len(used) == 168:
        for day, name in enumerate(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")):
            x = left + (right - left) * (day * 24 + 12) / count
            parts.append(_text(x, bottom + 18, name, "tick", "middle"))
    elif len(used) == 24:
        for hour in range(0, 24, 6):
            parts.append(_text(left + (right - left) * hour / count, bottom + 18, f"{hour}:00", "tick", "middle"))
    parts.append(_text(left, bottom + 36, f"GHz by {slot} (UTC)" if len(used) > 1 else "GHz", "tick"))
    return _svg(bottom + 44, f"Processor use by {slot}", parts)


def front(variants: Sequence[Mapping[str, Any]], currency: str) -> str:
    """Cost against risk: those on the front are joined."""
    across, up = nice(max(each["cost"] for each in variants)), nice(max(each["shared"] for each in variants))
    left, right, top, bottom = 56.0, WIDTH - 120.0, 14.0, 210.0

    def x(value: float) -> float:
        return left + (right - left) * value / across[-1]

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / up[-1]

    parts = [_line(left, y(mark), right, y(mark), "grid") for mark in up]
    parts += [_text(left - 8, y(mark) + 4, _short(mark), "tick", "end") for mark in up]
    parts += [_text(x(mark), bottom + 18, _short(mark), "tick", "middle") for mark in across]
    best = sorted((each for each in variants if each["best"]), key=lambda each: each["cost"])
    if len(best) > 1:
        points = " ".join(f"{x(each['cost']):.1f},{y(each['shared']):.1f}" for each in best)
        parts.append(f'<polyline points="{points}" class="front"/>')
    taken: list[tuple[float, float]] = []
    for each in sorted(variants, key=lambda each: (each["shared"], each["cost"])):
        at_x, at_y = x(each["cost"]), y(each["shared"])
        parts.append(f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="5.5" class="{"on" if each["best"] else "off"}"/>')
        places = [at_y + 4 + shift for shift in (0, 15, -15, 30, -30, 45, -45)]
        label_y = next((place for place in places if _is_free(at_x, place, taken, top)), at_y + 4)
        taken.append((at_x, label_y))
        parts.append(_text(at_x + 10, label_y, each["name"], "label" if each["best"] else "tick"))
    parts.append(
        _text(left, bottom + 36, f"costs of a year ({currency}) across, expected loss of neighbours up", "tick")
    )
    return _svg(bottom + 44, "Cost against risk", parts)


def _is_free(x: float, y: float, taken: Sequence[tuple[float, float]], top: float) -> bool:
    """Whether a label has room there beside others."""
    return y > top and not any(abs(y - other_y) < 14 and abs(x - other_x) < 100 for other_x, other_y in taken)


def payback(told: Mapping[str, Any]) -> str:
    """Money over five years: the cost of the change, then what is saved."""
    once, saved = told["once"]["total"], told["verdict"]["saved"]
    values = [saved * year - once for year in range(6)]
    high, low = max(*values, 0.0), min(*values, 0.0)
    step = nice(max(high, -low))[1]
    marks = [step * at for at in range(int(low // step), int(-(-high // step)) + 1)]
    left, right, top, bottom = 64.0, WIDTH - 20.0, 12.0, 180.0

    def y(value: float) -> float:
        return bottom - (bottom - top) * (value - marks[0]) / ((marks[-1] - marks[0]) or 1)

    parts = [_line(left, y(mark), right, y(mark), "zero" if mark == 0 else "grid") for mark in marks]
    parts += [_text(left - 8, y(mark) + 4, _short(mark), "tick", "end") for mark in marks]
    points = " ".join(f"{left + (right - left) * year / 5:.1f},{y(value):.1f}" for year, value in enumerate(values))
    parts.append(f'<polyline points="{points}" class="kept"/>')
    parts += [
        _text(left + (right - left) * year / 5, bottom + 18, f"{year} y", "tick", "end" if year == 5 else "middle")
        for year in range(6)
    ]
    years = told["verdict"]["payback"]
    if years is not None and years <= 5:
        x = left + (right - left) * years / 5
        parts.append(f'<circle cx="{x:.1f}" cy="{y(0):.1f}" r="5.5" class="on"/>')
        parts.append(_text(x + 10, y(0) + 17, f"paid after {years * 12:.0f} months", "label"))
    return _svg(bottom + 26, f"Saved in all, in {told['currency']}", parts)
