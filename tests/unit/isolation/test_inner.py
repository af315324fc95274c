"""What an instance within a VM is asked for, as data, and what QEMU is told for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from bulkhead import limits
from bulkhead.agent.frames import StartFlag, start_payload
from bulkhead.agent.operations import Code, Operation, describe
from bulkhead.errors import AgentError, Conflict
from bulkhead.host.qmp import Qmp, QmpError
from bulkhead.isolation import guest, nesting, plugging, vmm
from bulkhead.isolation.base import Bundle, Inside, Probe
from bulkhead.isolation.chroot import ChrootDriver
from bulkhead.isolation.container import ContainerDriver
from bulkhead.isolation.inner import InnerDriver, group_of, read_place, write_place
from bulkhead.isolation.plugging import Known, Plugged, Spares
from bulkhead.isolation.root import Namespace
from bulkhead.isolation.vmm import Drive
from bulkhead.model import Isolation, Mount, Plan
from tests.unit.isolation.test_machine import ADDRESS, CONFIG, GOLDEN, ID
from tests.unit.isolation.test_machine import make_bundle as make_machine
from tests.unit.isolation.test_requests import OUTSIDE, make_spec

MACHINE = "fedcba9876543210" * 2
PLAN = Plan(memory=128 << 20, cpus=0.5, disk=1 << 30, iops=500)
INSIDE = Inside(
    machine=MACHINE,
    directory=Path(f"/var/lib/bulkhead/instances/{MACHINE}"),
    pid=7,
    disks=2,
    inner=4,
    disk=Path(f"/var/lib/bulkhead/instances/{ID}/disk.img"),
    layers=(("sha256:" + "a" * 64, Path("/images/base")), ("sha256:" + "b" * 64, Path("/images/top"))),
)


def make_driver(isolation: Isolation = Isolation.CONTAINER) -> InnerDriver:
    kind = ChrootDriver if isolation is Isolation.CHROOT else ContainerDriver
    return InnerDriver(CONFIG, OUTSIDE, level=kind(CONFIG, OUTSIDE), machines=lambda: Probe(works=True))


def make_bundle(isolation: Isolation = Isolation.CONTAINER) -> Bundle:
    spec = make_spec(isolation, plan=PLAN, inside=MACHINE)
    bundle = Bundle(
        directory=Path(f"/var/lib/bulkhead/instances/{ID}"),
        spec=spec,
        limits=limits.inner_program(PLAN, ID, machine=Plan(memory=512 << 20, cpus=2, disk=1 << 30)),
        uid_start=1_000_000_000,
        resolv_conf="nameserver 10.144.0.1\n",
        hosts="127.0.0.1\tlocalhost\n",
        address=None if isolation is Isolation.CHROOT else ADDRESS,
        inside=INSIDE,
    )
    return nesting.placed(bundle, Plugged("/dev/vdc", ("/dev/vdg", "/dev/vdh")))


def in_words(bundle: Bundle) -> str:
    request = make_driver(bundle.spec.isolation).start_request(bundle)
    assert request.guest
    parts = {
        "the guest: prepare": request.guest.prepare,
        "the guest: stage": request.guest.stage,
        "the guest: inside": request.guest.inside,
        "the guest: finish": request.guest.finish,
    }
    return "\n".join(f"# {title}\n{describe(operations)}\n" for title, operations in parts.items())


@pytest.mark.parametrize("isolation", [Isolation.CONTAINER, Isolation.CHROOT])
def test_the_golden_start_within_a_machine(isolation: Isolation) -> None:
    file, made = GOLDEN / f"inner-{isolation}.txt", in_words(make_bundle(isolation))
    if os.environ.get("BULKHEAD_GOLDEN") == "write":
        file.write_text(made)
    assert made == file.read_text()


def test_on_the_host_nothing_is_made() -> None:
    request = make_driver().start_request(make_bundle())
    assert request.flags == StartFlag.GUEST | StartFlag.HOLD
    assert (request.prepare, request.stage, request.inside, request.finish) == ((), (), (), ())
    assert (request.clone_flags, request.unshare_flags, request.netns, request.join) == (0, 0, "", ())
    assert start_payload(request)


def test_the_wall_is_that_of_a_container() -> None:
    """All that happens in the container's own process is what happens on a host."""
    bundle = make_bundle()
    within = make_driver().start_request(bundle).guest
    outside = ContainerDriver(CONFIG, OUTSIDE).within(Path(guest.STAGE)).start_request(bundle)
    assert within
    assert within.inside == outside.inside
    assert (within.clone_flags, within.unshare_flags) == (outside.clone_flags, outside.unshare_flags)
    assert (within.id_base, within.id_count) == (outside.id_base, outside.id_count)
    assert within.clone_flags & Namespace.USER
    assert Code.SECCOMP in {operation.code for operation in within.inside}


