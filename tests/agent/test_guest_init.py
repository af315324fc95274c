"""The agent as PID 1 of a guest: real boots under TCG, few of them, with much looked at in each."""

from __future__ import annotations

import errno
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.agent.files import Files
from bulkhead.agent.operations import (
    RECURSIVE,
    Attr,
    Code,
    Operation,
    bind,
    clock,
    encode,
    mkdir,
    mount,
    mountdev,
    netif,
    read,
    simple,
    write,
)
from bulkhead.agent.session import Session
from tests.agent.box import STRICT, Box
from tests.agent.guest import PLACEHOLDER, Booted, Machine, disk, erofs, file_disk, make_booted
from tests.agent.wire import (
    DATA,
    EOF,
    EXEC,
    NEWNS,
    NEWPID,
    REHEARSE,
    RESIZE,
    RUN,
    Connection,
    Failure,
    Result,
    Start,
    exec_payload,
    wait_until,
)
from tests.harness.abilities import require

GROUP = "/sys/fs/cgroup/bulkhead"
MAC = bytes.fromhex("0200000a0b0c")
TERMINAL, STDIN = 1, 2


@pytest.fixture(scope="module")
def booted(agent_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Booted:
    require("root", "qemu-system-x86_64", "mkfs.erofs", "mkfs.ext4")
    return make_booted(tmp_path_factory.mktemp("booted"), agent_binary)


@pytest.fixture(scope="module")
def layer(busybox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return erofs(busybox_root, tmp_path_factory.mktemp("layer") / "layer.erofs")


@pytest.fixture
def new_machine(booted: Booted, tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    """Machines that are ended with their test."""
    with ExitStack() as stack:

        def make(name: str) -> Machine:
            machine = Machine(tmp_path / name, booted.elf, booted.initrd)
            stack.callback(machine.close)
            return machine

        yield make


def prepare(seed: bytes, *, name: str = "guest", mac: bytes = b"") -> list[Operation]:
    return [
        simple(Code.ENTROPY, seed),
        clock(time.time_ns()),
        simple(Code.HOSTNAME, name),
        netif("eth0", mac=mac, addresses=["10.9.8.7/24", "fd00:9::7/64"], gateway4="10.9.8.1", gateway6="fd00:9::1"),
        mkdir(GROUP),
        write(f"{GROUP}/pids.max", "64"),
        write(f"{GROUP}/memory.max", str(96 << 20)),
    ]


def stage(*layers: str, upper: str = "/dev/vda") -> list[Operation]:
    names = [f"l{number}" for number in range(len(layers))]
    return [
        simple(Code.STAGE, "/stage"),
        *(mountdev(device, "erofs", name, attrs=Attr.RDONLY) for device, name in zip(layers, names, strict=True)),
        mountdev(upper, "ext4", "d", attrs=Attr.NOATIME),
        simple(Code.OVERLAY, ":".join(reversed(names)), "d/upper", "d/work", "root", 0),
        simple(Code.ROOT, "root"),
        bind("/dev", "/dev", flags=RECURSIVE),
        bind("/sys", "/sys", flags=RECURSIVE),
    ]


def start(*argv: str, before: list[Operation], staged: list[Operation], flags: int = 0) -> Start:
    """A container's START with the list of a guest in front."""
    inside = [
        mount("proc", "/proc", attrs=STRICT),
        simple(Code.CONSOLE),
        simple(Code.PIVOT),
        simple(Code.ENV, "PATH=/bin"),
        simple(Code.EXEC, *argv),
    ]
    return Start(
        flags=flags,
        prepare=before,
        stage=staged,
        inside=inside,
        clone=NEWPID,
        unshare=NEWNS,
        join=[f"{GROUP}/cgroup.procs"],
        kill=f"{GROUP}/cgroup.kill",
    )


def command(*argv: str, flags: int = 0) -> bytes:
    inside = [simple(Code.CONSOLE), simple(Code.ENV, "PATH=/bin"), simple(Code.EXEC, *argv)]
    return exec_payload(inside, setns=NEWNS | NEWPID, join=[f"{GROUP}/cgroup.procs"], flags=flags)


def sh(connection: Connection, script: str) -> str:
    result = connection.exec(command("sh", "-c", script))
    assert (result.code, result.err) == (0, b""), result
    return result.out.decode().strip()


def run(connection: Connection, *operations: Operation) -> list[str]:
    answer, found = connection.ask(RUN, encode(operations)), []
    while answer:
        (length,) = struct.unpack_from("<I", answer)
        found.append(answer[4 : 4 + length].decode())
        answer = answer[4 + length :]
    return found


# --- one guest, from its boot to its end


def test_a_life(new_machine: Callable[[str], Machine], layer: Path, tmp_path: Path) -> None:
    machine, own = new_machine("one"), disk(tmp_path / "disk.img")
    upper = tmp_path / "upper"
    (upper / "srv").mkdir(parents=True)
    (upper / "srv/file").write_text("second layer")
    disks = [file_disk(own, writable=True), file_disk(layer), file_disk(erofs(upper, tmp_path / "upper.erofs"))]
    machine.start(disks)
    machine.session().close()
    connections(machine)
    with Connection(machine.port) as connection:
        idle_guest(connection)
        stream = connection.attach()
        lives_on(connection, machine)
        until(connection, stream, b"ready\n")
    assert wait_until(lambda: answers(machine, "running"))
    with machine.session() as session:
        copies(session)
    assert wait_until(lambda: answers(machine, "running"))
    with Connection(machine.port) as connection:
        ending(connection, connection.attach(1 | 2), machine)
    assert machine.wait() == 0
    shown = subprocess.run(["dumpe2fs", "-h", own], capture_output=True, text=True, check=True).stdout
    assert "needs_recovery" not in shown and re.search("Filesystem state: +clean\n", shown)
    assert "agent:" not in machine.console and "panic" not in machine.console


def connections(machine: Machine) -> None:
    """One after the other, also after one that broke the rules, and at rest while there is none."""
    with Connection(machine.port) as connection:
        before = cpu_of_init(connection)
    time.sleep(0.5)
    for garbage in (b"\xff" * 5000, b"\0\0\0\0\1\x09\0"):
        with Connection(machine.port) as connection:
            assert cpu_of_init(connection) - before < 20
            connection.socket.sendall(garbage)
        assert wait_until(lambda: answers(machine, "idle"))


def answers(machine: Machine, state: str) -> bool:
    """To somebody who comes when the one before has been seen to go: until then he counts for that one."""
    time.sleep(0.2)
    with Connection(machine.port) as connection:
        connection.socket.settimeout(0.5)
        try:
            return bool(connection.info()["state"] == state)
        except TimeoutError:
            return False


def cpu_of_init(connection: Connection) -> int:
    """Hundredths of a second that PID 1 has used."""
    (text,) = run(connection, read("/proc/1/stat"))
    return sum(map(int, text.rsplit(")")[1].split()[11:13]))


def idle_guest(connection: Connection) -> None:
    assert connection.info() == {"pid": 0, "state": "idle", "started": 0.0, "version": 1}
    controllers, cmdline = run(connection, read("/sys/fs/cgroup/cgroup.subtree_control"), read("/proc/1/cmdline"))
    assert {"cpu", "memory", "pids", "io"} <= set(controllers.split()) and cmdline == "/init\0"
    for operation, number in (
        (simple(Code.ENTROPY, b"x" * 31), errno.EINVAL),
        (simple(Code.CLOCK, 0, 10**9), errno.EINVAL),
        (simple(Code.MODULE, "/init"), errno.ENOEXEC),
        (netif("eth9"), errno.ENODEV),
        (netif("eth0", mac=b"12345"), errno.EINVAL),
        (netif("eth0", addresses=["10.0.0.256/24"]), errno.EINVAL),
        (netif("eth0", addresses=["10.0.0.1"]), errno.EINVAL),
        (netif("eth0", gateway4="fd00::1"), errno.EINVAL),
        (netif("eth0", addresses=["10.7.0.1/33"]), errno.EINVAL),
    ):
        with pytest.raises(Failure) as failure:
            run(connection, operation)
        assert failure.value.errno == number, operation


def lives_on(connection: Connection, machine: Machine) -> None:
    before = [*prepare(os.urandom(64), mac=MAC), write(f"{GROUP}/cpu.max", "50000 100000")]
    script = "trap 'echo hello; exit 7' USR1; echo ready; while read l; do echo got $l; done; while sleep 1; do :; done"
    connection.start(start("sh", "-c", script, before=before, staged=stage("/dev/vdb", "/dev/vdc"), flags=STDIN))
    assert connection.info()["state"] == "running"
    assert abs(int(sh(connection, "date +%s")) - time.time()) < 30
    assert sh(connection, "hostname") == "guest"
    shown = sh(connection, "ip addr show eth0; ip route; ip -6 route; ip addr show lo")
    for wanted in ("02:00:00:0a:0b:0c", "10.9.8.7/24", "fd00:9::7/64", "default via 10.9.8.1", "default via fd00:9::1"):
        assert wanted in shown
    assert "127.0.0.1" in shown and "tentative" not in next(line for line in shown.split("\n") if "fd00:9::7" in line)
    ordinary_linux(connection)
    orphans(connection)
    terminal(connection)


def ordinary_linux(connection: Connection) -> None:
    mounts = sh(connection, "cat /proc/mounts")
    for wanted in ("overlay / overlay rw", "devtmpfs /dev ", "devpts /dev/pts ", "sysfs /sys ", "proc /proc "):
        assert wanted in mounts
    assert "cgroup2 /sys/fs/cgroup cgroup2" in mounts and "rootfs" not in mounts and "/stage" not in mounts
    assert sh(connection, f"cat {GROUP}/memory.max {GROUP}/pids.max {GROUP}/cpu.max").split() == [
        str(96 << 20), "64", "50000", "100000",
    ]  # fmt: skip
    assert sh(connection, "cat /proc/self/cgroup") == "0::/bulkhead"
    assert sh(connection, "cat /srv/file; echo new > /srv/file; cat /srv/file").split("\n") == ["second layernew"]
    size = int(sh(connection, "df -m / | tail -1").split()[1])
    assert 40 < size <= 64
    assert sh(connection, "ls /proc/1/root /modules /init 2>&1 | grep -c such") == "2"
    with pytest.raises(Failure) as failure:
        connection.exec(command("nowhere"))
    assert (failure.value.code, failure.value.errno) == (Code.EXEC, errno.ENOENT)
    assert connection.exec(command("sh", "-c", "cat; exit 3", flags=STDIN), b"x" * 65536) == Result(3, 0, b"x" * 65536)
    assert connection.exec(command("head", "-c", "3000000", "/dev/zero")).out == bytes(3_000_000)


def orphans(connection: Connection) -> None:
    """A process of an exec whose parent has gone is PID 1's of its namespace, that of a helper is ours."""
    sh(connection, "(setsid sleep 0.1 > /dev/null 2>&1 &)")
    assert wait_until(lambda: "sleep 0.1" not in sh(connection, "ps"))
    (children,) = run(connection, read("/proc/1/task/1/children"))
    assert len(children.split()) == 1


def terminal(connection: Connection) -> None:
    stream = connection.open(EXEC, command("sh", "-c", "stty size; read line; stty size; tty", flags=TERMINAL | STDIN))
    connection.answer(stream)
    until(connection, stream, b"24 80\r\n")
    connection.send(RESIZE, stream, struct.pack("<HH", 50, 60))
    connection.send(DATA, stream, b"\n")
    result = connection.collect(stream)
    assert result.code == 0 and b"50 60\r\n/dev/pts/" in result.out


def copies(session: Session) -> None:
    files = Files(session)
    files.create("/srv/copied", mode=0o640, uid=7, gid=8)
    files.write("/srv/copied", 0, b"from outside")
    assert files.read("/srv/file", 0, 100) == b"new\n"
    assert {entry.name for entry in files.list("/srv")} == {"file", "copied"}
    files.close()


def until(connection: Connection, stream: int, wanted: bytes) -> None:
    output = b""
    while output != wanted:
        output += connection.next(stream).payload
        assert wanted.startswith(output)


def ending(connection: Connection, stream: int, machine: Machine) -> None:
    assert sh(connection, "stat -c '%a %u %g' /srv/copied; cat /srv/copied") == "640 7 8\nfrom outside"
    connection.send(DATA, stream, b"a line\n")
    until(connection, stream, b"got a line\n")
    connection.send(EOF, stream)
    assert wait_until(lambda: "sleep 1" in sh(connection, "ps"))
    connection.signal(signal.SIGUSR1)
    assert connection.collect(stream) == Result(7, 0, b"hello\n")
    assert connection.info()["state"] == "ended"
    assert machine.process is not None and machine.process.poll() is None


# --- templates


def test_clones(new_machine: Callable[[str], Machine], layer: Path, tmp_path: Path) -> None:
    """What is restored twice is one guest up to its START, and two from there on."""
    ram, state = tmp_path / "ram", tmp_path / "state"
    machine = new_machine("template")
    began = time.perf_counter()
    monitor = machine.start([PLACEHOLDER] * 2, ram=ram)
    session = machine.session()
    report("cold boot to INFO", began)
    session.close()
    monitor.save(state)
    machine.kill()
    seen = [clone(new_machine(f"clone{number}"), ram, state, layer, number) for number in range(2)]
    assert len(set(seen)) == 2
    restored(machine := new_machine("idle"), ram, state, [PLACEHOLDER] * 2).quit()
    assert machine.wait() == 0
    without_pid_namespace(new_machine("plain"), ram, state, layer)
    rehearsed(new_machine("warm"), ram, state, layer)
    connection = restored(machine := new_machine("empty"), ram, state, [PLACEHOLDER] * 2)
    with connection, pytest.raises(Failure) as failure:
        connection.start(start("true", before=before(3), staged=stage("/dev/vdb")))
    assert (failure.value.code, failure.value.errno) == (Code.MOUNTDEV, errno.EINVAL)
    assert machine.wait() == 0


def restored(machine: Machine, ram: Path, state: Path, disks: list[str]) -> Connection:
    began = time.perf_counter()
    monitor = machine.start(disks, ram=ram, incoming=True)
    monitor.restore(state)
    report("restore to running", began)
    connection = machine.connect()
    connection.info()
    report("restore to INFO", began)
    return connection


def clone(machine: Machine, ram: Path, state: Path, layer: Path, number: int) -> str:
    own = disk(machine.directory / "disk.img")
    with restored(machine, ram, state, [file_disk(own, writable=True), file_disk(layer)]) as connection:
        began = time.perf_counter()
        stream = connection.attach()
        # The second has a terminal: everything else is the same.
        script = "head -c 16 /dev/urandom | hexdump -e '16/1 \"%02x\"'; date +' %s'; ip addr; hostname"
        connection.start(start("sh", "-c", script, before=before(number), staged=stage("/dev/vdb"), flags=number))
        report("START", began)
        result = connection.collect(stream)
        report("END", began)
    assert machine.wait() == 0
    report("off", began)
    text = result.out.decode()
    assert text.count("\r\n") == (text.count("\n") if number == TERMINAL else 0)
    drawn, now = text.splitlines()[0].split()
    assert abs(int(now) - time.time()) < 30
    assert f"02:00:00:00:00:0{number}" in text and text.rstrip().endswith(f"clone{number}")
    return drawn


def without_pid_namespace(machine: Machine, ram: Path, state: Path, layer: Path) -> None:
    """PID 1 is the agent then, and whoever loses his parent is its own to reap. A QUIT ends all of it."""
    own = disk(machine.directory / "disk.img")
    connection = restored(machine, ram, state, [file_disk(own, writable=True), file_disk(layer)])
    stream = connection.attach()
    script = "(setsid sh -c 'sleep 0.1; echo orphan' &); sleep 1000"
    plain = start("sh", "-c", script, before=before(2), staged=stage("/dev/vdb"))
    connection.start(replace(plain, clone=0))
    until(connection, stream, b"orphan\n")
    assert wait_until(lambda: len(run(connection, read("/proc/1/task/1/children"))[0].split()) == 1)
    connection.quit()
    assert machine.wait() == 0


def rehearsed(machine: Machine, ram: Path, state: Path, layer: Path) -> None:
    """However a rehearsal ends, and whatever it leaves running: what is started afterwards finds nothing of it."""
    own = disk(machine.directory / "disk.img")
    with restored(machine, ram, state, [file_disk(own, writable=True), file_disk(layer)]) as connection:
        for script in ("echo lost; setsid sleep 1000 & exit 3", "kill -9 $$", "exit 0"):
            once = start("sh", "-c", script, before=before(4), staged=stage("/dev/vdb"))
            assert connection.ask(REHEARSE, once.encode()) == b""
            assert connection.info()["state"] == "idle"
        with pytest.raises(Failure):
            connection.exec(command("true"))
        stream = connection.attach()
        connection.start(start("sh", "-c", "ps; hostname", before=before(4), staged=stage("/dev/vdb")))
        with pytest.raises(Failure) as failure:
            connection.ask(REHEARSE, once.encode())
        result = connection.collect(stream)
        assert failure.value.errno == errno.EBUSY
        assert result.code == 0 and b"clone4" in result.out
        assert b"lost" not in result.out and b"sleep" not in result.out
    assert machine.wait() == 0


def before(number: int) -> list[Operation]:
    return prepare(os.urandom(64), name=f"clone{number}", mac=bytes([2, 0, 0, 0, 0, number]))


def report(what: str, began: float) -> None:
    """For whoever looks: pytest -s."""
    sys.stderr.write(f"{what}: {(time.perf_counter() - began) * 1e3:.0f} ms\n")


def test_a_host_is_no_guest(box: Box) -> None:
    """What is for a machine of one's own is refused by the agent of an instance."""
    connection = box.launch()
    for operation in (
        simple(Code.ENTROPY, bytes(32)),
        clock(0),
        simple(Code.HOSTNAME, "elsewhere"),
        simple(Code.MODULE, "/nothing.ko"),
        netif("lo"),
        simple(Code.POWEROFF),
    ):
        with pytest.raises(Failure) as failure:
            run(connection, operation)
        assert failure.value.errno == errno.EPERM, operation
