"""What cannot move, whatever else is asked for."""

from __future__ import annotations

import pytest

from bulkhead.engine.walls import _impossible
from bulkhead.model import Isolation, Plan, Spec, System

SPEC = Spec(
    id="0" * 32,
    name="web",
    image="i",
    image_digest="d",
    isolation=Isolation.CONTAINER,
    plan=Plan(memory=64 << 20, cpus=1, disk=64 << 20),
    argv=("true",),
    hostname="web",
    network="default",
    created=0.0,
)


@pytest.mark.parametrize(
    ("changes", "level", "what"),
    [
        ({}, Isolation.CONTAINER, "web is a container already"),
        ({}, Isolation.UNIKERNEL, "cannot move from container to unikernel"),
        ({"isolation": Isolation.UNIKERNEL}, Isolation.VM, "cannot move from unikernel to vm"),
        ({"isolation": Isolation.VM, "system": System()}, Isolation.CONTAINER, "an unmodified operating system"),
        ({"auto_remove": True}, Isolation.VM, "--rm"),
    ],
)
def test_impossible(changes: dict[str, object], level: Isolation, what: str) -> None:
    (problem,) = _impossible(SPEC.model_copy(update=changes), level)
    assert what in problem.what
    assert problem.hint


@pytest.mark.parametrize("level", [Isolation.CHROOT, Isolation.VM])
def test_possible(level: Isolation) -> None:
    assert _impossible(SPEC, level) == []
