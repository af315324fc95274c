"""`pack`: one question in, the best answer within the time out."""

from __future__ import annotations

import math
import time
from itertools import chain

import numpy as np

from bulkhead.advise.packing.bounds import simple_bound
from bulkhead.advise.packing.building import Built, build, places
from bulkhead.advise.packing.checker import check
from bulkhead.advise.packing.columns import Generator, bins_of
from bulkhead.advise.packing.core import Bin, Core, rounded_up, unit_of
from bulkhead.advise.packing.diving import dives
from bulkhead.advise.packing.effort import Clock, Effort
from bulkhead.advise.packing.exact import FEW, SETS, chosen, every_set
from bulkhead.advise.packing.greedy import Packing, chance, pairs, usual
from bulkhead.advise.packing.model import PROVEN, Answer, Problem
from bulkhead.advise.packing.neighbourhood import improve, squeeze
from bulkhead.advise.packing.reducing import loose, safe
from bulkhead.advise.packing.starting import started
from bulkhead.advise.packing.validating import validate

MANY = 3_000
"""Items, beyond which (and over time) the quick packings get more: what comes after them gets through a part alone."""
SMALL = 45
"""Up to so many classes it is tried to list all sets."""
CLASSES = 600
KINDS = 12
"""Up to so many the linear program is of the whole; beyond, of blocks."""


def pack(problem: Problem, *, seconds: float = 10.0, seed: int = 0, clock: Clock = time.monotonic) -> Answer:
    """The cheapest complete answer that is found within about `seconds` on one core.

    The same problem, seconds and seed give the same answer, unless `cut` says that the `clock` ended the search. Where
    no complete answer is found, the one with the fewest items that are unplaced. Raises Refused with every problem of
    the input.
    """
    began = clock()
    effort = Effort.of(seconds, clock)
    validate(problem)
    built = build(problem)
    search = Search(problem, built, effort, seed)
    search.run()
    answer = search.answer(clock() - began)
    wrong = check(problem, answer)
    if wrong:
        raise AssertionError("an answer that is wrong: " + "; ".join(wrong[:5]))
    return answer


def quick(problem: Problem) -> Answer:
    """The best of the usual heuristics, without anything by chance and without improvement: what others do, to compare
    with."""
    began = time.monotonic()
    validate(problem)
    search = Search(problem, build(problem), Effort.of(3600.0), 0)
    search.bound = simple_bound(search.core)
    for packing in usual(search.core, search.effort):
        search.offer(packing)
    return search.answer(time.monotonic() - began)


class Search:
    """The steps of one search, and the best answer so far."""

    def __init__(self, problem: Problem, built: Built, effort: Effort, seed: int) -> None:
        self.problem, self.built, self.effort = problem, built, effort
        self.rng = np.random.default_rng(seed)
        self.core = built.core
        self.best = Packing(
            [], tuple(np.repeat(np.arange(len(self.core.count)), self.core.count).tolist()), 0.0, "nothing"
        )
        self.bound = 0.0

    def run(self) -> None:
        """From quick to thorough; ends early where the answer is proven."""
        core = self.core
        if core.items == 0:
            return
        self.bound = simple_bound(core)
        self.offer(started(self.problem, self.built))
        narrow = safe(core, len(self.problem.resources), self.problem.steps)
        seen: list[Bin] = []
        share = 0.12 if core.items <= MANY and narrow is core else 0.4
        # What is quick is made whole, however large: the answer is to be no worse than any of it.
        some = pairs(core, self.effort.part(0.3)), usual(core, self.effort.part(0.8))
        for packing in chain(*some, chance(core, self.rng, self.effort.part(share), 24)):
            self.offer(packing)
            seen += packing.bins
            if self.done:
                return
        if len(core.count) <= SMALL and self.finish(FEW):
            return
        whole = len(core.count) <= CLASSES and len(core.cost) <= KINDS
        if narrow is not core:
            effort = self.effort.part(0.1)
            for packing in chain(pairs(narrow, effort), usual(narrow, effort), chance(narrow, self.rng, effort, 24)):
                self.offer(packing)
            self.bounded(loose(core), self.effort.part(0.25 if whole else 0.1))
        self.squeezed()
        if whole and not self.done:
            self.solve(narrow, seen)
            if not self.done and len(core.count) <= SMALL:
                self.finish(SETS)
        if not self.done and not self.best.left:
            improve(narrow, self.best.bins, self.rng, self.effort.part(0.9), found=self._better, goal=self.bound)
        self.squeezed()

    def squeezed(self) -> None:
        """Hosts emptied onto others, as long as that goes."""
        for _ in range(3):
            if self.done or self.best.left or self.effort.over():
                return
            before = self.best.cost
            bins = squeeze(self.core, self.best.bins, self.effort)
            self.offer(Packing(bins, (), self.core.price(bins), "squeezed"))
            if self.best.cost >= before:
                return

    def _better(self, bins: list[Bin]) -> None:
        self.offer(Packing(bins, (), self.core.price(bins), "blocks"))

    @property
    def done(self) -> bool:
        """Nothing better is there."""
        return not self.best.left and self.best.cost <= self.bound * (1 + PROVEN) + 1e-12

    def offer(self, packing: Packing | None) -> None:
        """Keep it if it is better."""
        if packing is not None and (packing.key < self.best.key or not (self.best.bins or self.best.left)):
            self.best = packing

    def solve(self, core: Core, seen: list[Bin]) -> None:
        """Columns and dives of the whole."""
        generator = Generator(core, self.effort)
        generator.master.add(seen)
        upper = math.inf if self.best.left else self.best.cost
        generator.converge(self.effort.part(0.45), upper, self.bound)
        if core is self.core:
            self.bound = max(self.bound, generator.bound)
        if self.done:
            return
        better = dives(
            generator,
            self.rng,
            upper,
            self.effort.part(0.4 if len(core.count) <= SMALL else 0.8),
            max(self.bound, generator.bound),
        )
        if better is not None:
            self.take(better, "columns")

    def finish(self, most: int) -> bool:
        """All sets at once, if there are `most`; True: the answer is the best there is."""
        core = self.core
        sets = every_set(core, self.effort.part(0.2), most)
        if sets is None:
            return False
        better, bound = chosen(core, sets, self.effort.part(0.5))
        self.bound = max(self.bound, rounded_up(bound, unit_of(core)) if bound < math.inf else bound)
        if better is not None:
            self.take(better, "all sets")
        return self.done

    def take(self, chosen_sets: list[Bin], by: str) -> None:
        """Sets that have every item, some of them twice."""
        bins, left = bins_of(self.core, chosen_sets)
        rest = tuple(np.repeat(np.arange(len(left)), left).tolist())
        self.offer(Packing(bins, rest, self.core.price(bins), by))

    def bounded(self, core: Core, effort: Effort) -> None:
        """A bound by the linear program of columns that are no more than the truth."""
        if len(core.count) > CLASSES or len(core.cost) > KINDS:
            return
        generator = Generator(core, effort)
        generator.converge(effort, math.inf if self.best.left else self.best.cost, self.bound)
        self.bound = max(self.bound, generator.bound)

    def answer(self, seconds: float) -> Answer:
        """The best so far, in the problem's words."""
        found = places(self.problem, self.built, self.best.bins)
        left = tuple(item.name for item in self.problem.items if item.name not in found)
        bound = self.built.spent + self.bound
        cost = self.built.spent + self.best.cost
        return Answer(
            found, left, cost, min(bound, cost) if not left else bound, self.best.by, self.effort.cut, seconds
        )
