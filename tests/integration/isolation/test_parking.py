"""Machines whose memory is saved while their workload runs: they go on, where they were and somewhere else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bulkhead.agent import frames
from bulkhead.agent.frames import Frame, Type
from bulkhead.agent.session import SOCKET, Session
from bulkhead.errors import AgentError, HostError, Refused
from bulkhead.host import processes
from bulkhead.host.qmp import Qmp
from bulkhead.isolation import parking, saving, vmm
from bulkhead.isolation.base import Bundle, Command, Handle, Probe
from bulkhead.isolation.supervised import Outside
from bulkhead.isolation.vm import VmDriver
from bulkhead.model import Address, Exit, Isolation
from bulkhead.network import taps
from tests.contract.factories import NEEDS, make_spec
from tests.harness.abilities import require
from tests.harness.images import busybox_tar
from tests.harness.machines import from_template, make_boot
from tests.harness.naming import make_config

COUNT = "trap 'echo end; exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
PATIENCE = 120.0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def address(number: int) -> Address:
    return Address(
        network="lab",
        ipv4=f"10.9.8.{number}",
        prefix4=24,
        gateway4="10.9.8.1",
        ipv6=f"fd00:9::{number}",
        prefix6=64,
        gateway6="fd00:9::1",
        mac=f"02:00:00:00:09:{number:02x}",
    )


@dataclass
class Lab:
    """Machines of one image, ended with the test."""

    directory: Path
    stack: ExitStack

    def __post_init__(self) -> None:
        self.config = make_config(self.directory)
        outside = Outside(remove_cgroups=lambda _: None, was_oom=lambda _: False)
        self.driver = VmDriver(self.config, outside, ability=lambda: Probe(works=True))
        tree, self.layer = self.directory / "tree", self.directory / "layer.erofs"
        tree.mkdir()
        processes.run(["tar", "-xf", busybox_tar(self.directory / "layer.tar"), "-C", tree])
        processes.run(["mkfs.erofs", "--quiet", self.layer, tree])

    def bundle(self, script: str, *, template: bool = False, number: int = 0) -> Bundle:
        """`number`: of its address; 0: no network."""
        spec = make_spec(("sh", "-c", script), Isolation.VM)
        spec = spec.model_copy(update={"plan": spec.plan.model_copy(update={"memory": 128 << 20})})
        directory = self.directory / spec.id
        directory.mkdir()
        run = self.directory.parent
        boot = make_boot(directory, spec, layer=self.layer, run=run, stack=self.stack)
        if template:
            boot = from_template(boot, spec, run=run, stack=self.stack)
        bundle = Bundle(directory=directory, spec=spec, uid_start=self.config.uid_base, boot=boot)
        return self.networked(bundle, number) if number else bundle

    def networked(self, bundle: Bundle, number: int) -> Bundle:
        netns = taps.make_alone(owner=self.config.uid_base)
        self.stack.callback(os.close, netns)
        assert bundle.boot
        return replace(bundle, netns_fd=netns, address=address(number), boot=replace(bundle.boot, tap=taps.TAP))

    def start(self, bundle: Bundle) -> Handle:
        self.stack.callback(self.driver.delete, bundle.directory, bundle.spec.id)
        return self.driver.start(bundle)

    def clone(self, bundle: Bundle, state: Path, *, number: int = 0) -> Bundle:
        """Another bundle with a copy of its disk, that goes on from `state`."""
        spec = make_spec(("never", "executed"), Isolation.VM).model_copy(update={"plan": bundle.spec.plan})
        directory = self.directory / spec.id
        directory.mkdir()
        assert bundle.boot and bundle.boot.disk
        disk = directory.with_name(f"{directory.name}.img")
        shutil.copyfile(bundle.boot.disk, disk)
        boot = replace(bundle.boot, disk=disk, saved=None, slots=0, resumed=state)
        hosts = f"127.0.0.1\tlocalhost {spec.hostname}\n"
        copy = replace(bundle, directory=directory, spec=spec, boot=boot, hosts=hosts)
        return self.networked(copy, number) if number else copy

    def run(self, bundle: Bundle, handle: Handle, script: str) -> str:
        request = self.driver.exec_request(bundle.spec, handle, Command(argv=("sh", "-c", script)))
        with Session.connect(bundle.directory / SOCKET) as session:
            done = session.exec_collect(request, timeout=PATIENCE)
        assert done.code == 0, done
        return done.stdout.decode()

    def stop(self, bundle: Bundle, handle: Handle) -> Exit | None:
        self.driver.stop(bundle.directory, handle, signal="TERM", timeout=PATIENCE)
        return self.driver.inspect(bundle.directory, handle).exit


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    require(*NEEDS, "qemu-system-x86_64")
    with ExitStack() as stack:
        yield Lab(tmp_path, stack)


def text(bundle: Bundle) -> str:
    """What is in the log, without its marks."""
    try:
        entries = [line.split(" ", 3) for line in (bundle.directory / "log").read_text().splitlines()]
    except FileNotFoundError:
        return ""
    return "".join(entry[3] + "\n" * (entry[2] == "F") for entry in entries)


def logged(bundle: Bundle) -> list[str]:
    return text(bundle).splitlines()


def counted(bundle: Bundle) -> list[int]:
    return [int(line) for line in logged(bundle) if line.isdigit()]


def test_a_machine_is_saved_and_goes_on_twice(lab: Lab, tmp_path: Path) -> None:
    """Where it was, and as a clone with a name, an address and randomness of its own."""
    state = tmp_path / "state"
    bundle = lab.bundle(COUNT, number=2)
    handle = lab.start(bundle)
    until(lambda: len(counted(bundle)) > 5)
    lab.run(bundle, handle, "echo kept > /dev/shm/note; echo on the disk > /note")
    lab.driver.save(bundle.directory, handle, state)
    assert state.stat().st_mode & 0o077 == 0
    before = counted(bundle)
    clone = lab.clone(bundle, state, number=3)
    assert counted(bundle) == before, "it is stopped"
    lab.driver.resume_saved(bundle.directory, handle)
    lab.driver.resume_saved(bundle.directory, handle)
    other = lab.start(clone)
    until(lambda: len(counted(clone)) > 5 and len(counted(bundle)) > len(before) + 5)
    numbers = counted(bundle)
    assert numbers == list(range(1, len(numbers) + 1))
    first = counted(clone)
    assert first == list(range(before[-1] + 1, before[-1] + 1 + len(first))), "not one is missing, none is there twice"

    ask = "hostname; cat /sys/class/net/eth0/address; cat /dev/shm/note /note; head -c 16 /dev/urandom | od -An -tx1"
    one, two = (lab.run(*pair, ask).splitlines() for pair in ((bundle, handle), (clone, other)))
    assert (one[0], two[0]) == (bundle.spec.hostname, clone.spec.hostname)
    assert (one[1], two[1]) == (address(2).mac, address(3).mac)
    assert one[2:4] == two[2:4] == ["kept", "on the disk"]
    assert one[4] != two[4], "both draw the same random numbers"
    where = lab.run(clone, other, "ip addr show eth0; ip route; ip -6 route; cat /etc/hosts")
    assert "10.9.8.3/24" in where and "fd00:9::3/64" in where
    assert "10.9.8.2/24" not in where and "fd00:9::2/64" not in where
    assert where.count("default") == 2
    assert clone.spec.hostname in where
    now = [float(lab.run(*pair, "date +%s")) for pair in ((bundle, handle), (clone, other))]
    assert all(abs(moment - time.time()) < PATIENCE for moment in now)

    for pair in ((bundle, handle), (clone, other)):
        ended = lab.stop(*pair)
        assert ended and (ended.code, ended.error) == (7, "")
        assert logged(pair[0])[-1] == "end"


def test_saved_again_and_again(lab: Lab, tmp_path: Path) -> None:
    """From a template; with a command that runs, and a client that is attached."""
    bundle = lab.bundle(COUNT, template=True)
    handle = lab.start(bundle)
    until(lambda: counted(bundle))
    request = lab.driver.exec_request(
        bundle.spec, handle, Command(argv=("sh", "-c", "read x; echo got $x"), stdin=True)
    )
    with Session.connect(bundle.directory / SOCKET) as session:
        stream = session.open(Type.EXEC, frames.exec_payload(request))
        assert session.answer(stream, PATIENCE).type is Type.OK
        for number in range(20):
            state = tmp_path / f"state{number}"
            lab.driver.save(bundle.directory, handle, state)
            assert state.stat().st_size < 100 << 20, "pages of zeros are stored"
            lab.driver.resume_saved(bundle.directory, handle)
            if number < 19:
                state.unlink()
        session.send(Frame(Type.DATA, stream, b"word\n"))
        frame = session.next(stream, PATIENCE)
        while frame.type is Type.CREDIT:
            frame = session.next(stream, PATIENCE)
        assert frame.payload == b"got word\n"
    assert lab.run(bundle, handle, "echo there") == "there\n"
    clone = lab.clone(bundle, state)
    other = lab.start(clone)
    until(lambda: len(counted(clone)) > 2)
    assert lab.run(clone, other, "echo there") == "there\n"
    again = tmp_path / "again"
    lab.driver.save(clone.directory, other, again)
    lab.driver.delete(clone.directory, clone.spec.id)
    third = lab.clone(clone, again)
    lab.start(third)
    until(lambda: counted(third))
    assert counted(clone)[-1] + 1 == counted(third)[0]
    ended = lab.stop(bundle, handle)
    assert ended and ended.code == 7
    assert counted(bundle) == list(range(1, len(counted(bundle)) + 1))


def test_a_flood_loses_nothing(lab: Lab, tmp_path: Path) -> None:
    many = 60_000
    bundle = lab.bundle(f"seq {many}; exec sleep 1000", template=True)
    handle = lab.start(bundle)
    state = tmp_path / "state"
    lab.driver.save(bundle.directory, handle, state)
    before = text(bundle)
    clone = lab.clone(bundle, state)
    lab.driver.resume_saved(bundle.directory, handle)
    lab.start(clone)
    everything = [str(number) for number in range(1, many + 1)]
    until(lambda: logged(bundle)[-1:] == [str(many)])
    assert logged(bundle) == everything
    until(lambda: logged(clone)[-1:] == [str(many)])
    rest = text(clone)
    assert (before + rest).splitlines() == everything
    assert rest


def test_whatever_became_of_its_saving(lab: Lab) -> None:
    """What a daemon that was killed leaves: parked; stopped; half written to somebody who has gone."""
    bundle = lab.bundle(COUNT, template=True)
    handle = lab.start(bundle)
    until(lambda: counted(bundle))

    def stop(monitor: Qmp) -> None:
        monitor.execute("stop")

    def half(monitor: Qmp) -> None:
        stop(monitor)
        source, theirs = os.pipe()
        monitor.execute("migrate-set-capabilities", saving.WHOLE)
        monitor.hand_over(theirs, "half")
        monitor.execute("migrate", {"uri": "fd:half"})
        assert len(os.read(source, 4096)) > 0
        os.close(theirs)
        os.close(source)

    for leave in (lambda _: None, stop, half):
        with Session.connect(bundle.directory / SOCKET) as session:
            session.park()
        with Qmp.open(bundle.directory / vmm.DIRECTORY, vmm.QMP) as monitor:
            leave(monitor)
        before = counted(bundle)
        with pytest.raises(AgentError, match="parked"):
            lab.run(bundle, handle, "true")
        lab.driver.resume_saved(bundle.directory, handle)
        until(lambda before=before: len(counted(bundle)) > len(before) + 2)  # type: ignore[misc]
    ended = lab.stop(bundle, handle)
    assert ended and ended.code == 7
    assert counted(bundle) == list(range(1, len(counted(bundle)) + 1))
    lab.driver.resume_saved(bundle.directory, handle)


def test_what_is_refused(lab: Lab, tmp_path: Path) -> None:
    bundle = lab.bundle("exec sleep 1000", template=True)
    handle = lab.start(bundle)
    state = tmp_path / "state"
    lab.driver.save(bundle.directory, handle, state)
    with pytest.raises(FileExistsError):
        parking.write(_NoMonitor(), state, parking.read_shape(state))  # type: ignore[arg-type]
    with Qmp.open(bundle.directory / vmm.DIRECTORY, vmm.QMP) as monitor:
        assert monitor.execute("query-status") != {}
    lab.driver.resume_saved(bundle.directory, handle)
    clone = lab.clone(bundle, state, number=4)
    plan = clone.spec.plan.model_copy(update={"memory": 256 << 20, "cpus": 2.0})
    with pytest.raises(Refused) as refused:
        lab.driver.start(replace(clone, spec=clone.spec.model_copy(update={"plan": plan})))
    assert len(refused.value.problems) == 3
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"x" * 5000)
    assert clone.boot
    with pytest.raises(HostError, match="holds no saved machine"):
        lab.driver.start(replace(clone, boot=replace(clone.boot, resumed=damaged)))
    assert not list(clone.directory.iterdir())


class _NoMonitor:
    """Nothing may be asked of it."""
