"""What images, workloads and clients may try. A test names the flaw that it is about, where that has a name."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkhead.agent.operations import Attr, Code
from tests.agent.box import ALL, Box, bind, cgroup_name, command, mount, simple
from tests.agent.wire import (
    ATTACH,
    CREDIT,
    DATA,
    EXEC,
    EXIT,
    INFO,
    NEWNET,
    START,
    WATCH,
    Connection,
    Failure,
    Frame,
    wait_until,
)

CONSOLE = [simple(Code.CONSOLE)]


def refused(box: Box, **request: Any) -> Failure:
    connection = box.launch()
    with pytest.raises(Failure) as caught:
        connection.start(box.request(*request.pop("argv", ("true",)), **request))
    assert box.agent.gone()
    return caught.value


def running(box: Box, *argv: str, **more: Any) -> Connection:
    connection = box.launch()
    connection.start(box.request(*(argv or ("sleep", "1000")), **more))
    return connection


# --- paths: CVE-2019-19921, CVE-2021-30465, CVE-2023-27561, CVE-2023-28642, CVE-2024-45310


@pytest.mark.parametrize("name", ["proc", "dev"])
@pytest.mark.parametrize("target", ["/tmp", "../../../../../../tmp", "/proc/self/root", "nowhere", "OUTSIDE"])
def test_the_kernels_directories_are_no_links(box: Box, tmp_path: Path, name: str, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    layer = box.own_layer()
    (layer / name).symlink_to(str(outside) if target == "OUTSIDE" else target)
    assert refused(box).errno == errno.ELOOP
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("target", ["/../../../../../../../../../../OUTSIDE", "OUTSIDE", "/OUTSIDE"])
def test_links_of_an_image_stay_in_its_root(box: Box, tmp_path: Path, target: str) -> None:
    """Every operation with an in-root path, through a link that leads out of the root."""
    outside, shared = tmp_path / "outside", tmp_path / "shared"
    outside.mkdir()
    shared.mkdir()
    (shared / "in").touch()
    layer = box.own_layer()
    link = target.replace("OUTSIDE", str(outside).lstrip("/"))
    (layer / "out").symlink_to(link)
    stage = [
        simple(Code.FILE, "/out/file", 0o644, 0, 0, "x"),
        simple(Code.MKDIRS, "/out/directory", 0o755, 0, 0),
        simple(Code.SYMLINK, "x", "/out/link"),
        bind(shared, "/out/bound", flags=1),
    ]
    inside = [
        mount("tmpfs", "/out/mounted"),
        simple(Code.FILE, "/out/inside", 0o644, 0, 0, "x"),
        simple(Code.REBIND, "/out/bound", "/out/again", int(Attr.RDONLY), 2),
        simple(Code.MASK, "/out/bound"),
    ]
    code, out, err = box.sh("ls /out /out/again", stage=stage, inside=inside)
    assert (code, err) == (0, b"")
    assert set(out.split()) >= {b"file", b"directory", b"link", b"bound", b"mounted", b"inside", b"in"}
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("target", ["/proc/1/root/tmp", "/proc/self/cwd", "/proc/self/fd/3", "/proc/self/ns/mnt"])
def test_magic_links_are_not_followed(box: Box, target: str) -> None:
    (box.own_layer() / "out").symlink_to(target)
    failure = refused(box, inside=[mount("tmpfs", "/out/mounted")])
    assert (failure.code, failure.errno) == (Code.MOUNT, errno.ELOOP)


def test_a_masked_path_that_is_a_link(box: Box) -> None:
    (box.own_layer() / "dev").mkdir()
    stage = [simple(Code.SYMLINK, "/etc/passwd", "/dev/hidden")]
    assert refused(box, stage=stage, inside=[simple(Code.MASK, "/dev/hidden")]).errno == errno.ELOOP


def test_cve_2025_31133_what_hides_files_is_the_hosts_dev_null(box: Box) -> None:
    """An image's own /dev/null is not what is put over masked files."""
    layer = box.own_layer()
    (layer / "dev").mkdir()
    (layer / "dev/null").write_text("not null")
    request = box.request(inside=[simple(Code.MASK, "/proc/kallsyms")])
    connection = box.launch()
    stream = connection.attach()
    request.stage = [operation for operation in box.stage() if operation.code not in (Code.MOUNT, Code.DEVICE)]
    request.inside = [
        *box.mounts(pts=False),
        simple(Code.MASK, "/proc/kallsyms"),
        simple(Code.PIVOT),
        simple(Code.MASK, "/proc/keys"),
        simple(Code.ENV, "PATH=/bin"),
        simple(Code.EXEC, "sh", "-c", "stat -c %t:%T /proc/kallsyms /proc/keys; cat /proc/kallsyms /dev/null"),
    ]
    connection.start(request)
    assert connection.collect(stream).out == b"1:3\n1:3\nnot null"


