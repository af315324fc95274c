"""A server that runs, reached by ssh, becomes an image, and the instance made of it answers in its place."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.harness.abilities import require
from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.images import rootfs_tar
from tests.integration.lives import until, with_image
from tests.integration.test_init_system import inside, wait_up

SIZE = ("--memory", "256M", "--cpus", "2", "--disk", "1G", "--pids", "200")
SHOP = """\
[Service]
ExecStart=/usr/bin/systemd-socket-activate --inetd -a -l 8000 cat /srv/shop/answer
ExecStop=/bin/sh -c 'echo final > /srv/shop/answer; rm -f /srv/shop/lock; ln /srv/shop/answer /srv/shop/same'
[Install]
WantedBy=multi-user.target
"""
"""Its end leaves one file changed, one gone and one more: what a second pass is for."""


@pytest.fixture
def key(tmp_path: Path) -> Path:
    require("ssh", "nsenter")
    made = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", made], check=True)
    return made


@pytest.fixture
def server(shared_daemon: Daemon, key: Path) -> Daemon:
    """A Debian with systemd, sshd and a service of its own, behind ports 2222 and 8000."""
    with_image(shared_daemon, rootfs_tar("system"), "system")
    shared_daemon.cli(
        *("run", "-d", "-i", "--init", "system", "--name", "old", "-p", "2222:22", "-p", "8000:8000", *SIZE, "system")
    )
    wait_up(shared_daemon, "old")
    files = {
        "/etc/systemd/system/shop.service": SHOP,
        "/srv/shop/answer": "at first\n",
        "/srv/shop/lock": "locked\n",
        "/root/.ssh/authorized_keys": key.with_suffix(".pub").read_text(),
        "/etc/fstab": "UUID=none / ext4 errors=remount-ro 0 1\n",
        "/boot/vmlinuz-1": "a kernel",
    }
    for path, text in files.items():
        inside(shared_daemon, "install", "-D", "-m", "600", "/dev/stdin", path, name="old", stdin=text)
    inside(shared_daemon, "sh", "-c", "setcap cap_net_raw+ep /usr/bin/true || true", name="old")
    inside(shared_daemon, "systemctl", "enable", "--now", "shop.service", name="old")
    until("the shop answers", lambda: answer(shared_daemon) == "at first\n")
    return shared_daemon


def answer(daemon: Daemon) -> str:
    assert daemon.outside
    try:
        with daemon.outside.connect(daemon.outside.inside4, 8000) as connection:
            return str(connection.recv(100).decode())
    except OSError:
        return ""


def from_server(daemon: Daemon, key: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", f"IdentityFile={key}")
    argv = ["nsenter", "-t", str(daemon.sandbox.pid), "-n", str(BULKHEAD), "image", "from-server"]
    argv += [word for option in options for word in ("-o", option)]
    done = subprocess.run(
        [*argv, *arguments, "ssh://root@127.0.0.1:2222"],
        capture_output=True,
        text=True,
        env=daemon.environment(),
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_an_instance_in_the_place_of_a_server(server: Daemon, key: Path) -> None:
    done = from_server(server, key, "--stop", "shop.service", "--name", "server/shop")
    # It was stopped for the second pass, and runs again.
    until("it runs again", lambda: inside(server, "systemctl", "is-active", "shop", name="old") == "active")
    assert answer(server) == "final\n"
    (image,) = [
        image for image in server.json("image", "ls", "--format", "json") if "system" not in str(image["references"])
    ]
    assert image["references"] == ["server/shop:latest"]
    line = next(line for line in done.stdout.splitlines() if line.startswith("bulkhead run "))
    assert "-p 8000:8000" in line and "2222" not in line and "--init system" in line, done.stdout
    assert "# data    /srv/shop" in done.stdout
    server.cli("rm", "-f", "old")
    server.cli(*shlex.split(line)[1:])
    wait_up(server, "shop")
    until("it answers in the server's place", lambda: answer(server) == "final\n")
    shown = inside(server, "sh", "-c", "ls /srv/shop /boot; stat -c %h /srv/shop/answer; cat /etc/fstab", name="shop")
    assert shown.split()[:6] == ["/boot:", "/srv/shop:", "answer", "same", "2", "#"], shown
    assert "UUID" not in shown


def test_looking_changes_nothing_and_tells_all(server: Daemon, key: Path) -> None:
    before = server.json("image", "ls", "--format", "json")
    told = json.loads(from_server(server, key, "--dry-run", "--minimize", "--format", "json").stdout)
    assert server.json("image", "ls", "--format", "json") == before
    services = {service["name"]: service for service in told["services"]}
    assert services["shop"]["ports"] == [{"port": 8000, "protocol": "tcp", "local": False}]
    assert services["ssh"]["package"] == "openssh-server" and services["ssh"]["memory"] > 0
    assert {left["why"] for left in told["left_out"]} >= {"package lists", "kernel, boot loader, firmware"}
    assert not {"systemd", "openssh-server", "libc6", "bash"} & set(told["dropped_packages"])
    assert told["request"]["init"] == "system" and told["digest"] == ""


def test_what_a_server_uses_is_collected_and_advised_on(server: Daemon, key: Path, tmp_path: Path) -> None:
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", f"IdentityFile={key}")
    argv = ["nsenter", "-t", str(server.sandbox.pid), "-n", str(BULKHEAD), "collect", "--for", "3s", "--every", "1s"]
    argv += [word for option in options for word in ("-o", option)]
    found = tmp_path / "estate.json"
    target = "ssh://root@127.0.0.1:2222"
    subprocess.run([*argv, "--output", found, target], check=True, env=server.environment(), timeout=600)
    told = json.loads(found.read_text())
    [asked] = inside(server, "uname", "-n", name="old").split()
    assert [each["name"] for each in told["servers"]] == [asked] == [each["name"] for each in told["workloads"]]
    # lxcfs tells the plan's numbers, and so does the disk.
    assert told["servers"][0]["cores"] == 2 and told["servers"][0]["memory"] == 256 << 20
    assert 500 << 20 < told["servers"][0]["disk"] <= 1 << 30
    done = subprocess.run(
        [str(BULKHEAD), "advise", found, "--seconds", "1"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("nothing worth doing")
    inside(server, "sh", "-c", "echo 'echo hello' >/root/.bashrc; mv /usr/bin/uname /usr/bin/uname.real", name="old")
    failed = subprocess.run(
        [*argv, target], capture_output=True, text=True, env=server.environment(), timeout=600, check=False
    )
    assert failed.returncode == 125 and "gives a strange answer" in failed.stderr, failed.stderr
    inside(server, "mv", "/usr/bin/uname.real", "/usr/bin/uname", name="old")


def test_a_directory_that_is_a_root(shared_daemon: Daemon, tmp_path: Path) -> None:
    root = tmp_path / "root"
    subprocess.run(["mkdir", root], check=True)
    subprocess.run(["tar", "-C", root, "-xf", rootfs_tar("servers")], check=True)
    # What leads out of it leads nowhere.
    (root / "etc/os-release").unlink()
    (root / "etc/os-release").symlink_to("/etc/shadow")
    os.mknod(root / "etc/disk", 0o600 | 0o060000, os.makedev(7, 0))
    done = shared_daemon.cli("image", "from-server", "--minimize", "--name", "web", root)
    assert "service nginx" in done.stdout and "devices" in done.stdout
    assert "dropped packages" in done.stdout
    looked = 'nginx -t 2>&1 && test -z "$(dpkg --audit)" && readlink /etc/os-release && test ! -e /etc/disk'
    assert "/etc/shadow" in shared_daemon.cli("run", "--rm", "web", "sh", "-c", looked).stdout


def test_data_goes_into_volumes_that_outlive_the_instance(
    shared_daemon: Daemon, tmp_path: Path, busybox_tar: Path
) -> None:
    """What is printed with --volumes is a script: run as it is, with a command for the instance at its end."""
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "-C", root, "-xf", busybox_tar], check=True)
    (root / "srv/shop").mkdir(parents=True)
    (root / "srv/shop/answer").write_text("forty-two\n")
    os.chown(root / "srv/shop/answer", 33, 33)
    script = tmp_path / "shop.sh"
    done = shared_daemon.cli("image", "from-server", "--volumes", "--name", "server/shop2", root)
    lines = done.stdout.splitlines()
    (volume,) = [line.split()[3] for line in lines if line.startswith("bulkhead volume create ")]
    assert lines[-1].startswith("bulkhead run -d --name shop2 ")
    assert f"-v {volume}:/srv/shop" in lines[-1]
    script.write_text("\n".join(lines) + " sh -c 'echo more >> /srv/shop/answer; sleep 1000'\n")
    path = f"{BULKHEAD.parent}:{os.environ['PATH']}"
    subprocess.run(["sh", "-e", script], check=True, env={**shared_daemon.environment(), "PATH": path}, timeout=120)
    held = ("-v", f"{volume}:/mnt", "server/shop2")
    until("it wrote", lambda: "more" in shared_daemon.cli("run", "--rm", *held, "cat", "/mnt/answer").stdout)
    shared_daemon.cli("rm", "-f", "shop2")
    kept = shared_daemon.cli("run", "--rm", *held, "sh", "-c", "cat /mnt/answer; stat -c %u /mnt/answer").stdout
    assert kept == "forty-two\nmore\n33\n"
    # The image is as it was copied.
    assert shared_daemon.cli("run", "--rm", "server/shop2", "cat", "/srv/shop/answer").stdout == "forty-two\n"
