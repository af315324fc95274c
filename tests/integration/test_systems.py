"""Unmodified systems through the daemon and the command line: Debian with systemd, from its firmware to its ssh."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import systems
from tests.harness.daemon import BULKHEAD, Daemon

pytestmark = pytest.mark.timeout(5400)
PATIENCE = 1500.0
"""Seconds: under TCG, on a host that has other things to do, a boot takes minutes."""
IMAGE = "disk/debian"
SIZE = ("--memory", "512M", "--cpus", "2", "--disk", "3G")
PORT = 2222
SECRET = "a-secret-word"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


@pytest.fixture
def hosts(shared_daemon: Daemon) -> Daemon:
    """The daemon with a Debian disk."""
    if IMAGE not in shared_daemon.cli("image", "ls").stdout:
        shared_daemon.cli("image", "import", systems.debian_disk(), IMAGE, timeout=600)
    return shared_daemon


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", made], check=True)
    return made


def user_data(key: Path) -> str:
    """Lets the key in, and says a secret."""
    return f"#cloud-config\nssh_authorized_keys:\n  - {key.with_suffix('.pub').read_text()}\n# {SECRET}\n"


def until(condition: Callable[[], object], what: Callable[[], object] = str) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: {what()}"
        time.sleep(0.5)


def console(daemon: Daemon, name: str) -> str:
    return daemon.cli("logs", name).stdout


def wait_for_login(daemon: Daemon, name: str, text: str) -> None:
    """Until its console says so; it has ended where it says something else at last."""
    until(
        lambda: text in console(daemon, name) or state(daemon, name) != "running",
        lambda: console(daemon, name)[-3000:],
    )
    assert text in console(daemon, name), console(daemon, name)[-3000:]


def state(daemon: Daemon, name: str) -> str:
    return str(daemon.json("inspect", name)[0]["state"])


def ssh(daemon: Daemon, key: Path, command: str) -> str:
    """What a command says that is asked for through the published port, from the daemon's host."""
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=20")
    argv = ["nsenter", "-t", str(daemon.sandbox.pid), "-n", "ssh", "-i", str(key), "-p", str(PORT)]
    argv += [word for option in options for word in ("-o", option)]
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            [*argv, "debian@127.0.0.1", command], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        if done.returncode == 0:
            return done.stdout
        assert done.returncode == 255 and time.monotonic() < deadline, done.stderr
        time.sleep(1)


