"""Whole systems: an unmodified Debian whose init is systemd, in a container and in a virtual machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.images import rootfs_tar
from tests.harness.kernels import kernel_layout
from tests.integration.lives import state, until, with_image

SIZE = ("--memory", "256M", "--cpus", "2", "--disk", "512M", "--pids", "200")
MARKER = "/var/lib/marker"
UNITS = {
    "fires.timer": "[Timer]\nOnActiveSec=100ms\nAccuracySec=10ms\n",
    "fires.service": f"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo fired >> {MARKER}'\n",
    "lasts.service": "[Unit]\nAfter=ssh.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
    f"ExecStop=/bin/sh -c 'systemctl is-active ssh >> {MARKER}; echo stopped >> {MARKER}'\n",
}
"""The last is stopped before ssh is: its marker tells whether the order was kept."""


def inside(daemon: Daemon, *command: str, name: str = "sys", stdin: str = "") -> str:
    """What a command in the system prints."""
    return daemon.cli("exec", *(("-i",) if stdin else ()), name, *command, stdin=stdin).stdout.strip()


def wait_up(daemon: Daemon, name: str = "sys", *, seconds: float = 60.0) -> None:
    """Wait until its boot is over; fails unless every unit is well."""
    look = ("exec", name, "systemctl", "is-system-running", "--wait")
    until(
        "its bus answers", lambda: daemon.cli(*look, check=False).stdout.strip() not in ("", "offline"), seconds=seconds
    )
    found = daemon.cli(*look, check=False).stdout.strip()
    assert found == "running", daemon.cli("exec", name, "systemctl", "--failed", "--no-pager", check=False).stdout


@pytest.fixture(scope="module")
def system(module_daemon: Daemon) -> Daemon:
    """A daemon in which the system "sys" has booted, once for all tests here."""
    with_image(module_daemon, rootfs_tar("system"), "system")
    module_daemon.cli("run", "-d", "-i", "--init", "system", "--name", "sys", "-p", "2222:22", *SIZE, "system")
    wait_up(module_daemon)
    return module_daemon


def test_it_reaches_multi_user(system: Daemon) -> None:
    assert (
        inside(system, "systemctl", "is-active", "multi-user.target", "ssh", "dbus", "systemd-logind").split()
        == ["active"] * 4
    )
    described = system.json("inspect", "sys")[0]
    identity = described["id"]
    assert inside(system, "cat", "/etc/machine-id", "/run/systemd/container").split() == [identity, "bulkhead"]
    assert described["config"]["argv"] == ["/sbin/init"]
    assert any("as a system" in line for line in described["not_isolated"])
    until("the console is logged", lambda: "login:" in system.cli("logs", "sys").stdout)


def test_a_timer_fires(system: Daemon) -> None:
    for name, text in UNITS.items():
        inside(system, "tee", f"/etc/systemd/system/{name}", stdin=text)
    inside(system, "systemctl", "daemon-reload")
    inside(system, "systemctl", "start", "lasts.service", "fires.timer")
    until("it fires", lambda: "fired" in system.cli("exec", "sys", "cat", MARKER, check=False).stdout)


def test_sshd_answers_and_logs_in(system: Daemon) -> None:
    assert system.outside
    with system.outside.connect(system.outside.inside4, 2222) as connection:
        assert connection.recv(64).startswith(b"SSH-2.0-OpenSSH")
    inside(
        system,
        "sh",
        "-c",
        "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id && cp /root/.ssh/id.pub /root/.ssh/authorized_keys",
    )
    login = ("ssh", "-i", "/root/.ssh/id", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "root@127.0.0.1")
    session, user = inside(system, *login, "cat /proc/self/cgroup; loginctl show-user root -p State").splitlines()[-2:]
    assert session.startswith("0::/user.slice/user-0.slice/session-")
    assert user == "State=active"


def test_set_id_programs_work_for_users(system: Daemon) -> None:
    inside(system, "sh", "-c", "cp /usr/bin/id /usr/local/bin/rootid; chmod 4755 /usr/local/bin/rootid")
    assert system.cli("exec", "-u", "nobody", "sys", "rootid", "-u").stdout.strip() == "0"
    assert system.cli("exec", "-u", "nobody", "sys", "id", "-un").stdout.strip() == "nobody"


def test_the_console_takes_a_login(system: Daemon) -> None:
    argv = [str(BULKHEAD), "attach", "sys"]
    with subprocess.Popen(argv, stdin=-1, stdout=-1, env=system.environment()) as attached:
        assert attached.stdin and attached.stdout
        attached.stdin.write(b"nobody-here\r")
        attached.stdin.flush()
        said = b""
        while b"Password:" not in said:
            chunk = attached.stdout.read1(4096)
            assert chunk, said
            said += chunk
        attached.kill()


def test_the_plan_holds_for_all_of_it(system: Daemon) -> None:
    """A service that wants more than the plan has is ended; the system and its other services go on."""
    hog = ("systemd-run", "-q", "--wait", "-p", "OOMPolicy=continue")
    assert system.cli("exec", "sys", *hog, "tail", "/dev/zero", check=False).returncode != 0
    system.cli("update", "--pids", "60", "sys")
    forks = "i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done"
    assert system.cli("exec", "sys", "sh", "-c", forks, check=False).returncode != 0
    system.cli("update", "--pids", "200", "sys")
    until("it has processes to spare", lambda: system.cli("exec", "sys", "true", check=False).returncode == 0)
    assert inside(system, "systemctl", "is-active", "ssh", "dbus").split() == ["active", "active"]
    (row,) = system.json("stats", "--no-stream", "--format", "json", "sys")
    assert 0 < row["memory"] <= row["memory_limit"] == 256 << 20
    assert row["pids"] > 5


def test_cgroups_above_its_own_are_out_of_reach(system: Daemon) -> None:
    """Its root makes groups, up to a bound; limits of its own root, other trees and release agents stay the host's."""
    script = """
    cd /sys/fs/cgroup
    mkdir mine && echo made
    for file in cgroup.max.descendants cgroup.max.depth memory.max pids.max cpu.max cgroup.freeze; do
        [ -e $file ] && (echo max > $file || echo 1 > $file) 2>/dev/null && echo wrote $file
    done
    mkdir /tmp/v2; mount -t cgroup2 none /tmp/v2 && cat /tmp/v2/cgroup.procs >/dev/null && ls /tmp/v2 | grep -c '^mine$'
    umount /tmp/v2
    for controller in memory pids devices cpu freezer blkio; do
        mkdir -p /tmp/$controller
        mount -t cgroup -o $controller none /tmp/$controller 2>/dev/null || continue
        cd /tmp/$controller
        mkdir evil 2>/dev/null && echo made a $controller group
        for file in tasks cgroup.procs release_agent notify_on_release devices.allow memory.limit_in_bytes pids.max; do
            [ -e $file ] && (echo 1 > $file) 2>/dev/null && echo wrote $controller/$file
        done
        cd /; umount /tmp/$controller
    done
    mount -t cgroup -o none,name=evil none /tmp/v2 2>/dev/null && echo made a hierarchy
    mkdir $(seq -f /sys/fs/cgroup/mine/%g 2000) 2>/dev/null
    [ $(ls -d /sys/fs/cgroup/mine/*/ | wc -l) -lt 1024 ] && echo bounded
    deep=/sys/fs/cgroup; i=0; while [ $i -lt 50 ] && deep=$deep/d && mkdir $deep 2>/dev/null; do i=$((i+1)); done
    [ $i -lt 33 ] && echo shallow
    true
    """
    assert inside(system, "sh", stdin=script).splitlines() == ["made", "1", "bounded", "shallow"]