def test_cve_2025_52881_sysctls_are_written_to_procfs_alone(box: Box) -> None:
    """Whatever is at the root's /proc, a setting goes to the kernel's."""
    layer = box.own_layer()
    fake = layer / "proc/sys/net/ipv4"
    fake.mkdir(parents=True)
    (fake / "ip_unprivileged_port_start").write_text("fake")
    setting = simple(Code.SYSCTL, "/proc/sys/net/ipv4/ip_unprivileged_port_start", "7")
    code, out, _ = box.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", mounts=[setting, *box.mounts()])
    assert (code, out) == (0, b"7\n")
    assert (fake / "ip_unprivileged_port_start").read_text() == "fake"


@pytest.mark.parametrize("path", ["../self/oom_score_adj", "/etc/passwd", "net/../../self/comm", "kernel"])
def test_sysctls_are_below_proc_sys(box: Box, path: str) -> None:
    assert refused(box, inside=[simple(Code.SYSCTL, path, "1")]).code == Code.SYSCTL


# --- the terminal: CVE-2025-52565


def own_dev(box: Box, prepare: Callable[[Path], None]) -> Connection:
    """A box whose /dev is the image's own, with a terminal asked for."""
    layer = box.own_layer()
    (layer / "dev/pts").mkdir(parents=True)
    prepare(layer / "dev")
    request = box.request(flags=1)
    request.stage = [operation for operation in box.stage() if operation.code not in (Code.MOUNT, Code.DEVICE)]
    request.inside = [
        mount("proc", "/proc"),
        mount("devpts", "/dev/pts", data="newinstance,ptmxmode=0666"),
        *CONSOLE,
        simple(Code.PIVOT),
        simple(Code.ENV, "PATH=/bin"),
        simple(Code.EXEC, "sh", "-c", "tty; test -c /dev/console && echo console"),
    ]
    connection = box.launch()
    stream = connection.attach()
    connection.start(request)
    assert connection.collect(stream).out == b"/dev/pts/0\r\nconsole\r\n"
    return connection


def test_a_console_in_a_dev_of_the_image(box: Box) -> None:
    own_dev(box, lambda dev: (dev / "ptmx").symlink_to("pts/ptmx"))


@pytest.mark.parametrize("target", ["/etc/passwd", "nowhere", "/proc/1/root/etc/passwd"])
def test_a_console_that_is_a_link(box: Box, target: str) -> None:
    def prepare(dev: Path) -> None:
        (dev / "ptmx").symlink_to("pts/ptmx")
        (dev / "console").symlink_to(target)

    with pytest.raises(Failure) as caught:
        own_dev(box, prepare)
    assert (caught.value.code, caught.value.errno) == (Code.CONSOLE, errno.ELOOP)


@pytest.mark.parametrize("kind", ["file", "fifo", "null", "link", "missing", "directory"])
def test_a_ptmx_that_is_none(box: Box, kind: str) -> None:
    def prepare(dev: Path) -> None:
        path = dev / "ptmx"
        if kind == "file":
            path.write_text("x")
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "null":
            os.mknod(path, 0o20666, os.makedev(1, 3))
        elif kind == "link":
            path.symlink_to("/etc/passwd")
        elif kind == "directory":
            path.mkdir()

    with pytest.raises(Failure) as caught:
        own_dev(box, prepare)
    assert caught.value.code == Code.CONSOLE