def test_a_life(hosts: Daemon, key: Path) -> None:
    """One boot, one restart of its own, one end by the power button: all that there is between."""
    hosts.cli(
        *("run", "-dit", "--isolation", "vm", *SIZE, "--name", "guest", "--hostname", "guest-1", "-p", f"{PORT}:22"),
        *("--restart", "on-failure", "--user-data", "-", IMAGE),
        stdin=user_data(key),
        timeout=600,
    )
    wait_for_login(hosts, "guest", "guest-1 login:")
    the_outside_sees_it(hosts, key)
    commands_run_in_it(hosts)
    its_secrets_are_kept(hosts)
    its_console_answers(hosts, "guest-1 login:")
    hosts.cli("pause", "guest")
    assert state(hosts, "guest") == "paused"
    hosts.cli("unpause", "guest")
    (row,) = hosts.json("stats", "--no-stream", "--format", "json")
    assert row["memory"] > 100 << 20 and row["disk_size"] == 3 << 30 and row["disk_used"] < 3 << 30
    hosts.kill9()
    hosts.start()
    assert state(hosts, "guest") == "running"
    assert ssh(hosts, key, "sudo touch /kept; cat /proc/sys/kernel/random/boot_id")
    it_restarts_itself(hosts, key)
    hosts.cli("stop", "--time", "900", "guest", timeout=1000)
    ended = hosts.json("inspect", "guest")[0]
    assert (ended["state"], ended["exit"]["code"], ended["exit"]["signal"]) == ("exited", 0, 0)
    assert "Power down" in console(hosts, "guest")
    hosts.cli("update", "--disk", "4G", "guest")
    hosts.cli("start", "guest")
    first = hosts.json("inspect", "guest")[0]["pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: state(hosts, "guest") == "running" and hosts.json("inspect", "guest")[0]["pid"] not in (0, first))
    (restarted,) = hosts.json("inspect", "guest")
    assert restarted["restarts"] == 1
    assert (Path(restarted["bundle"]) / "disk.img").stat().st_size == 4 << 30
    hosts.cli("rm", "-f", "guest")
    assert not Path(restarted["bundle"]).exists()


def the_outside_sees_it(daemon: Daemon, key: Path) -> None:
    said = ssh(daemon, key, "hostname; df --output=size -B1M / | tail -n1; ip -4 -o addr show scope global; id -un")
    hostname, size, address, user = said.splitlines()
    assert (hostname, user) == ("guest-1", "debian")
    assert int(size) > 2700, "the root file system has not grown"
    (described,) = daemon.json("inspect", "guest")
    assert f" {described['address']['ipv4']}/" in address
    assert described["config"]["system"]["machine"] == "q35"
    # By name, and outwards: what DHCP has told it.
    assert described["address"]["ipv4"] in ssh(daemon, key, "getent ahostsv4 guest.bulkhead")


def commands_run_in_it(daemon: Daemon) -> None:
    until(lambda: daemon.cli("exec", "guest", "true", check=False).returncode == 0)
    done = daemon.cli("exec", "-e", "WORD=x y", "guest", "sh", "-c", 'echo "$WORD"; echo no >&2; exit 7', check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "x y\n", "no\n")
    assert daemon.cli("exec", "guest", "/no/such", check=False).returncode == 127
    until(lambda: daemon.cli("exec", "guest", "systemctl", "is-active", "multi-user.target", check=False).stdout != "")
    until(lambda: daemon.cli("exec", "guest", "systemctl", "is-active", "multi-user.target").stdout == "active\n")
    flood = daemon.cli("exec", "guest", "head", "-c", "1000000", "/dev/zero", check=False)
    assert flood.returncode == 125 and "more than a guest agent passes on" in flood.stderr
    for words, said in (
        (("exec", "-it", "guest", "sh"), "no terminal (-t)"),
        (("exec", "-u", "www-data", "guest", "id"), "no user of its own"),
        (("exec", "-d", "guest", "sleep", "1"), "cannot be left running"),
        (("cp", "guest:/etc/hostname", "/tmp/"), "unmodified system"),
        (("kill", "-s", "USR1", "guest"), "takes no signal"),
    ):
        refused = daemon.cli(*words, check=False)
        assert refused.returncode == 125 and said in refused.stderr, refused


def its_secrets_are_kept(daemon: Daemon) -> None:
    (described,) = daemon.json("inspect", "guest")
    bundle = Path(described["bundle"])
    assert SECRET.encode() in (bundle / "seed.img").read_bytes()
    assert (bundle / "seed.img").stat().st_mode & 0o777 == 0o600
    assert SECRET not in json.dumps(described) + (bundle / "spec.json").read_text() + daemon.log()
    assert SECRET not in daemon.cli("events", "--since", "2h").stdout


def its_console_answers(daemon: Daemon, prompt: str) -> None:
    """Who attaches has the serial port, to type on as well."""
    attached = subprocess.Popen(
        [str(BULKHEAD), "attach", "guest"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=daemon.environment(),
    )
    assert attached.stdin and attached.stdout
    try:
        attached.stdin.write(b"\n")
        attached.stdin.flush()
        said = b""
        while prompt.encode() not in said:
            piece = os.read(attached.stdout.fileno(), 4096)
            assert piece, said
            said += piece
    finally:
        attached.kill()
        attached.communicate()


def it_restarts_itself(daemon: Daemon, key: Path) -> None:
    """As on hardware: the same machine goes on."""
    before, pid = ssh(daemon, key, BOOT_ID), daemon.json("inspect", "guest")[0]["pid"]
    daemon.cli("exec", "guest", "systemctl", "reboot", check=False)

    def again() -> bool:
        return daemon.cli("exec", "guest", *BOOT_ID.split(), check=False).stdout not in ("", before)

    until(again)
    assert daemon.json("inspect", "guest")[0]["pid"] == pid
    assert ssh(daemon, key, "ls /kept; " + BOOT_ID).splitlines()[0] == "/kept"


def test_an_old_computer(hosts: Daemon) -> None:
    """Disks of long ago, a BIOS, and a system that switches itself off.

    Debian's cloud kernel has no driver for e1000, and waits minutes for a network then: test_systems_life has that.
    """
    words = ("--machine", "pc", "--disk-bus", "ide", "--hostname", "old")
    hosts.cli("run", "-d", "--isolation", "vm", *SIZE, *words, "--name", "old", IMAGE, timeout=600)
    wait_for_login(hosts, "old", "old login:")
    until(lambda: hosts.cli("exec", "old", "true", check=False).returncode == 0)
    look = "findmnt -no SOURCE /; cat /sys/bus/pci/devices/*/device; blkid -o value -s LABEL /dev/sr0"
    said = hosts.cli("exec", "old", "sh", "-c", look).stdout.split()
    assert said[0] == "/dev/sda1"
    assert "0x1237" in said, "no i440FX"
    assert said[-1] == "CIDATA"
    hosts.cli("exec", "old", "systemctl", "poweroff", check=False)
    until(lambda: state(hosts, "old") == "exited")
    assert hosts.json("inspect", "old")[0]["exit"]["code"] == 0
    hosts.cli("rm", "old")


def test_uefi(hosts: Daemon) -> None:
    hosts.cli("run", "-d", "--isolation", "vm", *SIZE, "--firmware", "uefi", "--name", "new", IMAGE, timeout=600)
    wait_for_login(hosts, "new", "efi: EFI v2")
    variables = Path(hosts.json("inspect", "new")[0]["bundle"]) / "uefi.vars"
    assert variables.stat().st_mode & 0o777 == 0o600
    hosts.cli("kill", "new")
    assert hosts.json("inspect", "new")[0]["exit"]["code"] == 137
    hosts.cli("rm", "new")


def test_what_cannot_be_is_refused_at_once(hosts: Daemon, busybox_tar: Path) -> None:
    refused = hosts.cli("run", "-d", "-e", "A=1", "--disk", "1G", "-v", "v:/v", IMAGE, "ls", check=False)
    assert refused.returncode == 125
    for word in ("use --isolation vm", "a command", "--env", "--volume", "smaller than the disk"):
        assert word in refused.stderr
    wrong = hosts.cli(
        "create", "--isolation", "vm", "--disk-bus", "ide", "--network", "host", *SIZE, IMAGE, check=False
    )
    assert "no IDE controller" in wrong.stderr and "host's network" in wrong.stderr
    hosts.cli("image", "import", busybox_tar, "box")
    box = hosts.cli("create", "--nic", "e1000", "--user-data", "-", "box", "true", check=False, stdin=SECRET)
    assert "--user-data, --nic" in box.stderr and SECRET not in box.stderr
    said = hosts.cli("run", "--dry-run", "--isolation", "vm", *SIZE, IMAGE).stdout
    assert "-device virtio-rng-pci" in said
    assert "Traceback" not in hosts.log()
