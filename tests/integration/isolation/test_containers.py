"""What a container and a chroot are, from inside and from the host."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from bulkhead.agent.session import SOCKET
from bulkhead.errors import AgentError, CommandNotExecutable, CommandNotFound
from bulkhead.host import processes
from bulkhead.isolation.base import MountedVolume
from tests.integration.isolation.lab import Lab, namespace


def test_exit_codes_and_output(lab: Lab) -> None:
    done = lab.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, sorted(done.lines)) == (7, ["err", "out"])
    assert lab.run("sh", "-c", "kill -KILL $$").code in (0, 137), "a first process can ignore its own signals"


def test_commands_that_cannot_be_run(lab: Lab) -> None:
    for argv, kind in ((["missing"], CommandNotFound), (["/etc/passwd"], CommandNotExecutable)):
        with pytest.raises(kind, match=argv[0]):
            lab.run(*argv)
    with lab.running() as instance:
        with pytest.raises(CommandNotFound):
            instance.execute("missing")
        with pytest.raises(CommandNotExecutable):
            instance.execute("/etc/passwd")
        assert instance.execute("sh", "-c", "exit 9").code == 9


def test_a_failed_start_leaves_nothing(lab: Lab) -> None:
    bundle = lab.bundle(["true"], user="nobody-has-this-name")
    with pytest.raises(AgentError, match="nobody-has-this-name"):
        lab.driver.start(bundle)
    assert sorted(path.name for path in bundle.directory.iterdir()) == ["disk", "log"]


def test_the_same_command_sees_the_same_in_an_exec(lab: Lab) -> None:
    script = "id -u; id -g; pwd; umask; echo $PATH $HOSTNAME $A; ls /proc/self/fd | wc -l"
    with lab.running(
        "sh", "-c", f"{script}; echo end; sleep 1000", env=("A=b",), workdir="/tmp", user="user"
    ) as instance:
        workload = instance.log(until="end").splitlines()[:-1]
        assert workload[:4] == ["1000", "1000", "/tmp", "0022"]
        assert instance.execute("sh", "-c", script).lines == workload
        assert instance.execute("sh", "-c", "id -u; pwd; echo $A", user="0", workdir="/", env=("A=c",)).lines == [
            "0",
            "/",
            "c",
        ]


def test_stop_by_signal_and_by_force(lab: Lab) -> None:
    for script, code in (
        ("trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done", 3),
        ("trap '' TERM; echo up; while :; do sleep 1; done", 137),
    ):
        bundle = lab.bundle(["sh", "-c", script])
        handle = lab.driver.start(bundle)
        while "up" not in (bundle.directory / "log").read_text():
            time.sleep(0.005)
        lab.driver.stop(bundle.directory, handle, signal="TERM", timeout=5 if code == 3 else 0.2)
        found = lab.driver.inspect(bundle.directory, handle)
        assert (found.running, found.exit.code if found.exit else None) == (False, code)
        assert processes.start_time(handle.supervisor_pid) != handle.supervisor_started
        lab.driver.stop(bundle.directory, handle, signal="TERM", timeout=1)
        lab.driver.delete(bundle.directory, bundle.spec.id)
        lab.driver.delete(bundle.directory, bundle.spec.id)
        assert not (bundle.directory / SOCKET).exists()


def test_a_killed_supervisor_is_found_out(lab: Lab) -> None:
    bundle = lab.bundle(["sleep", "1000"])
    handle = lab.driver.start(bundle)
    os.kill(handle.supervisor_pid, signal.SIGKILL)
    assert processes.wait_gone(handle.supervisor_pid, handle.supervisor_started, timeout=5)
    found = lab.driver.inspect(bundle.directory, handle)
    assert (found.running, found.exit) == (False, None)
    lab.driver.stop(bundle.directory, handle, signal="TERM", timeout=1)
    lab.driver.delete(bundle.directory, bundle.spec.id)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{handle.pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{handle.pid}").exists(), "the workload dies with its supervisor"


def test_files_keep_their_ids_on_every_wall(lab: Lab) -> None:
    """On layers, disk, volumes and the host's directories, uid N inside is uid N outside."""
    host, volume = lab.directory / "host", lab.directory / "volume"
    for path in (host, volume):
        path.mkdir()
        (path / "given").touch()
        os.chown(path / "given", 1000, 1000)
    mounted = [
        MountedVolume(source=host, target="/host", read_only=False, volume=False),
        MountedVolume(source=volume, target="/volume", read_only=False, volume=True),
    ]
    script = "for d in /host /volume /tmp; do touch $d/made; chown 33:34 $d/made; done; stat -c %u:%g /[hv]o*/given"
    bundle = lab.bundle(["sh", "-c", script], volumes=mounted)
    handle = lab.driver.start(bundle)
    assert lab.wait(bundle, handle).lines == ["1000:1000", "1000:1000"]
    lab.driver.delete(bundle.directory, bundle.spec.id)
    for made in (host / "made", volume / "made", bundle.directory / "disk/upper/tmp/made"):
        assert (made.stat().st_uid, made.stat().st_gid) == (33, 34)