def test_a_ptmx_that_a_workload_has_replaced(box: Box) -> None:
    connection = running(box)
    for script in ("mkfifo /dev/ptmx", "ln -s /etc/passwd /dev/ptmx", "echo x >/dev/ptmx", "mkdir /dev/ptmx"):
        assert connection.exec(command("sh", "-c", f"rm -rf /dev/ptmx; {script}")).code == 0
        with pytest.raises(Failure) as caught:
            connection.exec(command("tty", flags=1, before_exec=CONSOLE))
        assert caught.value.code == Code.CONSOLE
    assert connection.exec(command("true")).code == 0


# --- descriptors and the working directory: CVE-2024-21626


@pytest.mark.parametrize("number", range(0, 24, 1))
def test_cve_2024_21626_directories_through_descriptors(box: Box, number: int) -> None:
    connection = running(box)
    for path in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/../../..", f"/proc/thread-self/fd/{number}"):
        with pytest.raises(Failure):
            connection.exec(command("pwd", before_exec=[simple(Code.CHDIR, path, 0)]))
        with pytest.raises(Failure):
            connection.exec(command(f"{path}/../../../bin/busybox", "pwd"))


def test_cve_2024_21626_at_the_start(new_box: Callable[[], Box]) -> None:
    for path in ("/proc/self/fd/3", "/proc/self/cwd", "/proc/self/root", "/proc/1/cwd"):
        box = new_box()
        assert refused(box, before_exec=[simple(Code.CHDIR, path, 0)]).errno in (errno.ELOOP, errno.ENOENT)


def test_chdir_and_exec_demand_the_pivot(new_box: Callable[[], Box]) -> None:
    for last in (simple(Code.CHDIR, "/", 0), simple(Code.EXEC, "/bin/true")):
        box = new_box()
        connection = box.launch()
        request = box.request("true")
        request.inside = [*box.mounts(), last]
        with pytest.raises(Failure) as caught:
            connection.start(request)
        assert caught.value.errno == errno.EINVAL


# --- the agent's process in the instance: CVE-2016-9962, CVE-2019-5736


def test_an_exec_cannot_be_looked_into_on_its_way(box: Box) -> None:
    looks = "readlink $p/exe; readlink $p/fd/3; cat $p/environ"
    script = f"while :; do for p in /proc/[0-9]*; do {looks}; done; done 2>/dev/null"
    connection = running(box, "sh", "-c", script)
    for _ in range(60):
        assert connection.exec(command("true")).code == 0
    connection.quit()
    seen = {text for _, _, text in box.agent.log()}
    assert any("/bin/busybox" in text for text in seen)
    assert not [text for text in seen if "agent" in text or "socket:" in text or "memfd" in text]


def test_an_interpreter_that_is_the_agent_itself(box: Box) -> None:
    script = box.own_layer() / "evil"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    connection = running(box)
    result = connection.exec(command("/evil"))
    assert result.code == 2
    assert result.err.startswith(b"usage")


# --- users


@pytest.mark.parametrize(
    "contents",
    [
        b"x:x:0:0::/:/bin/sh\n" * 60000,
        b"x" * (1 << 20) + b"y",
        b"user:x:4294967296:0::/:\n",
        b"user:x:-1:0::/:\n",
        b"user:x:4294967295:0::/:\n",
        b"user:x:00000000000000000000001:0::/:\n",
        b"user:x: 1:0::/:\n",
        b"user:x:1\0:0::/:\n",
        b"\xff\xfe\0\0" * 1000,
    ],
)
def test_a_hostile_passwd(box: Box, contents: bytes) -> None:
    etc = box.own_layer() / "etc"
    etc.mkdir()
    (etc / "passwd").write_bytes(contents)
    assert refused(box, before_exec=[simple(Code.USER, "user")]).code == Code.USER


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_a_passwd_that_blocks_or_leads_away(new_box: Callable[[], Box], name: str) -> None:
    def directory(path: Path) -> None:
        path.mkdir()

    for make in (os.mkfifo, directory, lambda path: path.symlink_to("/proc/self/environ")):
        box = new_box()
        etc = box.own_layer() / "etc"
        etc.mkdir()
        make(etc / name)
        failure = refused(box, before_exec=[simple(Code.USER, "user:staff")])
        assert failure.code == Code.USER


# --- what a workload does to the supervisor


