"""The life of a supervisor: idle, held, ended, killed, found again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkhead.agent.operations import Code, Operation, encode, simple
from tests.agent.box import Box, cgroup_name, command
from tests.agent.wire import EXEC, NEWNS, RUN, Failure, Result, wait_until

V1 = Path("/sys/fs/cgroup")
HOLD = 4


@pytest.fixture
def groups(request: pytest.FixtureRequest) -> Iterator[list[Path]]:
    """The same v1 cgroup in three hierarchies."""
    made = [V1 / name / cgroup_name(request.node.name) for name in ("pids", "memory", "cpu")]
    for path in made:
        path.mkdir()
    yield made
    assert wait_until(lambda: all(not path.exists() or remove(path) for path in made))


def remove(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def runs(pid: int) -> bool:
    """Neither gone nor a zombie that the host's init has yet to reap."""
    try:
        return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_version(agent_binary: Path) -> None:
    assert subprocess.run([agent_binary, "version"], capture_output=True, check=True).stdout == b"1\n"


@pytest.mark.parametrize("arguments", [[], ["supervise"], ["supervise", "3", "x"], ["supervise", "1000", "1001"]])
def test_usage(agent_binary: Path, arguments: list[str]) -> None:
    assert subprocess.run([agent_binary, *arguments], capture_output=True, check=False).returncode == 2


def test_info(box: Box) -> None:
    connection = box.launch()
    assert connection.info() == {"pid": 0, "state": "idle", "started": 0.0, "version": 1}
    pid = connection.start(box.request("sleep", "1000"))
    info = connection.info()
    assert (info["pid"], info["state"], info["version"]) == (pid, "running", 1)
    assert float(info["started"]) > 1e9


def test_quit_before_start(box: Box) -> None:
    box.launch().quit()
    assert box.agent.gone()
    assert not (box.bundle / "exit.json").exists()


def test_quit(box: Box) -> None:
    connection = box.launch()
    pid = connection.start(box.request("sleep", "1000"))
    connection.quit()
    assert not Path(f"/proc/{pid}").exists()
    assert box.agent.exit()["signal"] == 9
    assert box.agent.gone()


def test_an_old_exit_is_not_taken_for_the_new_one(box: Box) -> None:
    (box.bundle / "exit.json").write_text("{}")
    connection = box.launch()
    connection.start(box.request("sleep", "1000"))
    assert not (box.bundle / "exit.json").exists()


def test_hold(box: Box) -> None:
    connection = box.launch()
    pid = connection.start(box.request(flags=HOLD))
    assert connection.info()["state"] == "running"
    assert connection.exec(command("echo", "in there")).out == b"in there\n"
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]  # noqa: PTH208
    connection.quit()
    assert box.agent.exit()["signal"] == 9


def test_a_holder_reaps(box: Box) -> None:
    connection = box.launch()
    connection.start(box.request(flags=HOLD))
    connection.exec(command("sh", "-c", "sleep 0.01 & true"))
    listed = command("sh", "-c", "sleep 0.1; grep -l '^State:.Z' /proc/[0-9]*/status; true")
    assert connection.exec(listed).out == b""


def test_connections_come_and_go(box: Box) -> None:
    with box.launch() as connection:
        connection.start(box.request("sleep", "1000"))
    for _ in range(100):
        with box.agent.connect() as connection:
            assert connection.info()["state"] == "running"
    box.agent.connections.clear()


def test_the_workload_dies_with_its_supervisor(box: Box) -> None:
    connection = box.launch()
    pid = connection.start(box.request("sleep", "1000"))
    os.kill(box.agent.pid, signal.SIGKILL)
    assert wait_until(lambda: not runs(pid))


def test_a_user_of_its_own_dies_with_the_supervisor_as_well(box: Box) -> None:
    connection = box.launch()
    operations = [simple(Code.USER, "user"), simple(Code.CAPS, 1 << 10, 0, 0, 0, 0)]
    pid = connection.start(box.request("sleep", "1000", before_exec=operations))
    os.kill(box.agent.pid, signal.SIGKILL)
    assert wait_until(lambda: not runs(pid))


@pytest.mark.parametrize("number", ["TERM", "HUP", "INT", "QUIT", "PIPE", "USR1", "ALRM"])
def test_no_other_signal_ends_it(box: Box, number: str) -> None:
    connection = box.launch()
    connection.start(box.request("sleep", "1000"))
    os.kill(box.agent.pid, getattr(signal, f"SIG{number}"))
    assert connection.info()["state"] == "running"
    assert box.agent.alive()


def cgroup_request(groups: list[Path]) -> dict[str, Any]:
    pids, memory, _ = groups
    return {
        "join": [str(path / "tasks") for path in groups],
        "kill": str(pids / "cgroup.procs"),
        "prepare": [simple(Code.WRITE, str(pids / "pids.max"), "20")],
        "finish": [
            Operation(Code.READ, (str(memory / "memory.max_usage_in_bytes"),), report=True),
            *(simple(Code.RMDIR, str(path)) for path in groups),
        ],
    }


