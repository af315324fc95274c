"""Problems by chance, for properties."""

from __future__ import annotations

from hypothesis import strategies as st

from bulkhead.advise.packing import HostType, Item, Place, Problem


@st.composite
def problems(draw: st.DrawFn, most: int = 6, steps: bool = True) -> Problem:
    """A few items, host types that differ, rules, extras, time."""
    resources = draw(st.integers(1, 3))
    width = draw(st.sampled_from((1, 1, 3))) if steps else 1
    number = draw(st.integers(0, most))
    names = [f"i{index}" for index in range(number)]
    types = []
    for index in range(draw(st.integers(1, 3))):
        capacity = tuple(draw(st.integers(8, 20)) for _ in range(resources))
        types.append(HostType(f"t{index}", capacity, draw(st.integers(1, 9)), draw(st.sampled_from((None, 1, 2)))))
    types.append(HostType("any", (20,) * resources, draw(st.integers(3, 12)), draw(st.sampled_from((None, None, 1)))))
    shapes = draw(st.lists(st.tuples(*[st.integers(0, 8)] * (resources * width)), min_size=1, max_size=4))
    items = []
    for name in names:
        flat = draw(st.sampled_from(shapes))
        demand = tuple(flat[row * width : row * width + width] for row in range(resources)) if width > 1 else flat
        extra = {"t0": draw(st.integers(0, 3))} if draw(st.integers(0, 4)) == 0 else {}
        hosts = frozenset({"any", "t0"}) if draw(st.integers(0, 5)) == 0 else None
        items.append(Item(name, demand, hosts, extra))
    pairs = st.sets(st.sampled_from(names), min_size=2, max_size=3).map(frozenset) if number > 1 else st.nothing()
    apart = tuple(draw(st.lists(pairs, max_size=2))) if number > 1 else ()
    together = tuple(draw(st.lists(pairs, max_size=1))) if number > 1 else ()
    if any(len(one & other) > 1 for one in apart for other in together):
        together = ()
    fixed = {"i0": Place("any", 0)} if number and draw(st.integers(0, 4)) == 0 else {}
    return Problem(
        tuple(f"r{row}" for row in range(resources)), tuple(types), tuple(items), apart, together, fixed=fixed
    )
