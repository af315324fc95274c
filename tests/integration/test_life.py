"""Instances through the command line, end to end: behind each wall, over a restart and a kill of the daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.daemon import Daemon

PLAN = ("--memory", "64M", "--cpus", "1", "--disk", "64M")


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon that has the image busybox."""
    if "busybox" not in shared_daemon.cli("image", "ls").stdout:
        shared_daemon.cli("image", "import", busybox_tar, "busybox")
    return shared_daemon


@pytest.mark.parametrize("isolation", ["chroot", "container"])
def test_run_prints_what_the_workload_says_and_ends_as_it_does(bulkhead: Daemon, isolation: str) -> None:
    done = bulkhead.cli(
        "run",
        "--rm",
        "--isolation",
        isolation,
        *PLAN,
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert bulkhead.cli("ps", "-aq").stdout == ""


@pytest.mark.parametrize(("argv", "code"), [(["/no/such"], 127), (["/etc/not-executable"], 126)])
def test_a_program_that_cannot_run(bulkhead: Daemon, argv: list[str], code: int) -> None:
    done = bulkhead.cli("run", "--rm", *PLAN, "busybox", *argv, check=False)
    assert done.returncode == code
    assert argv[0] in done.stderr
    assert bulkhead.cli("ps", "-aq").stdout == ""


def test_a_published_port_answers_from_outside(bulkhead: Daemon) -> None:
    assert bulkhead.outside
    serve = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"
    bulkhead.cli("run", "-d", "--name", "web", "-p", "8080:80", *PLAN, "busybox", "sh", "-c", serve)
    assert bulkhead.outside.fetch(8080) == (200, b"hello\n")
    assert bulkhead.outside.fetch(8080, host=bulkhead.outside.inside6) == (200, b"hello\n")


@pytest.mark.parametrize("isolation", ["chroot", "container"])
def test_it_runs_on_while_the_daemon_is_killed(bulkhead: Daemon, isolation: str) -> None:
    loop = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    bulkhead.cli("run", "-d", "--name", "web", "--isolation", isolation, *PLAN, "busybox", "sh", "-c", loop)
    before = bulkhead.json("inspect", "web")[0]
    bulkhead.kill9()
    bulkhead.start()
    after = bulkhead.json("inspect", "web")[0]
    assert after["state"] == "running"
    assert after["pid"] == before["pid"]
    assert bulkhead.cli("exec", "web", "echo", "hello").stdout == "hello\n"
    assert "ready" in bulkhead.cli("logs", "web").stdout
    bulkhead.cli("stop", "web")
    assert bulkhead.cli("wait", "web").stdout.strip() == "5"
