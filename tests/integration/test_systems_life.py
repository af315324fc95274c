"""The life of unmodified systems, with one that boots in a moment: console, buttons, ends, crashes, disks."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness import computers
from tests.harness.computers import HELLO
from tests.harness.daemon import BULKHEAD, Daemon

PATIENCE = 120.0
IMAGE = "disk/small"
SIZE = ("--memory", "48M", "--cpus", "1", "--disk", "40M")
CALM = {"BULKHEAD_CRASH_AT": ""}
BODY = {
    "image": IMAGE,
    "name": "small",
    "isolation": "vm",
    "plan": {"memory": 48 << 20, "cpus": 1, "disk": 40 << 20},
    "user_data": "#cloud-config\n",
    "ports": [{"host_port": 2022, "port": 22}],
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return computers.make(tmp_path_factory.mktemp("computer") / "disk.raw")


@pytest.fixture
def hosts(shared_daemon: Daemon, disk: Path) -> Daemon:
    """The daemon with the small system."""
    if IMAGE not in shared_daemon.cli("image", "ls").stdout:
        shared_daemon.cli("image", "import", disk, IMAGE)
    return shared_daemon


def run(daemon: Daemon, *words: str) -> None:
    daemon.cli("run", "-d", "--isolation", "vm", *SIZE, "--name", "small", *words, IMAGE)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def about(daemon: Daemon) -> dict[str, object]:
    found: dict[str, object] = daemon.json("inspect", "small")[0]
    return found


def boots(daemon: Daemon) -> int:
    """How often it has said that it is up."""
    return daemon.cli("logs", "small").stdout.count(HELLO)


class Attached:
    """Somebody at its serial port."""

    def __init__(self, daemon: Daemon) -> None:
        self._process = subprocess.Popen(
            [str(BULKHEAD), "attach", "small"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=daemon.environment(),
        )

    def type(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def read(self, text: str) -> None:
        assert self._process.stdout
        said = b""
        while text.encode() not in said:
            piece = os.read(self._process.stdout.fileno(), 4096)
            assert piece, said
            said += piece

    def wait(self) -> int:
        with self._process:
            return self._process.wait(PATIENCE)


@pytest.mark.parametrize("terminal", ["-it", "-i"])
def test_its_console(hosts: Daemon, terminal: str) -> None:
    run(hosts, terminal)
    until(lambda: boots(hosts) == 1)
    attached = Attached(hosts)
    attached.type("abc")
    attached.read("abc")
    pid = about(hosts)["pid"]
    attached.type("r")
    attached.read(HELLO)
    assert about(hosts)["pid"] == pid, "a restart is the system's own business"
    attached.type("q")
    assert attached.wait() == 0
    until(lambda: about(hosts)["state"] == "exited")
    assert boots(hosts) == 2
    hosts.cli("rm", "small")


def test_its_buttons(hosts: Daemon) -> None:
    run(hosts)
    until(lambda: boots(hosts) == 1)
    hosts.cli("stop", "--time", "60", "small")
    assert about(hosts)["exit"]["code"] == 0  # type: ignore[index]
    hosts.cli("start", "small")
    until(lambda: boots(hosts) == 2)
    refused = hosts.cli("kill", "-s", "USR1", "small", check=False)
    assert refused.returncode == 125 and "takes no signal" in refused.stderr
    hosts.cli("kill", "-s", "TERM", "small")
    until(lambda: about(hosts)["state"] == "exited")
    assert about(hosts)["exit"]["code"] == 0  # type: ignore[index]
    hosts.cli("start", "small")
    hosts.cli("kill", "small")
    assert about(hosts)["exit"]["code"] == 137  # type: ignore[index]
    hosts.cli("rm", "small")


def test_a_client_that_is_interrupted_presses_the_button(hosts: Daemon) -> None:
    argv = [str(BULKHEAD), "run", "--rm", "--isolation", "vm", *SIZE, "--name", "small", IMAGE]
    client = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=hosts.environment())
    with client:
        assert client.stdout
        said = b""
        while HELLO.encode() not in said:
            said += os.read(client.stdout.fileno(), 4096)
        client.send_signal(signal.SIGINT)
        assert client.wait(PATIENCE) == 0


def test_it_goes_on_without_a_daemon_and_when_it_dies(hosts: Daemon) -> None:
    run(hosts, "--restart", "on-failure", "-p", "2022:22")
    until(lambda: boots(hosts) == 1)
    hosts.kill9()
    hosts.start()
    first = about(hosts)
    assert first["state"] == "running"
    hosts.cli("pause", "small")
    hosts.kill9()
    hosts.start()
    assert about(hosts)["state"] == "paused"
    hosts.cli("unpause", "small")
    os.kill(int(str(first["pid"])), signal.SIGKILL)
    until(lambda: about(hosts)["state"] == "running" and about(hosts)["pid"] != first["pid"])
    assert about(hosts)["restarts"] == 1
    until(lambda: boots(hosts) == 2)
    hosts.cli("rm", "-f", "small")


@pytest.mark.parametrize(
    "words",
    [
        ("--machine", "pc", "--disk-bus", "ide", "--nic", "e1000"),
        ("--machine", "pc", "--disk-bus", "sata"),
        ("--machine", "pc"),
        ("--disk-bus", "sata", "--nic", "e1000"),
    ],
)
def test_its_computer(hosts: Daemon, words: tuple[str, ...]) -> None:
    """Firmware starts it from each kind of disk, and each has its power button."""
    run(hosts, *words)
    until(lambda: boots(hosts) == 1)
    hosts.cli("stop", "--time", "60", "small")
    assert about(hosts)["exit"]["code"] == 0  # type: ignore[index]
    hosts.cli("rm", "small")


def test_its_files(hosts: Daemon) -> None:
    refused = hosts.cli("create", "--isolation", "vm", *SIZE[:-1], "16M", IMAGE, check=False)
    assert "smaller than the disk" in refused.stderr
    run(hosts, "--firmware", "uefi", "--memory", "128M")
    bundle = Path(str(about(hosts)["bundle"]))
    modes = {each.name: each.stat().st_mode & 0o777 for each in bundle.iterdir() if each.suffix in (".img", ".vars")}
    assert modes == {"disk.img": 0o600, "seed.img": 0o600, "uefi.vars": 0o600}
    assert not (bundle / "seed.new").exists()
    assert (bundle / "disk.guest").exists()
    for words, said in ((("exec", "small", "true"), "no guest agent answers"), (("cp", "small:/x", "."), "unmodified")):
        done = hosts.cli(*words, check=False)
        assert done.returncode == 125 and said in done.stderr
    assert "running" not in hosts.cli("update", "--cpus", "0.5", "--iops", "200", "small").stderr
    busy = hosts.cli("update", "--disk", "64M", "small", check=False)
    assert busy.returncode == 125 and "a system that runs" in busy.stderr
    hosts.cli("kill", "small")
    hosts.cli("update", "--disk", "64M", "small")
    assert (bundle / "disk.img").stat().st_size == 64 << 20
    shrink = hosts.cli("update", "--disk", "40M", "small", check=False)
    assert "cannot shrink" in shrink.stderr
    hosts.cli("rm", "small")
    assert not bundle.exists()


def test_its_snapshots(hosts: Daemon) -> None:
    """A disk that a system goes on writing is copied as of one moment; a clone is another machine."""
    run(hosts, "--nic", "e1000", "--hostname", "first")
    refused = hosts.cli("snapshot", "create", "--memory", "small", "s0", check=False)
    assert refused.returncode == 125 and "memory" in refused.stderr
    hosts.cli("snapshot", "create", "small", "s1")
    assert about(hosts)["state"] == "running"
    hosts.cli("run", "-d", "--from", "small/s1", "--name", "twin")
    until(lambda: HELLO in hosts.cli("logs", "twin").stdout)
    (twin,) = hosts.json("inspect", "twin")
    assert twin["config"]["system"]["nic"] == "e1000"
    assert twin["config"]["hostname"] != "first"
    seed = (Path(twin["bundle"]) / "seed.img").read_bytes()
    assert twin["id"].encode() in seed
    assert str(about(hosts)["id"]).encode() not in seed
    hosts.cli("rm", "-f", "small", "twin")


@pytest.mark.parametrize(
    "point", ["create.bundle", "create.disk", "create.driver", "start.named", "start.launched", "start.running"]
)
def test_a_daemon_killed_there_is_mended(make_daemon: Callable[..., Daemon], disk: Path, point: str) -> None:
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=0)
    daemon.cli("image", "import", disk, IMAGE)
    with suppress(ConnectionError):
        daemon.api("POST", "/v1/instances", BODY)
        daemon.api("POST", "/v1/instances/small/start")
    assert daemon.wait() == -signal.SIGKILL
    daemon.start(env=CALM)
    assert "could not repair" not in daemon.log()
    if point.startswith("create"):
        assert daemon.api("POST", "/v1/instances", BODY).status == 201
    assert daemon.api("POST", "/v1/instances/small/start").status == 200
    until(lambda: boots(daemon) >= 1)
    daemon.cli("rm", "-f", "small")
    assert "Traceback" not in daemon.log()
