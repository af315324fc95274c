"""Bins over the optimum on public instances of vector bin packing, beside the best quick heuristic on the same."""

from __future__ import annotations

import csv
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contest import Sizes, progress
from bench.figures import Figure, Goal
from bench.statistics import quantile
from bench.vbp import Instance, collections
from bench.vectors import made
from bulkhead.advise.packing import check, pack, quick

GOALS = {"panigrahy": 1.005, "new": 1.03}
"""Collection -> mean of bins / optimum over the instances whose optimum is known."""
OPTIONS = (
    "vbp",
    "packing_seconds",
    "packing_every",
    "packing_classes",
    "packing_known",
    "packing_made",
    "packing_cpu",
)
STRIDE = 30
"""Instances of one kind that follow one another, as public collections have them."""
DATA = Path(__file__).resolve().parents[3] / "shared/data/vbp"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one instance."""

    instance: Instance
    bins: int
    bound: int
    quick: int
    seconds: float
    """By the clock on the wall, with making a problem of it and the check."""
    cpu: float
    """Seconds of the processor for the same."""
    cut: bool

    @property
    def ratio(self) -> float:
        """Bins over the optimum, where it is known or was proven."""
        return self.bins / (self.instance.optimum or self.bound)


def measure(sizes: Sizes, output: Path) -> Figure:
    """One after the other on one core. Raises ValueError for a directory without instances."""
    figure = Figure(
        "packing",
        "Packing of vectors",
        f"{'Made' if sizes.packing_made else 'Public'} instances, at most {sizes.packing_seconds:g} s "
        f"{'of the processor ' if sizes.packing_cpu else ''}each on one core; bins over the optimum where it is known. "
        "Each answer is looked at by the checker. Quick: the best of first fit, best fit and host by host with several "
        "weights.",
    )
    chosen = [
        each
        for each in (made() if sizes.packing_made else collections(sizes.vbp or DATA))
        if not sizes.packing_classes
        or {each.collection, f"{each.collection}/{each.group}"} & set(sizes.packing_classes)
    ]
    if sizes.packing_known:
        chosen = [each for each in chosen if each.optimum]
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        outcomes = _all(_mixed(chosen[:: sizes.packing_every]), sizes, output)
    finally:
        os.sched_setaffinity(0, cores)
    _report(figure, outcomes)
    return figure


def _mixed(chosen: Sequence[Instance]) -> list[Instance]:
    """In an order in which the first of them are of all classes: what is there when a run is interrupted says something
    of the whole."""
    return [each for first in range(STRIDE) for each in chosen[first::STRIDE]]


def _all(chosen: Sequence[Instance], sizes: Sizes, output: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for number, instance in enumerate(chosen):
        progress("packing", number, len(chosen))
        outcomes.append(_one(instance, sizes))
        _write(outcomes, output)
    return outcomes


def _report(figure: Figure, outcomes: Sequence[Outcome]) -> None:
    """Series, goals, and a table of classes."""
    figure.notes.append("\n".join(_table(outcomes)))
    figure.notes.append("Every instance: [instances.csv](instances.csv).")
    for collection, some in _grouped(outcomes, lambda one: one.instance.collection):
        known = [one for one in some if one.instance.optimum]
        figure.add("bulkhead", f"{collection}: bins / optimum", [one.ratio for one in known], unit="x")
        figure.add("bulkhead", f"{collection}: seconds", [one.seconds for one in some], unit="s")
        if collection in GOALS and known:
            mean = sum(one.ratio for one in known) / len(known)
            text = f"mean of bins / optimum of {collection} ({len(known)} instances)"
            figure.goals.append(Goal(text, GOALS[collection], "x", mean, f"{mean:.4f} x"))


def _one(instance: Instance, sizes: Sizes) -> Outcome:
    began, spent = time.monotonic(), time.process_time()
    problem = instance.problem()
    clock = time.process_time if sizes.packing_cpu else time.monotonic
    answer = pack(problem, seconds=sizes.packing_seconds, clock=clock)
    seconds, cpu = time.monotonic() - began, time.process_time() - spent
    simple = quick(problem)
    for each in (answer, simple):
        wrong = check(problem, each)
        if wrong or not each.complete:
            raise ValueError(f"{instance.collection}/{instance.name}: {'; '.join(wrong) or 'items are left over'}")
    return Outcome(instance, answer.hosts, round(answer.bound), simple.hosts, seconds, cpu, answer.cut)


def _grouped(outcomes: Sequence[Outcome], key: Callable[[Outcome], str]) -> Iterator[tuple[str, list[Outcome]]]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        groups[key(one)].append(one)
    yield from sorted(groups.items())


def _table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield (
        "| class | instances | optimum known | mean | median | worst | quick, mean | best of its authors, mean "
        "| bins / bound, all | proven | worse than quick | time median | p99 | longest | of the processor, mean "
        "| cut by the clock |"
    )
    yield f"|{'---|' * 16}"
    for collection, some in _grouped(outcomes, lambda one: one.instance.collection):
        for group, few in _grouped(some, lambda one: one.instance.group):
            yield _row(f"{collection}/{group}", few)
        yield _row(f"**{collection}**", some)


def _row(name: str, some: Sequence[Outcome]) -> str:
    known = [one for one in some if one.instance.optimum]
    ratios = [one.ratio for one in known]
    quick_ratios = [one.quick / one.instance.optimum for one in known if one.instance.optimum]
    best = [one.instance.best / one.instance.optimum for one in known if one.instance.optimum and one.instance.best]
    times = [one.seconds for one in some]
    cells = [
        name,
        str(len(some)),
        str(len(known)),
        *(_mean(ratios), f"{quantile(ratios, 0.5):.4f}" if ratios else "", f"{max(ratios):.4f}" if ratios else ""),
        _mean(quick_ratios),
        _mean(best),
        _mean([one.bins / max(1, one.bound) for one in some]),
        str(sum(one.bins == one.bound for one in some)),
        str(sum(one.bins > one.quick for one in some)),
        *(f"{quantile(times, 0.5):.2f} s", f"{quantile(times, 0.99):.2f} s", f"{max(times):.2f} s"),
        f"{sum(one.cpu for one in some) / len(some):.2f} s",
        str(sum(one.cut for one in some)),
    ]
    return f"| {' | '.join(cells)} |"


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.4f}" if values else ""


def _write(outcomes: Sequence[Outcome], output: Path) -> None:
    """After each instance: what is found is kept, whatever comes of the rest."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / "instances.csv").open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(
            ["instance", "items", "dimensions", "bins", "bound", "optimum", "authors", "quick", "seconds", "cpu", "cut"]
        )
        for one in outcomes:
            given = one.instance
            shape = (len(given.sizes), len(given.capacity))
            known = (given.optimum or "", given.best or "")
            row = (f"{given.collection}/{given.name}", *shape, one.bins, one.bound, *known, one.quick)
            table.writerow([*row, f"{one.seconds:.2f}", f"{one.cpu:.2f}", int(one.cut)])
