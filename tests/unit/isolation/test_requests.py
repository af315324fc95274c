"""What the drivers ask the agent for, as data: golden lists in words, and what must hold for each."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bulkhead.agent.frames import ExecFlag, Start, StartFlag, exec_payload, start_payload
from bulkhead.agent.operations import Code, Operation, describe, mkdir, read, rmdir, write
from bulkhead.config import Config
from bulkhead.isolation import capabilities
from bulkhead.isolation.base import Bundle, Command, Handle, MountedVolume
from bulkhead.isolation.chroot import ChrootDriver
from bulkhead.isolation.container import ContainerDriver
from bulkhead.isolation.root import Namespace
from bulkhead.isolation.rooted import Rooted
from bulkhead.isolation.supervised import Outside
from bulkhead.model import Isolation, Mount, Plan, PortMapping, Spec

GOLDEN = Path(__file__).parents[2] / "golden" / "isolation"
CONFIG = Config(state_dir=Path("/var/lib/bulkhead"), run_dir=Path("/run/bulkhead"))
OUTSIDE = Outside(remove_cgroups=lambda _: None, was_oom=lambda _: False)
ID = "0123456789abcdef" * 2
HANDLE = Handle(1, 2, 3, {"id": ID, "join": "/sys/fs/cgroup/memory/bulkhead/x/cgroup.procs"})


@dataclass(frozen=True)
class Cgroups:
    """Limits in two v1 trees."""

    join: tuple[str, ...] = tuple(f"/sys/fs/cgroup/{name}/bulkhead/{ID}/tasks" for name in ("memory", "pids"))
    delegated: str = ""
    kill: str = f"/sys/fs/cgroup/pids/bulkhead/{ID}/cgroup.procs"

    @property
    def beside(self) -> tuple[str, ...]:
        """The same for commands."""
        return self.join

    @property
    def prepare(self) -> tuple[Operation, ...]:
        """Make one."""
        return (mkdir(f"/sys/fs/cgroup/memory/bulkhead/{ID}"), write("/sys/fs/cgroup/memory/x", "1"))

    @property
    def finish(self) -> tuple[Operation, ...]:
        """Remove it."""
        return (read("/sys/fs/cgroup/memory/x"), rmdir(f"/sys/fs/cgroup/memory/bulkhead/{ID}"))


def make_spec(isolation: Isolation, **changes: object) -> Spec:
    """A spec with nothing special."""
    usual: dict[str, object] = {
        "id": ID,
        "name": "web",
        "image": "nginx",
        "image_digest": "sha256:" + "0" * 64,
        "isolation": isolation,
        "plan": Plan(memory=512 << 20, cpus=2, disk=5 << 30),
        "argv": ("nginx", "-g", "daemon off;"),
        "env": ("LANG=C.UTF-8", "PATH=/usr/bin"),
        "hostname": ID[:12],
        "network": "host" if isolation is Isolation.CHROOT else "default",
        "created": 1.0,
    }
    return Spec.model_validate({**usual, **changes})


def make_bundle(isolation: Isolation, **changes: object) -> Bundle:
    """A bundle with two layers, a volume, a bind mount and cgroups."""
    return Bundle(
        directory=Path(f"/var/lib/bulkhead/instances/{ID}"),
        spec=make_spec(isolation, **changes),
        limits=Cgroups(),
        layers=(Path("/run/bulkhead/layers/base"), Path("/run/bulkhead/layers/top")),
        disk=Path(f"/run/bulkhead/disks/{ID}"),
        volumes=(
            MountedVolume(Path("/srv/deep"), "/data/sub", read_only=True, volume=False),
            MountedVolume(Path("/run/bulkhead/volumes/data"), "/data", read_only=False, volume=True),
        ),
        netns_fd=9 if isolation is Isolation.CONTAINER else None,
        uid_start=1_000_000_000 if isolation is Isolation.CONTAINER else None,
        resolv_conf="nameserver 10.144.0.1\n",
        hosts="127.0.0.1\tlocalhost\n",
    )


def make_driver(isolation: Isolation, lxcfs: Path | None = None) -> Rooted:
    """A driver as it would be on a host without limits of its own."""
    made: Rooted = (
        ContainerDriver(CONFIG, OUTSIDE, lxcfs=lambda: lxcfs)
        if isolation is Isolation.CONTAINER
        else ChrootDriver(CONFIG, OUTSIDE)
    )
    made.hard_limits = {}
    return made


def in_words(start: Start) -> str:
    """A request as a text that a person can read."""
    fields = {
        "flags": repr(start.flags),
        "clone": repr(Namespace(start.clone_flags)),
        "unshare": repr(Namespace(start.unshare_flags)),
        "ids": f"{start.id_base}+{start.id_count}",
        "log": f"{start.log_size}x{start.log_files}",
        "netns": start.netns,
        "join": " ".join(start.join),
        "kill": start.kill,
    }
    head = "".join(f"{name}: {value}\n" for name, value in fields.items())
    lists = {"prepare": start.prepare, "stage": start.stage, "inside": start.inside, "finish": start.finish}
    return head + "".join(f"\n{name}:\n{describe(ops)}\n" for name, ops in lists.items())


def check_golden(name: str, text: str) -> None:
    """Compare with the file; $BULKHEAD_GOLDEN=write writes it anew."""
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("BULKHEAD_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


CASES = {
    "container": make_bundle(Isolation.CONTAINER),
    "container-tty-none": replace(
        make_bundle(Isolation.CONTAINER, tty=True, stdin=True, network="none", user="www:www"), netns_fd=None
    ),
    "container-host-network": replace(make_bundle(Isolation.CONTAINER, network="host"), netns_fd=None),
    "container-system": replace(
        make_bundle(Isolation.CONTAINER, init="system", tty=True, argv=("/sbin/init",)),
        limits=Cgroups(delegated=f"/sys/fs/cgroup/unified/bulkhead/{ID}/own"),
    ),
    "chroot": make_bundle(Isolation.CHROOT),
    "chroot-tty": make_bundle(Isolation.CHROOT, tty=True),
}


@pytest.mark.parametrize("name", CASES)
def test_golden_starts(name: str) -> None:
    bundle = CASES[name]
    driver = make_driver(bundle.spec.isolation, Path("/run/bulkhead/lxcfs"))
    check_golden(name, in_words(driver.start_request(bundle)))


@pytest.mark.parametrize("isolation", [Isolation.CONTAINER, Isolation.CHROOT])
def test_golden_holds(isolation: Isolation) -> None:
    check_golden(f"{isolation}-hold", in_words(make_driver(isolation).hold_request(make_bundle(isolation))))


@pytest.mark.parametrize("isolation", [Isolation.CONTAINER, Isolation.CHROOT])
def test_golden_commands(isolation: Isolation) -> None:
    command = Command(argv=("ls", "-l"), env=("A=b",), user="www", workdir="/srv", tty=True)
    request = make_driver(isolation).exec_request(make_spec(isolation), HANDLE, command)
    head = f"flags={request.flags!r}\nsetns={Namespace(request.setns_flags)!r}\njoin={' '.join(request.join)}\n\n"
    check_golden(f"{isolation}-exec", head + describe(request.inside) + "\n")


@pytest.mark.parametrize("name", CASES)
def test_requests_fit_the_protocol(name: str) -> None:
    bundle = CASES[name]
    driver = make_driver(bundle.spec.isolation, Path("/lxcfs"))
    assert len(start_payload(driver.start_request(bundle))) < 1 << 20
    assert exec_payload(driver.exec_request(bundle.spec, HANDLE, Command(argv=("true",))))


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("container")])
def test_a_container_has_its_own_ids_and_no_devices(name: str) -> None:
    bundle = CASES[name]
    start = make_driver(Isolation.CONTAINER).start_request(bundle)
    assert start.clone_flags & Namespace.USER and start.clone_flags & Namespace.PID
    assert start.id_base == bundle.uid_start and start.id_count == 65536
    for operation in (*start.stage, *start.inside):
        if operation.code is Code.OVERLAY:
            assert int(operation.arguments[4]) & 4, "nodev"
        if operation.code is Code.BIND and str(operation.arguments[1]).startswith("/data"):
            assert int(operation.arguments[2]) & 6 == 6, "nosuid, nodev"
            assert int(operation.arguments[3]) & 1, "id-mapped"


@pytest.mark.parametrize("name", ["container", "container-tty-none", "container-host-network"])
def test_a_container_is_confined_whatever_is_asked_for(name: str) -> None:
    bundle = CASES[name]
    driver = make_driver(Isolation.CONTAINER)
    start = driver.start_request(bundle)
    for operations in (start.inside, driver.exec_request(bundle.spec, HANDLE, Command(argv=("x",), user="0")).inside):
        codes = [operation.code for operation in operations]
        assert codes[-3:] == [Code.NO_NEW_PRIVS, Code.SECCOMP, Code.EXEC]
        (caps,) = [operation for operation in operations if operation.code is Code.CAPS]
        assert caps.arguments == (*[capabilities.mask(capabilities.CONTAINER)] * 3, 0, 0)


def test_a_system_is_confined_as_its_commands_are() -> None:
    bundle = CASES["container-system"]
    driver = make_driver(Isolation.CONTAINER)
    start = driver.start_request(bundle)
    for operations in (start.inside, driver.exec_request(bundle.spec, HANDLE, Command(argv=("x",), user="0")).inside):
        codes = [operation.code for operation in operations]
        assert codes[-2:] == [Code.SECCOMP_FIRST, Code.EXEC]
        assert Code.NO_NEW_PRIVS not in codes
        (caps,) = [operation for operation in operations if operation.code is Code.CAPS]
        assert caps.arguments == (*[capabilities.mask(capabilities.SYSTEM)] * 3, 0, 0)
    more = set(driver.not_isolated(bundle.spec)) - set(driver.not_isolated(make_spec(Isolation.CONTAINER)))
    assert sorted(each.partition(":")[0] for each in more) == ["as a system", "terminals of other containers"]


def test_what_a_system_cannot_have_is_refused() -> None:
    spec = make_spec(
        Isolation.CONTAINER, init="system", user="www", mounts=(Mount(kind="volume", source="v", target="/run/"),)
    )
    told = " ".join(problem.what for problem in make_driver(Isolation.CONTAINER).check(spec))
    assert "not as www" in told and "/run" in told
    told = " ".join(
        problem.what for problem in make_driver(Isolation.CHROOT).check(make_spec(Isolation.CHROOT, init="system"))
    )
    assert "no system" in told


def test_volumes_are_mounted_from_the_top_down() -> None:
    start = make_driver(Isolation.CHROOT).start_request(make_bundle(Isolation.CHROOT))
    targets = [str(operation.arguments[1]) for operation in start.stage if operation.code is Code.BIND]
    assert targets[-2:] == ["/data", "/data/sub"]


def test_long_commands_and_environments_are_split() -> None:
    words = tuple(f"w{number}" for number in range(600))
    spec = make_spec(Isolation.CONTAINER, argv=words, env=tuple(f"V{number}=1" for number in range(600)))
    inside = make_driver(Isolation.CONTAINER).start_request(replace(CASES["container"], spec=spec)).inside
    passed = [word for op in inside if op.code in (Code.ARGS, Code.EXEC) for word in op.arguments]
    assert passed == list(words)
    assert [op.code for op in inside[-3:]] == [Code.ARGS, Code.ARGS, Code.EXEC]
    assert sum(len(op.arguments) for op in inside if op.code is Code.ENV) == 600 + 3


def test_the_workloads_environment_wins_and_an_exec_adds_to_it() -> None:
    driver = make_driver(Isolation.CONTAINER)
    command = Command(argv=("x",), env=("LANG=de", "NEW=1"), tty=True)
    (env,) = [
        op for op in driver.exec_request(make_spec(Isolation.CONTAINER), HANDLE, command).inside if op.code is Code.ENV
    ]
    found = dict(str(entry).split("=", 1) for entry in env.arguments)
    assert found == {
        "PATH": "/usr/bin", "HOSTNAME": ID[:12], "container": "bulkhead", "TERM": "xterm", "LANG": "de", "NEW": "1",
    }  # fmt: skip


def test_flags() -> None:
    start = make_driver(Isolation.CONTAINER).start_request(CASES["container-tty-none"])
    assert start.flags == StartFlag.TERMINAL | StartFlag.STDIN
    request = make_driver(Isolation.CHROOT).exec_request(
        make_spec(Isolation.CHROOT), HANDLE, Command(("x",), stdin=True)
    )
    assert request.flags == ExecFlag.STDIN
    assert request.join == ("/sys/fs/cgroup/memory/bulkhead/x/cgroup.procs",)


def test_what_a_chroot_cannot_do_is_said_at_once() -> None:
    spec = make_spec(
        Isolation.CHROOT,
        ports=(PortMapping(host_port=80, port=80),),
        plan=Plan(memory=64 << 20, cpus=1, disk=1 << 30, bandwidth=10**6),
        network="web",
        hostname="other",
        architecture="arm64",
        mounts=(Mount(kind="volume", source="v", target="/proc/x"), Mount(kind="bind", source="/", target="/a/../b")),
    )
    problems = make_driver(Isolation.CHROOT).check(spec)
    assert len(problems) == 7
    assert all(problem.hint for problem in problems)
    assert make_driver(Isolation.CHROOT).check(make_spec(Isolation.CHROOT)) == []


@pytest.mark.parametrize("target", ["/", "/proc", "/proc/1", "/sys/fs/cgroup", "/dev", "/dev/shm", "//proc", "/./proc"])
def test_reserved_targets(target: str) -> None:
    spec = make_spec(Isolation.CONTAINER, mounts=(Mount(kind="bind", source="/x", target=target),))
    assert len(make_driver(Isolation.CONTAINER).check(spec)) == 1


def test_ordinary_targets() -> None:
    mounts = tuple(Mount(kind="bind", source="/x", target=target) for target in ("/data", "/process", "/etc/x.conf"))
    assert make_driver(Isolation.CONTAINER).check(make_spec(Isolation.CONTAINER, mounts=mounts)) == []