def test_a_flood_of_output_is_only_as_large_as_the_log(box: Box) -> None:
    connection = running(box, "sh", "-c", "yes & yes >&2", log_size=100_000, log_files=2)
    time.sleep(0.3)
    assert connection.info()["state"] == "running"
    assert resident(box) < 2 << 20
    connection.quit()
    assert sum((box.bundle / name).stat().st_size for name in ("log", "log.1")) < 2_000_000


def resident(box: Box) -> int:
    """Private bytes of the supervisor that are not its program's."""
    rollup = Path(f"/proc/{box.agent.pid}/smaps_rollup").read_text()
    return int(rollup.split("Private_Dirty:")[1].split()[0]) << 10


def test_a_workload_that_closes_everything(box: Box) -> None:
    connection = box.launch()
    stream = connection.attach(3)
    connection.start(box.request("sh", "-c", "exec 0<&- 1>&- 2>&-; sleep 0.2; exit 6", flags=2))
    connection.send(DATA, stream, b"x" * 60000)
    assert connection.collect(stream).code == 6


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A v1 cgroup of the controller that the test is marked with."""
    path = Path("/sys/fs/cgroup") / request.param / cgroup_name(request.node.name.split("[")[0])
    path.mkdir()
    yield path

    def remove() -> bool:
        try:
            path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    assert wait_until(remove)


@pytest.mark.parametrize("group", ["pids"], indirect=True)
def test_a_fork_bomb_is_ended(group: Path, box: Box) -> None:
    """With no pid namespace: the processes are many, and each is somebody's orphan."""
    connection = box.launch()
    request = box.request("true", join=[str(group / "tasks")], kill=str(group / "cgroup.procs"))
    request.prepare = [simple(Code.WRITE, str(group / "pids.max"), "200")]
    request.finish = [simple(Code.RMDIR, str(group))]
    request.clone = request.unshare = request.base = request.count = 0
    request.stage = box.stage(idmap=False)
    bomb = "f() { while :; do (f &) 2>/dev/null; done; }; f"
    request.inside = [simple(Code.PIVOT), simple(Code.ENV, "PATH=/bin"), simple(Code.EXEC, "sh", "-c", bomb)]
    connection.start(request)
    assert wait_until(lambda: int((group / "pids.current").read_text()) > 100)
    connection.quit()
    assert not group.exists()


@pytest.mark.parametrize("group", ["freezer"], indirect=True)
def test_a_frozen_instance_holds_up_nobody(group: Path, box: Box) -> None:
    tasks = str(group / "tasks")
    connection = running(box, join=[tasks], kill=str(group / "cgroup.procs"))
    (group / "freezer.state").write_text("FROZEN")
    stream = connection.open(EXEC, command("echo", "thawed", join=[tasks]))
    assert connection.info()["state"] == "running"
    with box.agent.connect() as other:
        assert other.info()["state"] == "running"
    (group / "freezer.state").write_text("THAWED")
    connection.answer(stream)
    assert connection.collect(stream).out == b"thawed\n"
    connection.quit()


def test_a_workload_that_changes_its_namespaces(box: Box) -> None:
    """An exec goes where the workload's process is by then, and never to the host."""
    connection = running(box, "unshare", "-m", "sh", "-c", "mount -t tmpfs none /tmp; echo x >/tmp/mine; sleep 1000")
    assert wait_until(lambda: connection.exec(command("ls", "/tmp")).out == b"mine\n")


# --- what a client does


def raw(kind: int, stream: int = 9, payload: bytes = b"", channel: int = 0, **more: int) -> bytes:
    return Frame(kind, stream, payload, channel).encode(**more)


BROKEN = [
    b"\xff" * 12,
    raw(INFO, version=2),
    raw(INFO, zero=1),
    raw(INFO, stream=0),
    raw(INFO, stream=0xFFFFFFFF),
    raw(INFO, payload=b"x"),
    raw(INFO, channel=1),
    raw(0),
    raw(11),
    raw(16),
    raw(17),
    raw(EXIT, payload=bytes(8)),
    raw(255),
    raw(ATTACH, payload=b"abc"),
    raw(CREDIT, payload=bytes(4)),
    raw(CREDIT, payload=bytes(4), channel=3),
    raw(DATA, payload=b"x", channel=1),
    struct.pack("<IBBBBI", (1 << 20) + 1, 1, START, 0, 0, 1),
    struct.pack("<IBBBBI", (1 << 16) + 1, 1, DATA, 0, 0, 1),
    struct.pack("<IBBBBI", 0xFFFFFFFF, 1, START, 0, 0, 1),
    raw(WATCH, stream=1) + raw(WATCH, stream=1),
    raw(ATTACH, stream=1, payload=bytes(4)) + raw(CREDIT, stream=1, channel=1, payload=b"\xff" * 4),
]


