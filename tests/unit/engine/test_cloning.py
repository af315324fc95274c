"""Clones: what they take over, what they may have instead, what they cannot have."""

from __future__ import annotations

import pytest

from bulkhead.engine import cloning
from bulkhead.model import CreateRequest, Isolation, Mount, Plan, PortMapping, RestartPolicy, Snapshot, Spec

PLAN = Plan(memory=128 << 20, cpus=1, disk=64 << 20)
OLD = Spec(
    id="1" * 32,
    name="web",
    image="app",
    image_digest="sha256:" + "2" * 64,
    isolation=Isolation.VM,
    kernel="kernel/own",
    plan=PLAN,
    argv=("serve", "--fast"),
    env=("A=1",),
    user="app",
    hostname="web",
    labels={"a": "b"},
    network="blue",
    ports=(PortMapping(host_port=80, port=80),),
    mounts=(Mount(kind="volume", source="data", target="/data"),),
    restart=RestartPolicy(kind="always"),
    auto_remove=False,
    created=1.0,
)
SNAPSHOT = Snapshot(id="3" * 32, name="s", spec=OLD, state="ready", created=2.0)


def complete(**given: object) -> CreateRequest:
    return cloning.complete(CreateRequest.model_validate({"snapshot": "web/s", **given}), SNAPSHOT)


def problems(*, memory: bool = False, foreign: bool = True, plan: Plan = PLAN, **given: object) -> str:
    request = CreateRequest.model_validate({"snapshot": "web/s", **given})
    snapshot = SNAPSHOT.model_copy(update={"memory": memory})
    level = Isolation(str(given.get("isolation", "vm")))
    found = cloning.problems(request, snapshot, level, plan, disk=PLAN.disk, foreign=foreign)
    assert all(problem.hint for problem in found)
    return "; ".join(problem.what for problem in found)


def test_what_is_not_given_is_as_it_was() -> None:
    made = complete()
    assert (made.image, made.entrypoint, made.command) == (OLD.image_digest, OLD.argv, ())
    for name in ("isolation", "kernel", "env", "user", "labels", "network", "mounts", "restart"):
        assert getattr(made, name) == getattr(OLD, name), name


def test_names_and_ports_are_its_own() -> None:
    made = complete()
    assert (made.name, made.hostname, made.ports, made.auto_remove) == (None, None, (), False)


def test_what_is_given_counts() -> None:
    made = complete(command=["sh"], env=["A=2"], user="root", labels={"c": "d"}, network="none", mounts=[])
    assert (made.entrypoint, made.command, made.env, made.user) == (None, ("sh",), ("A=1", "A=2"), "root")
    assert (made.labels, made.network, made.mounts) == ({"a": "b", "c": "d"}, "none", ())


def test_another_wall_has_its_usual_network_and_no_kernel() -> None:
    made = complete(isolation="container")
    assert (made.isolation, made.network, made.kernel, made.cold) == (Isolation.CONTAINER, None, None, False)


@pytest.mark.parametrize("level", ["chroot", "container"])
def test_the_host_mounts_nothing_that_a_guest_has_written(level: str) -> None:
    assert f"no {level} on this host mounts it" in problems(isolation=level)
    assert problems(isolation=level, foreign=False) == ""


def test_disks_do_not_shrink_and_those_of_guests_do_not_grow() -> None:
    smaller, larger = (PLAN.model_copy(update={"disk": size << 20}) for size in (32, 128))
    assert "cannot shrink" in problems(plan=smaller, foreign=False)
    assert problems(plan=larger, foreign=False) == ""
    assert "does not grow" in problems(plan=larger)


def test_what_goes_on_in_the_middle_cannot_be_another() -> None:
    assert problems(memory=True) == ""
    assert problems(memory=True, name="other", labels={"x": "y"}, user="app", isolation="vm", network="red") == ""
    more = PLAN.model_copy(update={"memory": 256 << 20})
    told = problems(memory=True, plan=more, command=["sh"], user="root", network="none")
    assert told.endswith("it cannot have another user, command, memory, network")
    assert problems(memory=True, plan=more, command=["sh"], cold=True) == ""
