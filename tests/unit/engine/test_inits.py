"""What --init system makes of a request."""

from __future__ import annotations

import pytest

from bulkhead.engine import inits
from bulkhead.host.cgroups import Layout
from bulkhead.images import ImageConfig
from bulkhead.model import CreateRequest, Isolation

SERVER = ImageConfig(cmd=("nginx",), user="www", stop_signal="SIGQUIT")
SYSTEM = ImageConfig(cmd=("/lib/systemd/systemd",), stop_signal="SIGRTMIN+4")


def ask(**fields: object) -> CreateRequest:
    return CreateRequest.model_validate({"image": "app", "init": "system", **fields})


@pytest.mark.parametrize(
    ("fields", "config", "expected"),
    [
        ({}, ImageConfig(), ("/sbin/init",)),
        ({}, SERVER, ("/sbin/init",)),
        ({}, SYSTEM, ("/lib/systemd/systemd",)),
        ({"command": ("/sbin/runit",)}, SYSTEM, ("/sbin/runit",)),
        ({"entrypoint": ("/x",), "command": ("y",)}, SYSTEM, ("/x", "y")),
        ({"init": "none"}, SERVER, ("nginx",)),
    ],
)
def test_the_command(fields: dict[str, object], config: ImageConfig, expected: tuple[str, ...]) -> None:
    assert inits.command_line(ask(**fields), config) == expected


def test_an_init_is_roots_and_is_stopped_by_its_own_signal() -> None:
    assert (inits.user(ask(), SERVER), inits.user(ask(user="x"), SERVER)) == ("", "x")
    assert inits.user(ask(init="none"), SERVER) == "www"
    assert inits.stop_signal(ask(), SERVER) == "SIGRTMIN+3"
    assert inits.stop_signal(ask(), SYSTEM) == "SIGRTMIN+4"
    assert inits.stop_signal(ask(stop_signal="PWR"), SYSTEM) == "PWR"
    assert inits.stop_signal(ask(init="none"), SERVER) == "SIGQUIT"
    assert inits.stop_signal(ask(init="none"), ImageConfig()) == "SIGTERM"
    assert (inits.stop_seconds(ask()), inits.stop_seconds(ask(init="none"))) == (90, 10)
    assert inits.stop_seconds(ask(stop_timeout=0)) == 0


def test_a_host_without_cgroup_v2_says_so() -> None:
    bare = Layout("v1")
    (problem,) = inits.problems(ask(), Isolation.CONTAINER, bare)
    assert "version 2" in problem.what and problem.hint
    assert inits.problems(ask(), Isolation.VM, bare) == []
    assert inits.problems(ask(init="none"), Isolation.CONTAINER, bare) == []
