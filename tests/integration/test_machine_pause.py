"""A virtual machine that is paused: nothing of it runs, its hypervisor included, until it is told to go on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.integration.lives import state, until
from tests.integration.machines import hypervisor, run, with_machines

COUNT = "trap 'exit 3' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
SERVE = f"mkdir /w; echo hello > /w/index.html; httpd -p 80 -h /w; {COUNT}"


@pytest.fixture
def vms(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """The daemon with an image and a kernel."""
    return with_machines(shared_daemon, busybox_tar)


def count(daemon: Daemon, name: str) -> int:
    """How far it has counted."""
    return len(daemon.cli("logs", name).stdout.splitlines())


def cpu(daemon: Daemon, name: str) -> float:
    """Seconds of a core that its hypervisor has had."""
    fields = Path(f"/proc/{hypervisor(daemon, name)}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def paused(daemon: Daemon, name: str, command: str = COUNT, *options: str) -> int:
    """Run it, pause it; how far it has counted then."""
    run(daemon, name, command, *options)
    until("it counts", lambda: count(daemon, name) > 1)
    assert daemon.cli("pause", name).stdout == f"{name}\n"
    time.sleep(0.1)  # what was said before is on its way through the supervisor
    return count(daemon, name)


def test_pause_and_unpause(vms: Daemon) -> None:
    """A published port does not answer meanwhile, and the clock is right afterwards."""
    assert vms.outside
    before = paused(vms, "still", SERVE, "-p", "8080:80")
    assert state(vms, "still") == "paused"
    used = cpu(vms, "still")
    for words in (["exec", "still", "true"], ["attach", "still"], ["cp", "still:/etc/passwd", "-"], ["pause", "still"]):
        done = vms.cli(*words, check=False)
        assert done.returncode == 125
        assert "is paused" in done.stderr and "hint: " in done.stderr
    with pytest.raises(TimeoutError):
        vms.outside.fetch(8080, timeout=2.0)
    assert vms.json("stats", "--no-stream", "--format", "json", "still")[0]["memory"] > 0
    assert (count(vms, "still"), cpu(vms, "still")) == (before, used)
    vms.cli("unpause", "still")
    until("it goes on", lambda: count(vms, "still") > before)
    assert vms.outside.fetch(8080, timeout=30.0) == (200, b"hello\n")
    assert abs(int(vms.cli("exec", "still", "date", "+%s").stdout) - time.time()) < 2
    vms.cli("stop", "still")
    assert vms.json("inspect", "still")[0]["exit"]["code"] == 3


@pytest.mark.parametrize(("words", "code"), [(["stop"], 3), (["kill"], 137), (["rm", "-f"], None)])
def test_what_is_paused_is_ended_in_order(vms: Daemon, words: list[str], code: int | None) -> None:
    paused(vms, "still", COUNT, "--network", "none")
    pid = hypervisor(vms, "still")
    vms.cli(*words, "still")
    assert not Path(f"/proc/{pid}").exists()
    if code is None:
        assert state(vms, "still") == ""
    else:
        until("it has ended", lambda: state(vms, "still") == "exited")
        assert vms.json("inspect", "still")[0]["exit"]["code"] == code


@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_a_new_daemon_finds_it_paused(vms: Daemon, end: str) -> None:
    name = f"kept-{end}"
    before = paused(vms, name, COUNT, "--network", "none")
    getattr(vms, end)()
    vms.start()
    assert (state(vms, name), count(vms, name)) == ("paused", before)
    vms.cli("unpause", name)
    until("it goes on", lambda: count(vms, name) > before)
    assert vms.cli("exec", name, "echo", "well").stdout == "well\n"
    vms.cli("rm", "-f", name)
