"""Images are removed by some while others make instances of them: what an instance needs is there, or none is made."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import quote

from tests.harness.daemon import Daemon

ROUNDS = 20
PLAN = {"memory": 64 << 20, "disk": 64 << 20}


def test_nothing_is_pruned_that_an_instance_has_begun_to_need(shared_daemon: Daemon, busybox_tar: Path) -> None:
    """Both are let go at the same moment, again and again: either may be first."""
    daemon, together = shared_daemon, threading.Barrier(2, timeout=60)

    def prune() -> None:
        for _ in range(ROUNDS):
            together.wait()
            daemon.api("POST", "/v1/images/prune", {"everything": True})
            together.wait()

    pruner = threading.Thread(target=prune)
    pruner.start()
    for number in range(ROUNDS):
        name = f"kept{number}"
        assert daemon.api("POST", f"/v1/images/import?path={quote(str(busybox_tar))}&name=busybox:1").status == 200
        request = {"name": name, "image": "busybox:1", "plan": PLAN, "isolation": "container", "command": ["true"]}
        together.wait()
        created = daemon.api("POST", "/v1/instances", request)
        together.wait()
        if created.status == 404:  # it was gone before anybody needed it
            assert daemon.json("ps", "-a", "--format", "json") == []
            continue
        assert created.status in (200, 201), created.body
        assert daemon.cli("image", "inspect", "busybox:1").returncode == 0
        daemon.cli("start", name)
        assert daemon.cli("wait", name).stdout == "0\n"
        daemon.cli("rm", name)
    pruner.join()
    daemon.cli("image", "import", busybox_tar, "busybox:1")
    daemon.cli("create", "--name", "last", "--memory", "64M", "--disk", "64M", "busybox:1", "echo", "there")
    daemon.cli("image", "prune", "--all")
    daemon.cli("start", "last")
    daemon.cli("wait", "last")
    assert daemon.cli("logs", "last").stdout == "there\n"
    daemon.cli("rm", "last")
    daemon.cli("image", "prune", "--all")
    assert daemon.json("image", "ls", "--format", "json") == []
