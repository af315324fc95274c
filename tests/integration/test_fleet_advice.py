"""A fleet advises on itself, by its own metering of instances on whichever host, and becomes what the report says:
docs/tutorial/advice.md, from its sixth step on."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.daemon import BULKHEAD
from tests.harness.fleet import Fleet, Host, laboratory
from tests.integration.lives import until

pytestmark = pytest.mark.timeout(900)
SIZE = ("-m", "64M", "--disk", "64M")
CHANGES = ("--change", "CMD sleep 3600", "--change", "STOPSIGNAL SIGKILL")
"""Of the image: what is made of it runs on, and ends at once."""
OWN = ("--isolation", "auto", "--trust", "own")


@pytest.fixture
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Three hosts with one application each, and one that says too little of its wall."""
    with laboratory(busybox_tar, 3, overcommit_memory=1.0) as lab:
        alpha, beta, gamma = lab.hosts
        alpha.daemon.cli("image", "import", *CHANGES, busybox_tar, "app")
        for host, name in ((alpha, "shop"), (beta, "wiki"), (gamma, "mail")):
            alpha.cli("run", "-d", "--name", name, "--host", host.name, *OWN, *SIZE, "app")
            alpha.cli("exec", name, "sh", "-c", f"echo {name} >/data")
        told = ("--isolation", "chroot", "--label", "advice.trust=partner")
        alpha.cli("run", "-d", "--name", "build", "--host", "gamma", *told, *SIZE, "app")
        yield lab
        lab.reset()


def used(host: Host, *names: str) -> dict[str, Any]:
    """Name -> its row of the last hour, of whatever ran."""
    found = json.loads(host.cli("usage", "--format", "json", "--by", "instance", "--by", "hour", *names))
    return {row["name"]: row for row in found["rows"] if row["uptime_seconds"] > 0}


def standing(host: Host) -> dict[str, tuple[str, str]]:
    """Name -> its host, its wall."""
    found = json.loads(host.cli("ps", "--format", "json"))
    return {each["spec"]["name"]: (each["host"], each["spec"]["isolation"]) for each in found}


def interrupted(host: Host, report: str) -> str:
    """What apply says until somebody presses Ctrl-C: one step is done, the next one stops what it moves."""
    command = [str(BULKHEAD), "advise", "apply", report]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=host.daemon.environment()
    ) as running:
        assert running.stdout is not None
        said = ""
        while ": done\n" not in said or not said.endswith("stopping it\n"):
            line = running.stdout.readline()
            assert line, f"it ended by itself: {said}"
            said += line
        running.send_signal(signal.SIGINT)
        said += running.stdout.read()
    assert running.returncode == 130, said
    return said


def test_a_fleet_is_advised_on_and_the_advice_applied(lab: Fleet, tmp_path: Path) -> None:
    alpha, beta, _ = lab.hosts
    everyone = {"shop", "wiki", "mail", "build"}
    until("all are measured", lambda: set(used(alpha)) == everyone)
    assert {name: row["host"] for name, row in used(beta).items()} == {
        "shop": "alpha",
        "wiki": "beta",
        "mail": "gamma",
        "build": "gamma",
    }
    report = str(tmp_path / "report.json")
    new = ("--add", "1:64M,1x1,64M:app")
    alpha.cli("advise", "--fleet", "--last", "2h", "--seconds", "1", *new, "-o", report)
    told = json.loads(Path(report).read_text())
    walls = {each["name"]: (each["server"], each["level"], each["rule"]) for each in told["workloads"]}
    assert walls == {
        "shop": ("alpha", "container", 9),
        "wiki": ("beta", "container", 9),
        "mail": ("gamma", "container", 9),
        # What runs in a chroot is a partner's program: it gets a wall.
        "build": ("gamma", "container", 6),
        "new1-1": ("", "container", 9),
    }
    assert told["estate"]["servers"] == 3 and told["after"]["count"] == 1
    kinds = [step["what"] for step in told["steps"]]
    assert sorted(kinds) == ["create", "enclose", "move", "move", "retire", "retire"], told["steps"]
    said = alpha.cli("advise", "apply", "--dry-run", report)
    assert said.count(": to do") == 4 and said.count("yours to do") == 2
    # Stopped in the middle of its second step, and gone on with.
    assert interrupted(alpha, report).count(": done\n") == 1
    rest = beta.cli("advise", "apply", report)
    assert rest.count(": done already\n") >= 1 and ": to do" not in rest
    wanted = {each["name"]: (each["host"], each["level"]) for each in told["workloads"]}
    assert standing(beta) == wanted and len({host for host, _ in wanted.values()}) == 1
    # They run, with what they had, and nothing is left to do.
    for name in ("shop", "wiki", "mail"):
        assert alpha.cli("exec", name, "cat", "/data") == f"{name}\n"
    assert alpha.cli("exec", "new1-1", "echo", "here") == "here\n"
    assert alpha.cli("advise", "apply", report).count(": done already\n") == 4
    # Asked by name on any host: what has moved was used on two of them.
    moved = next(step["workload"] for step in told["steps"] if step["what"] == "move")
    rows = json.loads(beta.cli("usage", "--format", "json", moved))["rows"]
    assert len({row["host"] for row in rows}) == 2 and {row["name"] for row in rows} == {moved}
    assert "no use of an instance nobody" in alpha.cli("usage", moved, "nobody", check=False)
