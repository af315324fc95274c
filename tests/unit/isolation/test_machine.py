"""What a VM is asked for, as data: QEMU's command line, its jail's operations, the start in the guest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead import limits
from bulkhead.agent.frames import start_payload
from bulkhead.agent.operations import Code, describe
from bulkhead.config import Config
from bulkhead.isolation import guest, jail, vmm
from bulkhead.isolation.base import Attached, Boot, Bundle, Command, Handle, MountedVolume, Probe, Room
from bulkhead.isolation.root import Namespace
from bulkhead.isolation.supervised import Outside
from bulkhead.isolation.vm import VmDriver
from bulkhead.model import Address, Isolation, Mount, Plan, Spec

GOLDEN = Path(__file__).parents[2] / "golden" / "isolation"
CONFIG = Config(state_dir=Path("/var/lib/bulkhead"), run_dir=Path("/run/bulkhead"))
ID = "0123456789abcdef" * 2
STATE = Path("/var/lib/bulkhead")
MOMENT = guest.Moment(1_700_000_000_500_000_000, bytes(64))
ADDRESS = Address(
    network="default",
    ipv4="10.144.0.5",
    prefix4=24,
    gateway4="10.144.0.1",
    ipv6="fd42:b01c::5",
    prefix6=64,
    gateway6="fd42:b01c::1",
    mac="02:68:0a:90:00:05",
)


def make_spec(**changes: object) -> Spec:
    usual: dict[str, object] = {
        "id": ID,
        "name": "web",
        "image": "nginx",
        "image_digest": "sha256:" + "0" * 64,
        "isolation": Isolation.VM,
        "plan": Plan(memory=512 << 20, cpus=1.5, disk=5 << 30, iops=500, disk_bps=10 << 20),
        "argv": ("nginx", "-g", "daemon off;"),
        "env": ("LANG=C.UTF-8",),
        "hostname": ID[:12],
        "network": "default",
        "created": 1.0,
    }
    return Spec.model_validate({**usual, **changes})


def make_bundle(**changes: object) -> Bundle:
    spec = make_spec(**changes)
    boot = Boot(
        vmm=Path("/run/bulkhead/layers/vmm"),
        kernel=STATE / "images/blobs/kernel",
        initrd=Path("/var/cache/bulkhead/initrd/x.cpio"),
        disk=STATE / "instances" / ID / "disk.img",
        layers=(STATE / "images/erofs/base", STATE / "images/erofs/top"),
        accelerator="tcg",
        tap="tap0",
        room=Room(4 << 30, 8),
        guest_limits=limits.guest_program(spec.plan, system=spec.init == "system"),
    )
    return Bundle(
        directory=STATE / "instances" / ID,
        spec=spec,
        uid_start=1_000_000_000,
        volumes=(MountedVolume(STATE / "volumes/data.img", "/data", read_only=False, volume=True),),
        resolv_conf="nameserver 10.144.0.1\n",
        hosts="127.0.0.1\tlocalhost\n",
        address=ADDRESS,
        boot=boot,
    )


def driver() -> VmDriver:
    outside = Outside(remove_cgroups=lambda _: None, was_oom=lambda _: False)
    return VmDriver(CONFIG, outside, ability=lambda: Probe(works=True))


def in_words(bundle: Bundle) -> str:
    """All that a start is, to be read."""
    argv = vmm.command_line(bundle)
    request = guest.start_request(bundle, vmm.require_boot(bundle).guest_limits, MOMENT)
    parts = {
        "QEMU": "".join(f"\n{word}" if word.startswith("-") else f" {word}" for word in argv).lstrip(),
        "the jail: stage": describe(jail.stage(bundle, Path("/run/bulkhead/stage"))),
        "the jail: inside": describe(jail.inside(["QEMU"], largest=bundle.spec.plan.disk)),
        "the guest: prepare": describe(request.prepare),
        "the guest: stage": describe(request.stage),
        "the guest: inside": describe(request.inside),
    }
    return "\n".join(f"# {title}\n{text}\n" for title, text in parts.items())


def test_the_golden_machine() -> None:
    file = GOLDEN / "vm.txt"
    if os.environ.get("BULKHEAD_GOLDEN") == "write":
        file.write_text(in_words(make_bundle()))
    assert in_words(make_bundle()) == file.read_text()


def test_a_system_has_its_own_cgroups_and_run_directory() -> None:
    bundle = make_bundle(init="system", tty=True)
    request = guest.start_request(bundle, vmm.require_boot(bundle).guest_limits, MOMENT)
    stage = describe(request.stage)
    assert "bind /sys/fs/cgroup/bulkhead/instance/own /sys/fs/cgroup" in stage
    assert "mount tmpfs tmpfs /run" in stage
    assert request.join == ("/sys/fs/cgroup/bulkhead/instance/own/cgroup.procs",)
    assert request.unshare_flags & Namespace.CGROUP
    command = guest.command_request(bundle.spec, request.join, Command(argv=("true",)))
    assert command.setns_flags & Namespace.CGROUP
    assert [operation.code for operation in request.inside[-2:]] == [Code.SECCOMP_FIRST, Code.EXEC]


def test_every_request_fits_the_protocol() -> None:
    request = driver().start_request(make_bundle())
    assert start_payload(request)
    assert start_payload(driver().hold_request(make_bundle()))


def test_no_two_starts_share_their_entropy() -> None:
    def entropy() -> object:
        request = driver().start_request(make_bundle())
        prepare = request.guest.prepare  # type: ignore[attr-defined]
        return next(operation.arguments for operation in prepare if operation.code is Code.ENTROPY)

    assert entropy() != entropy()


def test_foreign_disks_are_descriptors_and_come_last() -> None:
    bundle = make_bundle()
    assert bundle.boot is not None
    given = (
        Attached(70, "qcow2", device=False, read_only=False, largest=9 << 30),
        Attached(71, "raw", device=True, read_only=True, largest=0),
    )
    bundle = replace(bundle, netns_fd=50, boot=replace(bundle.boot, attached=given))
    words = " ".join(vmm.command_line(bundle))
    assert "-add-fd fd=6,set=0" in words and "-add-fd fd=7,set=1" in words
    file = '{"driver":"file","filename":"/dev/fdset/0","locking":"on","read-only":false}'
    assert f'{{"driver":"qcow2","node-name":"foreign0","read-only":false,"file":{file},"backing":null}}' in words
    assert '"driver":"host_device","filename":"/dev/fdset/1","locking":"off","read-only":true' in words
    assert f"id=foreign0,drive=foreign0,serial=foreign0,addr={vmm.FIRST_SLOT + 4:#x}" in words
    assert driver().inherited(bundle) == (70, 71)
    request = driver().start_request(bundle)
    kept = [operation.arguments for operation in request.inside if operation.code is Code.INHERIT]
    assert kept == [(6,), (7,)]
    largest = next(operation.arguments for operation in request.inside if operation.code is Code.RLIMIT)
    assert largest[1] == 9 << 30
    # No path of theirs is in the jail.
    assert not [drive for drive in vmm.drives(bundle) if "foreign" in drive.inside]


def test_disks_come_in_the_order_in_which_the_guest_mounts_them() -> None:
    bundle = make_bundle()
    sources = [drive.source for drive in vmm.drives(bundle)]
    assert bundle.boot is not None
    assert sources == [bundle.boot.disk, *bundle.boot.layers, bundle.volumes[0].source]
    request = guest.start_request(bundle, bundle.limits, MOMENT)
    mounted = [operation.arguments[0] for operation in request.stage if operation.code is Code.MOUNTDEV]
    assert mounted == [guest.device(number) for number in range(4)]


def test_only_what_the_guest_may_write_can_be_written() -> None:
    writable = {drive.inside for drive in vmm.drives(make_bundle()) if not drive.read_only}
    assert writable == {f"{vmm.HERE}/disk", f"{vmm.HERE}/volumes/0"}


def test_a_machine_without_a_network_has_no_interface() -> None:
    bundle = make_bundle(network="none")
    assert bundle.boot is not None
    bundle = replace(bundle, boot=replace(bundle.boot, tap=""), address=None)
    assert not any("net" in word for word in vmm.command_line(bundle))
    prepare = guest.start_request(bundle, bundle.limits, MOMENT).prepare
    assert Code.NETIF not in {operation.code for operation in prepare}
    assert "net/tun" not in describe(jail.stage(bundle, Path("/stage")))


def test_kvm_is_given_only_where_it_is_used() -> None:
    bundle = make_bundle()
    assert bundle.boot is not None
    assert "device kvm" not in describe(jail.stage(bundle, Path("/stage")))
    bundle = replace(bundle, boot=replace(bundle.boot, accelerator="kvm"))
    assert "device kvm" in describe(jail.stage(bundle, Path("/stage")))
    assert "kvm" in vmm.command_line(bundle)


def test_the_throttle_is_the_plans() -> None:
    plan = Plan(memory=64 << 20, cpus=1, disk=64 << 20)
    nothing = {"iops-read": 0, "iops-write": 0, "bps-read": 0, "bps-write": 0}
    assert vmm.throttle(plan) == nothing
    limited = plan.model_copy(update={"iops": 10})
    assert vmm.throttle(limited) == {**nothing, "iops-read": 10, "iops-write": 10}


def test_a_guest_can_grow_as_far_as_its_host_goes() -> None:
    plan = Plan(memory=512 << 20, cpus=1, disk=64 << 20)
    assert vmm.room(plan, memory=64 << 30, cores=64) == Room(4 << 30, 4)
    assert vmm.room(plan, memory=1000 << 20, cores=2) == Room((512 + 384) << 20, 2)
    small = Plan(memory=600 << 20, cpus=2, disk=64 << 20)
    assert vmm.room(small, memory=700 << 20, cores=2) == Room(600 << 20, 2), "no whole block of memory is left"


def test_a_guest_that_cannot_grow_has_no_device_for_it() -> None:
    bundle = make_bundle()
    assert bundle.boot
    fixed = " ".join(vmm.command_line(replace(bundle, boot=replace(bundle.boot, room=None))))
    assert "virtio-mem" not in fixed
    assert "-smp 2,maxcpus=2" in fixed


@pytest.mark.parametrize(("cpus", "seen"), [(0.5, 1), (1, 1), (1.5, 2), (2, 2)])
def test_processors_are_rounded_up(cpus: float, seen: int) -> None:
    assert vmm.vcpus(Plan(memory=64 << 20, cpus=cpus, disk=64 << 20)) == seen


def test_commands_join_the_workloads_cgroup_in_the_guest() -> None:
    handle = Handle(1, 2, 3, {"id": ID, "join": "/sys/fs/cgroup/bulkhead/x/cgroup.procs"})
    request = driver().exec_request(make_spec(), handle, Command(argv=("true",)))
    assert request.join == ("/sys/fs/cgroup/bulkhead/x/cgroup.procs",)


def test_everything_that_is_wrong_is_told() -> None:
    spec = make_spec(
        network="host",
        mounts=(Mount(kind="bind", source="/srv", target="/x"), Mount(kind="volume", source="v", target="/proc/y")),
        architecture="vax",
    )
    told = " ".join(problem.what for problem in driver().check(spec))
    for words in ("/srv", "host's network", "/proc/y", "vax"):
        assert words in told
    assert all(problem.hint for problem in driver().check(spec))


def test_the_hypervisor_may_have_more_than_the_guest_and_no_disk_limits() -> None:
    plan = make_spec().plan
    held = limits.vmm_plan(plan, "tcg")
    assert held.memory > plan.memory
    assert (held.iops, held.disk_bps, held.cpus, held.ghz) == (None, None, plan.cpus, plan.ghz)
    assert limits.vmm_plan(plan, "kvm").memory < held.memory
