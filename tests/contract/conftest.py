"""Each test of the contract runs once for each driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.factories import FACTORIES, Factory


@pytest.fixture(params=list(FACTORIES))
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Factory]:
    """The driver under test with what it needs; everything mounted for it is unmounted afterwards."""
    with ExitStack() as stack:
        yield FACTORIES[request.param](tmp_path, stack)
