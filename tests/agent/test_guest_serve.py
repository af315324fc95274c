"""Instances in the guest of another: the place that is kept for one on the host, and its supervisor in the guest."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bulkhead.agent.operations import Code, encode, macvlan, netif, read, simple
from bulkhead.agent.session import Session
from bulkhead.errors import AgentError
from tests.agent.box import Box
from tests.agent.guest import Booted, Monitor, make_booted
from tests.agent.guest import Machine as Computer
from tests.agent.machine import Guest, Machine
from tests.agent.wire import GUEST_START, NEWNS, NEWPID, QUIT, RUN, START, Connection, Failure, Start, wait_until
from tests.harness.abilities import require

GUEST, HOLD = 8, 4
MAC = bytes.fromhex("0200000a0b0d")
PORT = "second"


def place(**more: object) -> bytes:
    """START of an instance whose machine is another's."""
    return Start(inside=[], flags=GUEST | HOLD, **more).encode()  # type: ignore[arg-type]


@pytest.fixture
def kept(new_box: Callable[[], Box]) -> Iterator[tuple[Machine, Guest, Connection]]:
    """A place that is kept, and the test as the agent in the guest; joined."""
    machine = Machine(new_box())
    guest = Guest(machine)
    try:
        connection = machine.host.launch()
        assert int.from_bytes(connection.ask(START, place(log_files=2)), "little") > 0
        guest.link(connection)
        yield machine, guest, connection
    finally:
        guest.close()


def test_its_end_is_the_workloads(kept: tuple[Machine, Guest, Connection]) -> None:
    """There is no machine to wait for: the supervisor goes at once, with all that was said."""
    machine, guest, connection = kept
    stream = connection.attach()
    output = guest.begin(connection)
    guest.data(output, b"said\n")
    guest.exit(output, 7)
    result = connection.collect(stream)
    assert (result.code, result.out) == (7, b"said\n")
    assert machine.host.agent.gone()
    assert machine.host.agent.exit()["code"] == 7


def test_a_machine_that_goes_takes_it_along(kept: tuple[Machine, Guest, Connection]) -> None:
    machine, guest, connection = kept
    stream = connection.attach()
    guest.begin(connection)
    guest.socket.close()
    result = connection.collect(stream)
    assert (result.code, result.signal) == (255, 0)
    assert machine.host.agent.gone()
    assert "the virtual machine that it was in has ended" in machine.host.agent.exit()["error"]


def test_it_can_be_given_up(kept: tuple[Machine, Guest, Connection]) -> None:
    machine, guest, connection = kept
    guest.begin(connection)
    connection.ask(QUIT, b"")
    assert machine.host.agent.gone()
    ended = machine.host.agent.exit()
    assert (ended["code"], ended.get("error")) == (137, None)
    with pytest.raises(EOFError):
        while True:
            guest.next()


def test_a_guest_that_breaks_a_rule_loses_it(kept: tuple[Machine, Guest, Connection]) -> None:
    """The instance alone: there is no machine that could be ended for it."""
    machine, guest, connection = kept
    stream = connection.attach()
    output = guest.begin(connection)
    guest.data(output + 100, b"nobody asked")
    assert connection.collect(stream).code == 255
    assert machine.host.agent.gone()
    assert "broke the agent's protocol" in machine.host.agent.exit()["error"]


def test_a_place_is_made_by_no_operation(new_box: Callable[[], Box]) -> None:
    connection = new_box().launch()
    for lists in ({"stage": [simple(Code.STAGE, "/mnt")]}, {"inside": [simple(Code.PIVOT)]}):
        payload = Start(**{"inside": [], "flags": GUEST | HOLD, **lists}).encode()  # type: ignore[arg-type]
        with pytest.raises(Failure) as caught:
            connection.ask(START, payload)
        assert caught.value.errno == errno.EINVAL


def test_on_a_host_there_is_nothing_to_serve(new_box: Callable[[], Box]) -> None:
    connection = new_box().launch()
    with pytest.raises(Failure) as caught:
        connection.ask(RUN, encode([simple(Code.SERVE, PORT)]))
    assert caught.value.errno == errno.EPERM
    with pytest.raises(Failure):
        connection.ask(GUEST_START, b"")


# --- in a guest


@pytest.fixture(scope="module")
def booted(agent_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Booted:
    require("root", "qemu-system-x86_64")
    return make_booted(tmp_path_factory.mktemp("booted"), agent_binary)


@pytest.fixture
def computer(booted: Booted, tmp_path: Path) -> Iterator[Computer]:
    made = Computer(tmp_path / "machine", booted.elf, booted.initrd)
    yield made
    made.close()


def held(stage: list[object]) -> bytes:
    """A start of nothing in a network namespace of its own."""
    lists = {"stage": stage, "inside": [], "flags": HOLD, "clone": NEWPID, "unshare": NEWNS, "netns": "new"}
    return Start(**lists).encode()  # type: ignore[arg-type]


def test_a_supervisor_beside_the_first_process(computer: Computer) -> None:
    monitor, first = computer.start(), computer.session()
    first.run([netif("eth0", addresses=["10.0.0.2/24"])])
    second = computer.directory / "second.sock"
    address = {"type": "unix", "data": {"path": str(second)}}
    monitor(
        "chardev-add", id=PORT, backend={"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
    )
    monitor("device_add", driver="virtserialport", chardev=PORT, id=PORT, name=PORT)
    first.run([simple(Code.SERVE, PORT)])
    with Session.connect(second) as session:
        assert session.info(timeout=60)["state"] == "idle"
        (status, score) = session.run([read("/proc/self/status"), read("/proc/self/oom_score_adj")])
        assert "Name:\tbulkhead-agent" in status
        assert score == "-1000\n"
        pid = int(status.partition("\nPid:\t")[2].split()[0])
        assert pid > 1
        with pytest.raises(AgentError, match="no interface is named"):
            first.run([netif("none0")])
        _start(session, held([simple(Code.LOOPBACK), macvlan("eth0", "eth0", MAC), *_addressed()]))
        assert session.info()["state"] == "running"
        (links,) = session.run([read(f"/proc/{session.info()['pid']}/net/if_inet6")])
        assert "eth0" in links
    # Nobody is at the other side any more: it ends what it has started, and itself.
    wait_until(lambda: first.run([read(f"/proc/{pid}/status")]) == [""])
    assert first.info()["state"] == "idle", "the guest goes on"
    monitor("device_del", id=PORT)
    wait_until(lambda: _gone(monitor))


def _gone(monitor: Monitor) -> bool:
    """QEMU lets go of a port a moment after it was told to."""
    with suppress(RuntimeError):
        monitor("chardev-remove", id=PORT)
    return PORT not in {row["label"] for row in monitor("query-chardev")}


def _addressed() -> list[object]:
    return [netif("eth0", addresses=["10.0.0.3/24", "fd00::3/64"], gateway4="10.0.0.1")]


def _start(session: Session, payload: bytes) -> None:
    from bulkhead.agent.frames import Type

    answer = session.answer(session.open(Type.START, payload), 60)
    assert answer.type is Type.OK, answer.payload
