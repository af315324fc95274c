"""The spawner: supervisors forked on request."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bulkhead.agent.operations import Code
from tests.agent.box import Box, simple
from tests.agent.wire import Connection, Failure, wait_until


@dataclass
class Spawner:
    control: socket.socket
    process: subprocess.Popen[bytes]

    def ask(self, *fds: int, data: bytes = b"+") -> int:
        socket.send_fds(self.control, [data], list(fds))
        return int.from_bytes(self.control.recv(4), "little", signed=True)

    def spawn(self, box: Box, *more: int) -> Connection:
        directory = os.open(box.bundle, os.O_RDONLY | os.O_DIRECTORY)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(box.agent.socket))
            listener.listen()
            box.agent.pid = self.ask(directory, listener.fileno(), *more)
        os.close(directory)
        assert box.agent.pid > 0
        return box.agent.connect()


@pytest.fixture
def spawner(agent_binary: Path) -> Iterator[Spawner]:
    """One, with a descriptor that it must not keep."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    leaked, kept = os.pipe()
    with theirs:
        process = subprocess.Popen([agent_binary, "spawn", str(theirs.fileno())], pass_fds=(theirs.fileno(), kept))
    os.close(kept)
    assert os.read(leaked, 1) == b""
    os.close(leaked)
    ours.settimeout(10)
    with ours, process:
        yield Spawner(ours, process)
        ours.close()
        assert process.wait(10) == 0


def test_supervisors_of_a_spawner(spawner: Spawner, box: Box) -> None:
    connection = spawner.spawn(box)
    stream = connection.attach()
    connection.start(box.request("sh", "-c", "echo on; exit 3"))
    result = connection.collect(stream)
    assert (result.code, result.out) == (3, b"on\n")
    assert box.agent.gone()
    assert not Path(f"/proc/{box.agent.pid}").exists(), "reaped"


def test_a_network_namespace_is_handed_on(spawner: Spawner, box: Box) -> None:
    with Path("/proc/self/ns/net").open() as own:
        connection = spawner.spawn(box, own.fileno())
        stream = connection.attach()
        connection.start(box.request("readlink", "/proc/self/ns/net", network=False, netns="/proc/self/fd/5"))
        assert connection.collect(stream).out.decode().strip() == str(Path("/proc/self/ns/net").readlink())


def test_a_workload_keeps_what_inherit_names(spawner: Spawner, box: Box) -> None:
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    kept, other = os.memfd_create("kept"), os.memfd_create("other")
    os.write(kept, b"what was handed over")
    connection = spawner.spawn(box, own, kept, other)
    for fd in (own, kept, other):
        os.close(fd)
    stream = connection.attach()
    script = "cat /proc/self/fd/6; ls /proc/self/fd | tr '\\n' ' '"
    keep = [simple(Code.INHERIT, 6)]
    connection.start(
        box.request("sh", "-c", script, before_exec=keep, network=False, netns="/proc/self/fd/5"),
    )
    # 3 is ls's own.
    assert connection.collect(stream).out == b"what was handed over0 1 2 3 6 "
    assert box.agent.gone()


@pytest.mark.parametrize("number", [0, 3, 4, 256, 1 << 32])
def test_numbers_that_cannot_be_inherited(spawner: Spawner, box: Box, number: int) -> None:
    connection = spawner.spawn(box)
    with pytest.raises(Failure) as refused:
        connection.start(box.request("true", before_exec=[simple(Code.INHERIT, number)]))
    assert (refused.value.phase, refused.value.code, refused.value.errno) == (5, Code.INHERIT, 22)


def test_what_was_not_handed_over_is_not_inherited(spawner: Spawner, box: Box) -> None:
    connection = spawner.spawn(box)
    with pytest.raises(Failure) as refused:
        connection.start(box.request("true", before_exec=[simple(Code.INHERIT, 5)]))
    assert (refused.value.phase, refused.value.code, refused.value.errno) == (2, Code.INHERIT, 9)
    assert box.agent.gone()


def test_what_a_supervisor_has(spawner: Spawner, box: Box) -> None:
    connection = spawner.spawn(box)
    connection.start(box.request("sleep", "1000"))
    pid = box.agent.pid
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    assert stat[3] == str(pid), "a session of its own"
    open_fds = {entry.name: str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert {open_fds[name] for name in ("0", "1", "2")} == {"/dev/null"}
    assert open_fds["3"] == str(box.bundle)
    sockets = [name for name, link in open_fds.items() if link.startswith("socket:")]
    assert len(sockets) == 2, "the listener and one connection, not the spawner's"


def test_supervisors_outlive_their_spawner(spawner: Spawner, box: Box) -> None:
    connection = spawner.spawn(box)
    connection.start(box.request("sleep", "1000"))
    spawner.control.shutdown(socket.SHUT_RDWR)
    assert spawner.process.wait(10) == 0
    assert connection.info()["state"] == "running"


def test_requests_that_are_none(spawner: Spawner, box: Box) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fds in ((), (null,), (null,) * 6, (null,) * 100):
        assert spawner.ask(*fds) < 0
    assert spawner.ask(null, null, data=b"+" * 100) > 0, "it ends by itself: that is no socket"
    os.close(null)
    count = len(list(Path(f"/proc/{spawner.process.pid}/fd").iterdir()))
    assert count == 4
    assert spawner.spawn(box).info()["state"] == "idle"


def test_it_takes_no_signal_but_kill(spawner: Spawner, box: Box) -> None:
    for number in (1, 2, 15):
        spawner.process.send_signal(number)
    assert spawner.spawn(box).info()["state"] == "idle"
    assert wait_until(lambda: spawner.process.poll() is None)
