"""Another wall for what runs: the data, the name and the address stay, and what is not well there comes back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout
from tests.integration.lives import SECONDS, state, until, with_image

SIZE = ("--memory", "128M", "--cpus", "1", "--disk", "64M")
SERVE = "mkdir -p /w; echo hello > /w/index.html; httpd -h /w; sleep 100000 & wait"
FILES = """
set -e
mkdir -p /data/sub; cd /data
echo one > kept; chmod 640 kept; chown 1000:2000 kept; touch -d 2001-02-03 kept
ln kept again; ln -s ../nowhere link; mkfifo -m 600 pipe
cp /bin/busybox tool; chmod 4755 tool
truncate -s 20M hole; echo end >> hole
mkdir -m 2770 dir; chown 5:6 dir
rm /etc/os-release; echo changed >> /etc/passwd; rm -r /home/user; echo file > /home/user
touch "odd
name"
"""
LOOK = r"""
cd /data
stat -c '%n %F %a %u %g %s %h %Y' kept again link pipe tool hole dir /etc/passwd /home/user
readlink link; du -k hole; md5sum kept tool hole /etc/passwd; ls /data | md5sum; ls /home /etc
[ kept -ef again ] && echo same
"""


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon with an image and a kernel."""
    if "kernel/debian" not in shared_daemon.cli("image", "ls").stdout:
        shared_daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    return with_image(shared_daemon, busybox_tar, "busybox")


def level(daemon: Daemon, name: str) -> str:
    """Its wall."""
    return str(daemon.json("inspect", name)[0]["isolation"])


def move(daemon: Daemon, name: str, isolation: str, *options: str) -> dict[str, object]:
    """Move it; how it went."""
    told = daemon.cli("move", name, "--isolation", isolation, "--format", "json", *options)
    return dict(json.loads(told.stdout))


def not_moved(daemon: Daemon, name: str, isolation: str, *options: str) -> str:
    """What is said where it is not."""
    done = daemon.cli("move", name, "--isolation", isolation, *options, check=False)
    assert done.returncode == 125, done
    assert "Traceback" not in done.stderr
    return done.stderr


def leftovers(daemon: Daemon) -> list[str]:
    """What a move leaves in bundles, which is nothing. A template that is being made has a bundle for some seconds."""
    deadline = time.monotonic() + SECONDS
    while (found := _in_bundles(daemon)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _in_bundles(daemon: Daemon) -> list[str]:
    found = [*daemon.config.instances_dir.glob("*/move.json*"), *daemon.config.instances_dir.glob("*/old-*")]
    known = {row["spec"]["id"] for row in daemon.api("GET", "/v1/instances").body}
    return [str(file) for file in found] + sorted({e.name for e in daemon.config.instances_dir.iterdir()} - known)


def look(daemon: Daemon, name: str) -> str:
    """What can be seen of its files."""
    return daemon.cli("exec", name, "sh", "-c", LOOK).stdout


def test_between_chroot_and_container(bulkhead: Daemon) -> None:
    bulkhead.cli("run", "-d", "--name", "room", "--isolation", "chroot", *SIZE, "busybox", "sleep", "100000")
    bulkhead.cli("exec", "room", "sh", "-c", FILES)
    before = look(bulkhead, "room")
    told = move(bulkhead, "room", "container")
    assert told["source"] == "chroot"
    assert told["copied"] == 0
    assert isinstance(told["downtime"], float)
    assert told["downtime"] > 0
    assert level(bulkhead, "room") == "container"
    assert look(bulkhead, "room") == before
    assert "others" in not_moved(bulkhead, "room", "chroot", "--network", "others")
    move(bulkhead, "room", "chroot", "--network", "host")
    assert level(bulkhead, "room") == "chroot"
    assert look(bulkhead, "room") == before
    assert "--network default" in not_moved(bulkhead, "room", "vm")
    bulkhead.cli("stop", "-t", "0", "room")
    move(bulkhead, "room", "container", "--network", "default", "--disk", "96M")
    assert state(bulkhead, "room") == "exited"
    bulkhead.cli("start", "room")
    assert look(bulkhead, "room") == before
    assert leftovers(bulkhead) == []
    bulkhead.cli("rm", "-f", "room")


def test_up_and_down_again(bulkhead: Daemon) -> None:
    """The address and the port answer behind each wall, and files are what they were."""
    assert bulkhead.outside
    bulkhead.cli("run", "-d", "--name", "web", "-p", "8090:80", *SIZE, "busybox", "sh", "-c", SERVE)
    bulkhead.cli("exec", "web", "sh", "-c", FILES)
    before, address = look(bulkhead, "web"), bulkhead.json("inspect", "web")[0]["address"]
    told = move(bulkhead, "web", "vm")
    assert (told["source"], told["copied"]) == ("container", 0)
    assert level(bulkhead, "web") == "vm"
    assert bulkhead.json("inspect", "web")[0]["address"] == address
    assert look(bulkhead, "web") == before
    until("it serves", lambda: bulkhead.outside and bulkhead.outside.fetch(8090) == (200, b"hello\n"))
    bulkhead.cli("exec", "web", "sh", "-c", "echo more > /data/more; rm /data/tool; mknod /data/null c 1 3")
    before = bulkhead.cli("exec", "web", "sh", "-c", LOOK, check=False).stdout
    told = move(bulkhead, "web", "container")
    assert isinstance(told["copied"], int)
    assert told["copied"] > 0
    assert told["dropped"] == ["/data/null: a device"]
    assert level(bulkhead, "web") == "container"
    assert bulkhead.json("inspect", "web")[0]["address"] == address
    assert bulkhead.cli("exec", "web", "cat", "/data/more").stdout == "more\n"
    bulkhead.cli("exec", "web", "touch", "-d", "2001-01-01", "/data/null")
    after = bulkhead.cli("exec", "web", "sh", "-c", LOOK, check=False).stdout
    assert after == before
    until("it serves", lambda: bulkhead.outside and bulkhead.outside.fetch(8090) == (200, b"hello\n"))
    assert leftovers(bulkhead) == []
    bulkhead.cli("rm", "-f", "web")
