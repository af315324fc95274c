"""From requests to specs: what wins over what, and that all problems are told at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.engine.admission import (
    decide_level,
    image_health,
    merge_environment,
    request_problems,
    resolve_spec,
)
from bulkhead.engine.inits import command_line
from bulkhead.errors import Refused
from bulkhead.images import Image, ImageConfig
from bulkhead.model import CreateRequest, Isolation, Mount, Plan, PortMapping, RestartPolicy

PLAN = Plan(memory=512 << 20, cpus=1, disk=1 << 30)


def image(**config: object) -> Image:
    return Image(
        digest="sha256:" + "0" * 64,
        references=("app:latest",),
        architecture="amd64",
        created=None,
        size=1,
        config=ImageConfig(**config),  # type: ignore[arg-type]
        layers=(),
    )


@pytest.mark.parametrize(
    ("request_fields", "config", "expected"),
    [
        ({}, {"entrypoint": ("e",), "cmd": ("c",)}, ("e", "c")),
        ({"command": ("x",)}, {"entrypoint": ("e",), "cmd": ("c",)}, ("e", "x")),
        ({"entrypoint": ("n",)}, {"entrypoint": ("e",), "cmd": ("c",)}, ("n",)),
        ({"entrypoint": ("n",), "command": ("x",)}, {"entrypoint": ("e",), "cmd": ("c",)}, ("n", "x")),
        ({"entrypoint": (), "command": ("x",)}, {"entrypoint": ("e",)}, ("x",)),
    ],
)
def test_command_line_joins_as_docker_does(
    request_fields: dict[str, object], config: dict[str, object], expected: tuple[str, ...]
) -> None:
    request = CreateRequest.model_validate({"image": "app", **request_fields})
    assert command_line(request, image(**config).config) == expected


def test_later_environment_wins_and_keeps_its_place() -> None:
    assert merge_environment(["A=1", "B=2"], ["A=3", "C=", "D=x=y"]) == ("A=3", "B=2", "C=", "D=x=y")


def test_a_kernel_is_not_run_as_an_instance() -> None:
    kernel = replace(image(), kind="kernel")
    with pytest.raises(Refused, match="image app:latest is a kernel, not a root file system") as caught:
        resolve_spec(
            CreateRequest(image="app", command=("true",)), kernel, PLAN, taken_names=[], level=Isolation.CONTAINER
        )
    assert "--kernel app:latest" in caught.value.hint


def test_spec_takes_what_the_image_says() -> None:
    config = {"cmd": ("serve",), "workdir": "/srv", "user": "www", "stop_signal": "SIGQUIT", "labels": {"a": "1"}}
    spec = resolve_spec(
        CreateRequest(image="app", labels={"b": "2"}), image(**config), PLAN, taken_names=[], level=Isolation.CONTAINER
    )
    assert (spec.argv, spec.workdir, spec.user, spec.stop_signal) == (("serve",), "/srv", "www", "SIGQUIT")
    assert spec.labels == {"a": "1", "b": "2"}
    assert spec.network == "default"
    assert spec.hostname == spec.id[:12]


def test_chroots_share_the_hosts_network() -> None:
    request = CreateRequest(image="app", isolation=Isolation.CHROOT, command=("true",))
    assert resolve_spec(request, image(), PLAN, taken_names=[], level=Isolation.CHROOT).network == "host"


def test_all_problems_of_the_command_are_told() -> None:
    with pytest.raises(Refused) as refused:
        resolve_spec(
            CreateRequest(image="app", stop_signal="NONSENSE"), image(), PLAN, taken_names=[], level=Isolation.CONTAINER
        )
    told = [problem.what for problem in refused.value.problems]
    assert len(told) == 2
    assert "app:latest has no command" in told[0]
    assert "NONSENSE" in told[1]


def test_all_problems_of_the_request_are_told(tmp_path: Path) -> None:
    request = CreateRequest(
        image="app",
        isolation=Isolation.VM,
        network="none",
        ports=(PortMapping(host_port=80, port=80),),
        mounts=(
            Mount(kind="bind", source=str(tmp_path / "gone"), target="/a"),
            Mount(kind="volume", source="data", target="/a/"),
        ),
        restart=RestartPolicy(kind="always"),
        auto_remove=True,
    )
    problems = request_problems(request, Isolation.VM, networks={}, drivers=[Isolation.CONTAINER])
    told = " | ".join(problem.what for problem in problems)
    for word in ("vm", "ports", "gone", "/a is mounted twice", "--rm"):
        assert word in told
    assert all(problem.hint for problem in problems)


def test_unknown_network_is_told_with_the_command_that_makes_it() -> None:
    request = CreateRequest(image="app", network="blue")
    problems = request_problems(request, Isolation.CONTAINER, networks={}, drivers=list(Isolation))
    assert [problem.hint for problem in problems] == ["bulkhead network create blue"]


def test_facts_for_auto_are_refused_where_the_level_is_given() -> None:
    request = CreateRequest(image="app", trust="own", hostile_input=True)
    [problem] = request_problems(request, Isolation.CONTAINER, networks={}, drivers=list(Isolation))
    assert problem.what.startswith("--trust, --hostile-input decides nothing")
    assert problem.hint == "use --isolation auto"


def test_auto_takes_what_is_known_of_request_and_image() -> None:
    assert decide_level(CreateRequest(image="app", isolation=Isolation.CHROOT), image()) == (Isolation.CHROOT, None)
    level, choice = decide_level(CreateRequest(image="app", isolation="auto"), image())
    assert (level, choice and choice.trust) == (Isolation.VM, "public")
    own = CreateRequest(image="app", isolation="auto", trust="own")
    assert decide_level(own, image())[0] is Isolation.CONTAINER
    assert decide_level(own, replace(image(), kind="disk"))[0] is Isolation.VM
    assert decide_level(own, None)[0] is Isolation.CONTAINER


def test_health_check_of_an_image() -> None:
    check = image_health(ImageConfig(healthcheck={"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9, "Retries": 2}))
    assert check is not None
    assert (check.command, check.interval, check.retries, check.timeout) == (("/bin/sh", "-c", "true"), 5.0, 2, 30.0)
    assert image_health(ImageConfig(healthcheck={"Test": ["NONE"]})) is None
    assert image_health(ImageConfig(healthcheck=None)) is None