def test_every_disk_is_a_device_of_the_guests() -> None:
    request = make_driver().start_request(make_bundle()).guest
    assert request
    attached = {operation.arguments[0] for operation in request.stage if operation.code is Code.ATTACH}
    assert attached == {"l0.dev", "l1.dev", "disk.dev"}
    assert not any("/var/lib/bulkhead" in operation.describe() for operation in request.stage)


def test_without_a_network_there_is_no_interface() -> None:
    bundle = replace(make_bundle(), address=None)
    request = make_driver().start_request(bundle).guest
    assert request
    assert not {Code.MACVLAN, Code.NETIF} & {operation.code for operation in request.stage}


def test_everything_that_is_wrong_is_told() -> None:
    spec = make_spec(
        Isolation.CONTAINER,
        inside=MACHINE,
        network="host",
        init="system",
        mounts=(Mount(kind="volume", source="data", target="/x"), Mount(kind="bind", source="/srv", target="/proc/y")),
        plan=PLAN.model_copy(update={"bandwidth": 10**6, "swap": 1 << 20}),
        architecture="vax",
    )
    problems = make_driver().check(spec)
    told = " ".join(problem.what for problem in problems)
    for words in ("data", "/srv", "network", "bandwidth", "swap", "system", "vax", "/proc/y"):
        assert words in told
    assert all(problem.hint for problem in problems)


def test_a_chroot_within_a_machine_has_the_machines_network() -> None:
    spec = make_spec(Isolation.CHROOT, inside=MACHINE, network="host")
    assert make_driver(Isolation.CHROOT).check(spec) == []


@pytest.mark.parametrize(("number", "name"), [(0, "vda"), (25, "vdz"), (26, "vdaa"), (52, "vdba")])
def test_disks_are_named_as_the_kernel_does(number: int, name: str) -> None:
    assert guest.device(number) == f"/dev/{name}"


def test_spare_disks_come_after_all_others_on_the_bus() -> None:
    bundle = make_machine()
    assert bundle.boot
    words = " ".join(vmm.command_line(replace(bundle, boot=replace(bundle.boot, inner=vmm.MAX_INNER, slots=16))))
    places = re.findall(r"addr=(0x[0-9a-f]+(?:\.\d)?)", words)
    last, first = f"{vmm.FIRST_SLOT + 15:#x}", f"{vmm.FIRST_SPARE:#x}.0"
    assert places.index(last) + 1 == places.index(first)
    assert int(places[-1].split(".")[0], 16) < 0x1F, "the last slot is the chipset's"
    assert len(set(places)) == len(places)
    assert f"max_ports={vmm.MAX_INNER + 2}" in words
    assert words.count('"read-only":true') >= vmm.MAX_INNER * vmm.INNER_LAYERS


# --- what QEMU is told


class Monitor:
    """A QEMU with spare disks; it notes what it is told."""

    def __init__(self, inner: int) -> None:
        self.holds = {number: vmm.spare(number) for number in range(vmm.spare_count(inner))}
        self.nodes: set[str] = set()
        self.ports: list[str] = []
        self.busy = 0
        self.said: list[tuple[str, Any]] = []

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> object:
        given = dict(arguments or {})
        self.said.append((command, given))
        if command == "query-block":
            return [
                {"qdev": f"/machine/peripheral/spare{number}/virtio-backend", "inserted": {"node-name": name}}
                for number, name in self.holds.items()
            ]
        if command == "query-chardev":
            return [{"label": port} for port in self.ports]
        if command == "chardev-remove" and self.busy:
            self.busy -= 1
            raise QmpError("it is busy")
        if command == "chardev-remove":
            self.ports.remove(given["id"])
        if command == "blockdev-add":
            self.nodes.add(given["node-name"])
        elif command == "blockdev-del":
            if given["node-name"] not in self.nodes or given["node-name"] in self.holds.values():
                raise QmpError("no such node, or it is in use")
            self.nodes.remove(given["node-name"])
        elif command == "qom-set":
            self.holds[int(given["path"].rpartition("spare")[2])] = given["value"]
        return {}

    def add_file(self, descriptor: int) -> str:
        assert os.fstat(descriptor)
        return "/dev/fdset/0"


