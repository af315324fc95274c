"""Labs: drivers on this host, without a daemon."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.model import Isolation
from tests.integration.isolation import lab as laboratory
from tests.integration.isolation.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Containers."""
    made = Lab(tmp_path)
    yield made
    made.close()


@pytest.fixture
def chroot_lab(tmp_path: Path) -> Iterator[Lab]:
    """Chroots."""
    made = Lab(tmp_path, Isolation.CHROOT)
    yield made
    made.close()


@pytest.fixture(scope="session", autouse=True)
def _probe() -> Iterator[None]:
    """Compiled before any test looks at what is there."""
    directory = laboratory.probe_binary().parent
    yield
    shutil.rmtree(directory)
