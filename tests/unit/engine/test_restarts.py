"""Restart policies: when another start is wanted, and after how long."""

from __future__ import annotations

import pytest

from bulkhead.engine.restarts import FIRST_DELAY, LONGEST_DELAY, delay, wanted
from bulkhead.model import Exit, Instance, Isolation, RestartPolicy, State
from tests.unit.isolation.test_requests import make_spec

FAILED_START = Exit(code=125, error="cannot bind /gone", started=5000.0, ended=5000.0)


def ended(exit_: Exit | None, *, restarts: int = 0, policy: str = "always", retries: int = 0) -> Instance:
    """An instance that began 4000 s before it ended."""
    spec = make_spec(Isolation.CONTAINER).model_copy(
        update={"restart": RestartPolicy.model_validate({"kind": policy, "retries": retries})}
    )
    return Instance(spec=spec, state=State.EXITED, exit=exit_, restarts=restarts, started=1000.0)


@pytest.mark.parametrize(
    ("policy", "retries", "restarts", "expected"),
    [
        ("always", 0, 99, True),
        ("on-failure", 0, 99, True),
        ("on-failure", 3, 2, True),
        ("on-failure", 3, 3, False),
        ("no", 0, 0, False),
    ],
)
def test_a_start_that_failed_is_an_end(policy: str, retries: int, restarts: int, expected: bool) -> None:
    assert wanted(ended(FAILED_START, policy=policy, retries=retries, restarts=restarts)) is expected


def test_starts_that_fail_are_tried_ever_more_slowly() -> None:
    delays = [delay(ended(FAILED_START, restarts=restarts)) for restarts in range(1, 20)]
    assert delays[:3] == [FIRST_DELAY * 2, FIRST_DELAY * 4, FIRST_DELAY * 8]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY


def test_what_ran_for_long_starts_again_at_once() -> None:
    assert delay(ended(Exit(code=1, started=1000.0, ended=5000.0), restarts=9)) == FIRST_DELAY
    assert delay(ended(Exit(code=255), restarts=9)) == LONGEST_DELAY / 60 * 51.2