def test_it_lives_through_a_pause_and_the_daemons_end(system: Daemon) -> None:
    system.cli("pause", "sys")
    assert state(system, "sys") == "paused"
    system.cli("unpause", "sys")
    assert inside(system, "systemctl", "is-active", "ssh") == "active"
    system.kill9()
    system.start()
    assert state(system, "sys") == "running"
    assert inside(system, "systemctl", "is-active", "ssh") == "active"


def test_it_is_stopped_in_order_and_can_be_told_to_reboot(system: Daemon) -> None:
    """The last test: a reboot ends as a failure does, and the policy starts it again; a halt ends with 0."""
    system.cli("stop", "sys")
    ended = system.json("inspect", "sys")[0]["exit"]
    assert (ended["code"], ended["signal"], ended["error"]) == (0, 0, "")
    system.cli("update", "--restart", "on-failure", "sys")
    system.cli("start", "sys")
    assert inside(system, "cat", MARKER).split()[-2:] == ["active", "stopped"]
    wait_up(system)
    system.cli("exec", "sys", "systemctl", "reboot", check=False)
    until(
        "it starts again",
        lambda: system.json("inspect", "sys")[0]["restarts"] == 1 and state(system, "sys") == "running",
    )
    wait_up(system)
    system.cli("exec", "sys", "systemctl", "poweroff", check=False)
    until("it has ended", lambda: state(system, "sys") == "exited")
    described = system.json("inspect", "sys")[0]
    assert (described["exit"]["code"], described["restarts"]) == (0, 1)
    system.cli("rm", "sys")


def test_the_same_root_boots_as_a_machine(module_daemon: Daemon) -> None:
    daemon = with_image(module_daemon, rootfs_tar("system"), "system")
    if "kernel/debian" not in daemon.cli("image", "ls").stdout:
        daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    run = ("run", "-d", "--isolation", "vm", "--no-template", "--init", "system", "--name", "machine", *SIZE)
    daemon.cli(*run, "--cpus", "1", "system")
    wait_up(daemon, "machine", seconds=240)
    assert (
        inside(daemon, "systemctl", "is-active", "ssh", "multi-user.target", name="machine").split() == ["active"] * 2
    )
    assert "memory" in inside(daemon, "cat", "/sys/fs/cgroup/cgroup.controllers", name="machine").split()
    daemon.cli("stop", "machine", timeout=300)
    assert daemon.json("inspect", "machine")[0]["exit"]["code"] == 0
    daemon.cli("rm", "machine")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--init", "mini"), "'mini' is not one of none, system"),
        (("--init", "system", "--isolation", "chroot"), "no system runs in it"),
        (("--init", "system", "-u", "nobody"), "init runs as root, not as nobody"),
        (("--init", "system", "-v", "data:/run"), "nothing can be mounted at /run"),
    ],
)
def test_what_cannot_be_is_refused(module_daemon: Daemon, options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with_image(module_daemon, rootfs_tar("system"), "system")
    done = module_daemon.cli("create", *options, *SIZE, "system", check=False)
    assert done.returncode == 125
    assert said in done.stderr
