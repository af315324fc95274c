"""Whether a saved machine and a bundle go together, and what a file says that holds no machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.errors import HostError, Refused
from bulkhead.isolation import parking, shapes, vmm
from bulkhead.isolation.base import Bundle
from bulkhead.isolation.guest import Moment, resume_operations
from bulkhead.isolation.shapes import Shape
from bulkhead.model import Plan
from tests.unit.isolation.test_machine import make_bundle


def write_head(path: Path, shape: Shape) -> Path:
    path.write_bytes((parking.MAGIC + shape.encode().encode()).ljust(parking.HEAD, b"\0") + b"stream")
    return path


def resumed(bundle: Bundle, state: Path) -> Bundle:
    assert bundle.boot
    return replace(bundle, boot=replace(bundle.boot, resumed=state))


def test_a_machine_goes_on_with_the_disks_that_its_guest_knows(tmp_path: Path) -> None:
    bundle = make_bundle()
    shape = shapes.shape_of(bundle).model_copy(update={"disks": 8})
    assert shapes.decode(shape.encode()) == shape
    state = write_head(tmp_path / "state", shape)
    fitted = parking.fitted(resumed(bundle, state))
    assert fitted.boot and fitted.boot.slots == 8 and fitted.boot.saved is None
    argv = vmm.command_line(fitted)
    assert argv[argv.index("-incoming") + 1] == "defer"
    assert sum(word.startswith("virtio-blk-pci") for word in argv) == 8
    assert any(word.startswith("memory-backend-ram,id=ram,") for word in argv)
    assert parking.fitted(bundle) is bundle


def test_everything_that_differs_is_told(tmp_path: Path) -> None:
    bundle = make_bundle()
    changes = {"memory": 1 << 30, "vcpus": 7, "disks": 1, "network": False, "hypervisor": "older"}
    other = shapes.shape_of(bundle).model_copy(update=changes)
    with pytest.raises(Refused) as refused:
        parking.fitted(resumed(bundle, write_head(tmp_path / "state", other)))
    assert len(refused.value.problems) == 5
    plan = bundle.spec.plan.model_copy(update={"memory": 1 << 30})
    more = replace(bundle, spec=bundle.spec.model_copy(update={"plan": Plan.model_validate(plan.model_dump())}))
    assert len(shapes.problems(other, more)) == 4


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"x" * 9000,
        parking.MAGIC,
        parking.MAGIC.ljust(parking.HEAD, b"\0"),
        (parking.MAGIC + b"[" * 4000).ljust(parking.HEAD, b"\0"),
        (parking.MAGIC + json.dumps({"memory": 1}).encode()).ljust(parking.HEAD, b"\0"),
        parking.MAGIC.ljust(parking.HEAD, b"\xff"),
    ],
)
def test_a_file_that_holds_no_machine(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "state").write_bytes(head)
    with pytest.raises(HostError):
        parking.read_shape(tmp_path / "state")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be read"):
        parking.read_shape(tmp_path / "state")


def test_what_is_new_to_a_guest() -> None:
    said = [operation.code.name for operation in resume_operations(make_bundle(), Moment(1, bytes(64)))]
    assert said[:2] == ["ENTROPY", "CLOCK"]
    assert said[-1] == "HOSTNAME"
