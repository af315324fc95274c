from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics import quantile, summarize

VALUES = st.lists(st.floats(0, 1e9), min_size=1, max_size=50)


def test_quantiles_interpolate() -> None:
    assert quantile([4, 1, 3, 2], 0.5) == 2.5
    assert quantile([10], 0.99) == 10
    assert quantile(range(101), 0.9) == 90


def test_nothing_has_no_quantiles() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


@given(VALUES)
def test_a_summary_is_ordered(values: list[float]) -> None:
    found = summarize(values)
    assert found.count == len(values)
    assert found.p99 is not None
    assert found.maximum == max(values)
    edges = [found.minimum, found.median, found.p90, found.p99, found.maximum]
    assert all(low <= high * (1 + 1e-9) for low, high in pairwise(edges))