def closed(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_broken_frames_end_their_connection_alone(box: Box) -> None:
    good = running(box)
    watch = good.watch()
    for frame in BROKEN:
        with box.agent.connect() as bad:
            bad.socket.sendall(frame)
            assert closed(bad.socket), frame
        assert good.info()["state"] == "running"
    box.agent.connections[1:] = []
    good.signal(9)
    assert good.collect(watch).signal == 9


def test_data_beyond_the_credit_ends_the_connection(box: Box) -> None:
    good = running(box, "sleep", "1000", flags=2)
    with box.agent.connect() as bad:
        stream = bad.attach(1)
        frame = raw(DATA, stream=stream, payload=bytes(65536))
        try:
            for _ in range(8):
                bad.socket.sendall(frame)
        except OSError:
            pass
        assert closed(bad.socket)
    assert good.info()["state"] == "running"


def test_requests_that_are_announced_and_never_come(box: Box) -> None:
    good = running(box)
    bad = [box.agent.connect() for _ in range(20)]
    for connection in bad:
        connection.socket.sendall(struct.pack("<IBBBBI", 1 << 20, 1, EXEC, 0, 0, 1))
    assert good.info()["state"] == "running"
    assert resident(box) < 2 << 20


def test_answers_that_are_never_read(box: Box) -> None:
    """The agent stops to serve who does not take its answers, with what it holds for them bounded."""
    good = running(box)
    bad = box.agent.connect()
    bad.socket.settimeout(0.2)
    sent = 0
    with pytest.raises(TimeoutError):
        for stream in range(1, 1 << 20):
            bad.socket.sendall(raw(INFO, stream=stream))
            sent += 12
    assert good.info()["state"] == "running"
    assert resident(box) < 3 << 20
    bad.close()
    assert good.info()["state"] == "running"


def test_more_streams_than_a_connection_may_have(box: Box) -> None:
    connection = running(box)
    for _ in range(256):
        connection.watch()
    with pytest.raises(Failure) as caught:
        connection.watch()
    assert (caught.value.phase, caught.value.errno) == (5, errno.EAGAIN)
    assert connection.info()["state"] == "running"


def test_more_connections_than_an_agent_takes(box: Box) -> None:
    first = running(box)
    more = [box.agent.connect() for _ in range(63)]
    assert all(connection.info()["state"] == "running" for connection in more)
    with box.agent.connect() as late:
        assert closed(late.socket)
    more.pop().close()
    assert wait_until(lambda: one_more(box))
    assert first.info()["state"] == "running"


def one_more(box: Box) -> bool:
    with box.agent.connect() as connection:
        try:
            return bool(connection.info()["state"] == "running")
        except (EOFError, OSError):
            return False


def test_random_bytes(box: Box) -> None:
    good = running(box)
    for size in (1, 11, 12, 13, 100, 5000, 100_000):
        with box.agent.connect() as bad:
            bad.socket.sendall(os.urandom(size))
            bad.socket.shutdown(socket.SHUT_WR)
            assert closed(bad.socket)
    assert good.info()["state"] == "running"


def test_clients_that_go_in_the_middle(box: Box) -> None:
    good = running(box)
    whole = raw(EXEC, payload=command("echo", "x"))
    for cut in range(1, len(whole), 7):
        with box.agent.connect() as bad:
            bad.socket.sendall(whole[:cut])
    for _ in range(20):
        with box.agent.connect() as bad:
            bad.open(EXEC, command("sleep", "0.01"))
    box.agent.connections[1:] = []
    assert wait_until(lambda: b"sleep 0.01" not in good.exec(command("ps")).out)
    assert good.info()["state"] == "running"


def test_the_supervisor_is_not_to_be_looked_into(box: Box) -> None:
    """Not dumpable: what belongs to root alone in /proc shows it."""
    running(box)
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", "readlink", f"/proc/{box.agent.pid}/exe"],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert ALL & NEWNET == 0