def test_read_only_volumes_and_files(lab: Lab) -> None:
    source = lab.directory / "config"
    source.write_text("setting")
    mounted = MountedVolume(source=source, target="/etc/app/app.conf", read_only=True, volume=False)
    done = lab.run("sh", "-c", "cat /etc/app/app.conf; echo; echo x > /etc/app/app.conf", volumes=[mounted])
    assert done.lines[0] == "setting"
    assert "Read-only" in done.lines[1]
    assert source.read_text() == "setting"


def test_who_and_where(lab: Lab) -> None:
    bundle = lab.bundle(
        ["sh", "-c", "cat /etc/hostname /proc/sys/kernel/hostname /etc/resolv.conf; sysctl net.ipv4.ping_group_range"]
    )
    done = lab.wait(bundle, lab.driver.start(bundle))
    assert done.lines[:3] == [bundle.spec.hostname, bundle.spec.hostname, "nameserver 192.0.2.53"]
    assert done.lines[3].split("=")[1].split() == ["0", "65535"]


def test_devices_and_shared_memory(lab: Lab) -> None:
    script = """
    head -c 4 /dev/zero >/dev/null && head -c 4 /dev/urandom >/dev/full
    echo x >/dev/shm/x && stat -f -c '%b*%s' /dev/shm
    ls /dev; ls -l /dev/fd | tail -c 14; echo hi >/dev/stdout; stat -c %a /dev/pts/ptmx
    """
    lines = lab.run("sh", "-c", script).lines
    assert "No space left" in lines[0]
    assert eval(lines[1]) == 32 << 20
    assert lines[2:-3] == [
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    ]
    assert lines[-3:] == ["/proc/self/fd", "hi", "666"]


def test_users_may_listen_on_low_ports_in_a_network_of_their_own(lab: Lab) -> None:
    assert lab.run("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", user="user").lines == ["0"]


def test_the_hosts_network(lab: Lab) -> None:
    """With --network host the namespace is shared, its settings are left alone, and exec works the same."""
    before = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    with lab.running(network="host") as instance:
        own = instance.execute("readlink", "/proc/self/ns/net").output.strip()
        assert instance.execute("ls", "/sys/class/net").lines == sorted(
            path.name for path in Path("/sys/class/net").iterdir()
        )
    assert own == namespace("net")
    assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() == before


def test_many_words_and_a_large_environment(lab: Lab) -> None:
    words = [str(number) for number in range(700)]
    done = lab.run("sh", "-c", "echo $# $V599", "sh", *words, env=tuple(f"V{number}={number}" for number in range(600)))
    assert done.lines == ["700 599"]


def test_a_chroot_is_private_files_and_nothing_else(chroot_lab: Lab) -> None:
    script = """
    id -u
    for kind in pid net user mnt; do readlink /proc/self/ns/$kind; done
    mount -t tmpfs x /tmp && echo mounted
    """
    lines = chroot_lab.run("sh", "-c", script).lines
    host = [namespace(kind) for kind in ("pid", "net", "user", "mnt")]
    assert lines[0] == "0"
    assert lines[1:4] == host[:3]
    assert lines[4] != host[3]
    assert lines[-1] == "mounted"
    with chroot_lab.running() as instance:
        assert instance.execute("readlink", "/proc/self/ns/mnt").output.strip() == namespace("mnt", instance.handle.pid)


def test_a_chroot_has_fewer_capabilities_than_the_host(chroot_lab: Lab) -> None:
    done = chroot_lab.run(
        "sh", "-c", "grep -E 'CapEff|CapInh|NoNewPrivs' /proc/self/status; ls /proc/1/root 2>&1 | head -n 1"
    )
    found = dict(line.split(":\t") for line in done.lines if "\t" in line)
    assert int(found["CapInh"], 16) == 0
    assert found["NoNewPrivs"] == "0"
    assert not int(found["CapEff"], 16) >> 16 & 1, "no modules"
    assert "denied" in done.lines[-1], (
        "the host's first process has more capabilities, so that its root is out of reach"
    )


def test_names_of_a_chroot_are_the_hosts(chroot_lab: Lab) -> None:
    assert chroot_lab.run("cat", "/proc/sys/kernel/hostname").lines == [os.uname().nodename]


@pytest.mark.parametrize("isolation", ["container", "chroot"])
def test_a_probe_starts_an_instance(
    isolation: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Lab = request.getfixturevalue("lab" if isolation == "container" else "chroot_lab")
    probe = made.driver.probe()
    assert probe.works, probe.reason
    assert probe.not_isolated
    assert {row.name: row.works for row in probe.abilities} == {"agent": True, "libseccomp": True, "lxcfs": True}
    assert made.driver.probe() is probe
    assert sorted(path.name for path in made.config.run_dir.iterdir()) == [f"probe-{isolation}", "stage"]
    fresh = type(made.driver)(made.config, made.driver._outside)
    monkeypatch.setattr(fresh, "start", None)
    assert fresh.probe() == probe, "known since the first one"


def test_a_probe_that_fails_says_why(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKHEAD_AGENT", "/no/such/agent")
    probe = lab.driver.probe()
    assert (probe.works, "/no/such/agent" in probe.reason, bool(probe.hint)) == (False, True, True)
    monkeypatch.setenv("BULKHEAD_AGENT", "/bin/false")
    fresh = type(lab.driver)(lab.config, lab.driver._outside)
    assert not fresh.probe().works
    assert "agent" in fresh.probe().reason
    assert not [path for path in lab.config.run_dir.iterdir() if path.name.startswith("probe")]
