"""Equal pages of one tenant's machines are merged, nobody else's, and the host is left as it was."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulkhead.host.ksm import ROOT, has_asked
from tests.harness.abilities import require
from tests.harness.daemon import Daemon
from tests.integration.machines import IMAGE, hypervisor, with_machines

PATIENCE = 120.0


@pytest.fixture
def alone() -> Iterator[None]:
    """The kernel has one switch for everybody: tests on one host take turns."""
    require("ksm")
    with Path("/var/lock/bulkhead-test-ksm").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.usefixtures("alone")
def test_one_tenants_machines_are_merged_and_nobody_elses(
    make_daemon: Callable[..., Daemon], busybox_tar: Path
) -> None:
    was = (ROOT / "run").read_text()
    daemon = with_machines(make_daemon(merge_tenant="acme"), busybox_tar)
    daemon.cli("tenant", "create", "acme")
    daemon.cli("image", "share", IMAGE)
    for name, tenant in (("one", "acme"), ("two", "acme"), ("other", "default")):
        body = {
            "image": IMAGE,
            "name": name,
            "tenant": tenant,
            "isolation": "vm",
            "cold": True,
            "inner": 0,
            "network": "none",
            "command": ["sleep", "100000"],
            "plan": {"memory": 128 << 20, "cpus": 1, "disk": 64 << 20},
        }
        answer = daemon.api("POST", "/v1/instances", body)
        assert answer.status == 201, answer
        assert daemon.api("POST", f"/v1/instances/{answer.body['spec']['id']}/start").status == 200
    asked = {name: has_asked(hypervisor(daemon, name)) for name in ("acme@one", "acme@two", "other")}
    assert asked == {"acme@one": True, "acme@two": True, "other": False}
    deadline = time.monotonic() + PATIENCE
    while (daemon.json("host", "info", "--format", "json")["merged"] or 0) < 1 << 20:
        assert time.monotonic() < deadline, "nothing was merged"
        time.sleep(0.5)
    assert daemon.cli("exec", "acme@one", "echo", "well").stdout == "well\n"
    # Another tenant cannot have it while these run, nor a daemon that did not turn it on.
    daemon.stop()
    assert (ROOT / "run").read_text().strip() == "1", "they run on"
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(text.replace('merge_tenant = "acme"', 'merge_tenant = "default"'))
    with pytest.raises(AssertionError, match=r"acme@one of tenant acme runs and may be merged"):
        daemon.start()
    daemon.pid = 0
    daemon.config_file.write_text(text)
    daemon.start()
    daemon.clear()
    daemon.stop()
    assert (ROOT / "run").read_text() == was
    assert int((ROOT / "pages_shared").read_text()) == 0


@pytest.mark.usefixtures("alone")
def test_a_second_daemon_does_not_join(make_daemon: Callable[..., Daemon]) -> None:
    first = make_daemon(merge_tenant="acme")
    second = Daemon(merge_tenant="acme")
    try:
        with pytest.raises(AssertionError, match="the host merges pages of other programs already"):
            second.start()
    finally:
        second.close()
    first.stop()
    assert (ROOT / "run").read_text().strip() == "0"