@pytest.fixture
def drives(tmp_path: Path) -> list[Drive]:
    for number in range(6):
        (tmp_path / str(number)).write_bytes(b"\0" * 4096)
    return [Drive(tmp_path / str(number), "", read_only=number % 2 == 1, limited=False) for number in range(6)]


def spares(inner: int) -> tuple[Monitor, Spares]:
    monitor = Monitor(inner)
    return monitor, Spares(cast(Qmp, monitor), inner)


def test_a_disk_that_is_written_gets_one_that_can_be(drives: list[Drive]) -> None:
    _, disks = spares(2)
    assert disks.put("disk-a", drives[0]) == 0
    assert disks.put("layer-a", drives[1]) == 2
    assert disks.put("disk-b", drives[2]) == 1


def test_a_layer_that_is_there_is_not_put_in_twice(drives: list[Drive]) -> None:
    monitor, disks = spares(2)
    assert disks.put("layer-a", drives[1]) == disks.put("layer-a", drives[1])
    assert [command for command, _ in monitor.said].count("blockdev-add") == 1


def test_more_than_it_can_hold_is_refused(drives: list[Drive]) -> None:
    _, disks = spares(1)
    disks.put("disk-a", drives[0])
    with pytest.raises(Conflict, match="as many instances"):
        disks.put("disk-b", drives[2])


def test_what_is_taken_leaves_nothing(drives: list[Drive]) -> None:
    monitor, disks = spares(2)
    before = dict(monitor.holds)
    for name, drive in (("disk-a", drives[0]), ("layer-a", drives[1]), ("layer-b", drives[3])):
        disks.put(name, drive)
    monitor.ports, monitor.busy = ["agent", "port-a", "port-b"], 3
    plugging.sweep(cast(Qmp, monitor), 2, [Known("b", "port-b", ("sha256:b",))])
    assert monitor.ports == ["agent", "port-b"]
    assert set(monitor.holds.values()) & {"disk-a", "layer-a", "layer-b"} == {"layer-b"}
    assert monitor.nodes == {"layer-b"}
    assert ("object-del", {"id": "limits-a"}) in monitor.said
    disks.take(["layer-b"])
    assert (monitor.holds, monitor.nodes) == (before, set())


def test_a_hypervisor_that_tells_nonsense_is_an_error() -> None:
    monitor, disks = spares(1)
    monitor.execute = lambda *_: [{"qdev": "/machine/peripheral/spare0", "inserted": None}]  # type: ignore[method-assign]
    with pytest.raises(AgentError, match="makes no sense"):
        disks.contents()


def test_disks_that_it_does_not_have_are_passed_over() -> None:
    monitor, disks = spares(1)
    monitor.holds[900] = "disk-a"
    assert 900 not in disks.contents()


def test_where_it_is_can_be_read_back(tmp_path: Path) -> None:
    assert read_place(tmp_path) is None
    write_place(tmp_path, INSIDE, "port-1")
    assert read_place(tmp_path) == (MACHINE, 4, "port-1")
    (tmp_path / "inside").write_text("cut")
    assert read_place(tmp_path) is None


def test_names_fit_qemus() -> None:
    digest = "sha256:" + "f" * 64
    for name in (plugging.disk_node(ID), plugging.layer_node(digest), plugging.limits_node(ID)):
        assert len(name) <= 31
        assert name[0].isalpha()


def test_the_limits_are_the_guests() -> None:
    bundle = make_bundle()
    prepared = describe(cast("tuple[Operation, ...]", bundle.limits.prepare))
    assert f"write /sys/fs/cgroup/bulkhead/{ID}/memory.max {128 << 20}" in prepared
    assert "io.max" not in prepared, "the hypervisor throttles"


def test_each_run_has_a_cgroup_of_its_own() -> None:
    """A supervisor of an earlier run cleans up late: it must not find what is there now."""
    bundle, old, new = make_bundle(), group_of(ID), group_of(ID, "port-0123-abcd")
    assert new == f"{old}-abcd"
    made = nesting.moved_limits(bundle.limits, old, new)
    words = describe([*made.prepare, *made.finish])
    assert f"{old}/" not in words
    assert f"{new}/memory.max" in words
    assert made.kill == f"{new}/cgroup.kill"
    assert made.join == made.beside == (f"{new}/cgroup.procs",)
    assert "write /sys/fs/cgroup/bulkhead/cgroup.subtree_control" in words, "what all share stays"
