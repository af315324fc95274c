"""What may be said of an unmodified system, and what may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.engine.admission import resolve_spec
from bulkhead.errors import Refused
from bulkhead.images import Image
from bulkhead.images.config import Disk
from bulkhead.model import CreateRequest, Isolation, Plan
from tests.unit.engine.test_admission import PLAN, image


def disk(*, firmware: str = "bios", size: int = 1 << 30) -> Image:
    return replace(image(), kind="disk", references=("disk/debian:latest",), disk=Disk(Path("/d"), size, firmware))


def request(**fields: object) -> CreateRequest:
    return CreateRequest.model_validate({"image": "disk/debian", "isolation": "vm", **fields})


def test_an_ordinary_one() -> None:
    spec = resolve_spec(request(user_data="#cloud-config\n# secret"), disk(), PLAN, taken_names=[], level=Isolation.VM)
    assert spec.system is not None
    assert spec.system.model_dump() == {"machine": "q35", "disk_bus": "virtio", "nic": "virtio", "firmware": "bios"}
    assert (spec.argv, spec.stop_timeout, spec.isolation) == ((), 90.0, Isolation.VM)
    assert "# secret" not in spec.model_dump_json()


def test_what_is_asked_for_counts() -> None:
    asked = request(machine="pc", disk_bus="ide", nic="e1000", firmware="bios", stop_timeout=5)
    spec = resolve_spec(asked, disk(firmware="uefi"), PLAN, taken_names=[], level=Isolation.VM)
    assert spec.system is not None
    assert list(spec.system.model_dump().values()) == ["pc", "ide", "e1000", "bios"]
    assert spec.stop_timeout == 5
    spec = resolve_spec(request(), disk(firmware="uefi"), PLAN, taken_names=[], level=Isolation.VM)
    assert spec.system and spec.system.firmware == "uefi"


def test_everything_without_a_meaning_is_told_at_once() -> None:
    asked = request(
        isolation="container",
        command=("ls",),
        entrypoint=(),
        env=("A=1",),
        workdir="/",
        user="me",
        mounts=[{"kind": "volume", "source": "v", "target": "/v"}],
        health={"command": ["true"]},
        stop_signal="TERM",
        kernel="k",
        cold=True,
    )
    plan = Plan(memory=512 << 20, cpus=1, disk=1 << 29)
    with pytest.raises(Refused) as refused:
        resolve_spec(asked, disk(), plan, taken_names=[], level=Isolation.CONTAINER)
    assert len(refused.value.problems) == 12
    assert all(problem.hint for problem in refused.value.problems)


def test_a_root_file_system_has_none_of_it() -> None:
    asked = CreateRequest(image="app", command=("x",), user_data="s3cret", machine="pc", nic="e1000", firmware="uefi")
    with pytest.raises(Refused) as refused:
        resolve_spec(asked, image(), PLAN, taken_names=[], level=Isolation.CONTAINER)
    (problem,) = refused.value.problems
    assert "--user-data, --machine, --nic, --firmware" in problem.what
    assert "s3cret" not in str(problem)
    assert "s3cret" not in repr(asked)