def test_cgroups(box: Box, groups: list[Path]) -> None:
    connection = box.launch()
    watch = connection.watch()
    request = box.request("sh", "-c", "sleep 1000 & sleep 1000 & exec sleep 1000", **cgroup_request(groups))
    pid = connection.start(request)
    for path in groups:
        assert str(pid) in (path / "cgroup.procs").read_text().split()
    assert (groups[0] / "pids.max").read_text() == "20\n"
    joined = command("cat", "/proc/self/cgroup", join=request.join)
    assert connection.exec(joined).out.count(b":/\n") >= 3, "the roots of its cgroup namespace"
    connection.signal(15, everyone=True)
    connection.signal(9)
    assert connection.collect(watch) == Result(137, 9)
    assert not any(path.exists() for path in groups)
    assert int(box.agent.exit()["reports"][0]) > 0


def test_without_a_pid_namespace_the_cgroup_is_emptied(box: Box, groups: list[Path]) -> None:
    connection = box.launch()
    stream = connection.attach()
    request = box.request("true", **cgroup_request(groups))
    request.clone = request.unshare = request.base = request.count = 0
    request.stage = box.stage(idmap=False)
    script = "setsid sleep 1000 & setsid sleep 1000 & echo on; exit 5"
    request.inside = [simple(Code.PIVOT), simple(Code.ENV, "PATH=/bin"), simple(Code.EXEC, "sh", "-c", script)]
    connection.start(request)
    assert connection.collect(stream) == Result(5, 0, b"on\n")
    assert not any(path.exists() for path in groups)
    assert box.agent.gone()


def test_killing_everyone(box: Box, groups: list[Path]) -> None:
    connection = box.launch()
    watch = connection.watch()
    connection.start(box.request("sleep", "1000", **cgroup_request(groups)))
    connection.signal(9, everyone=True)
    assert connection.collect(watch) == Result(137, 9)


def test_run(box: Box, groups: list[Path], tmp_path: Path) -> None:
    connection = box.launch()
    connection.start(box.request("sleep", "1000", **cgroup_request(groups)))
    (tmp_path / "text").write_text("content")
    operations = [
        simple(Code.WRITE, str(groups[0] / "pids.max"), "30"),
        Operation(Code.READ, (str(groups[0] / "pids.max"),), report=True),
        Operation(Code.READ, (str(tmp_path / "none"),), optional=True, report=True),
        Operation(Code.READ, (str(tmp_path / "text"),), report=True),
    ]
    answer = connection.ask(RUN, encode(operations))
    assert answer == b"\x03\0\0\x0030\n\0\0\0\0\x07\0\0\0content"
    with pytest.raises(Failure) as caught:
        connection.ask(RUN, encode([simple(Code.RMDIR, str(groups[0] / "none")), simple(Code.UNLINK, str(tmp_path))]))
    assert (caught.value.phase, caught.value.index, caught.value.code) == (4, 1, Code.UNLINK)
    with pytest.raises(Failure, match="place"):
        connection.ask(RUN, encode([simple(Code.PIVOT)]))
    connection.quit()


V2 = V1 / "unified"


def v2_request(path: Path) -> dict[str, Any]:
    return {
        "join": [str(path / "cgroup.procs")],
        "kill": str(path / "cgroup.kill"),
        "prepare": [simple(Code.MKDIR, str(path), 0o755)],
        "finish": [simple(Code.RMDIR, str(path))],
    }


def test_a_v2_cgroup(box: Box) -> None:
    """With no pid namespace, so that cgroup.kill is what ends the rest."""
    path = V2 / cgroup_name("v2")
    connection = box.launch()
    stream = connection.attach()
    request = box.request("true", **v2_request(path))
    request.clone = request.unshare = request.base = request.count = 0
    request.stage = box.stage(idmap=False)
    script = "setsid sleep 1000 & setsid sleep 1000 & echo on; read x"
    request.inside = [simple(Code.PIVOT), simple(Code.ENV, "PATH=/bin"), simple(Code.EXEC, "sh", "-c", script)]
    request.flags = 2
    connection.start(request)
    assert connection.next(stream).payload == b"on\n"
    assert connection.exec(command("true", setns=NEWNS, join=request.join)).code == 0
    assert len((path / "cgroup.procs").read_text().split()) == 3
    connection.signal(15, everyone=True)
    assert connection.collect(stream) == Result(143, 15)
    assert not path.exists()


def test_a_v2_cgroup_joined_from_a_user_namespace(box: Box) -> None:
    path = V2 / cgroup_name("v2-user")
    connection = box.launch()
    watch = connection.watch()
    request = box.request("sleep", "1000", **v2_request(path))
    pid = connection.start(request)
    assert (path / "cgroup.procs").read_text().split() == [str(pid)]
    stream = connection.open(EXEC, command("sleep", "1000", join=request.join))
    connection.answer(stream)
    assert len((path / "cgroup.procs").read_text().split()) == 2
    connection.signal(9, everyone=True)
    assert connection.collect(watch) == Result(137, 9)
    assert not path.exists()
