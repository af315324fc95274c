"""The daemon is killed at each of its crash points: the next one mends everything in one pass."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from bulkhead.engine.faults import POINTS
from tests.harness import unikernels
from tests.harness.daemon import Daemon
from tests.harness.heritage import Estate
from tests.integration.crashes import CALM, ENDS, WEB, ask, check_that_it_is_mended, operate
from tests.integration.lives import bequeathed, state, until, with_image

pytestmark = pytest.mark.minutes(6)
REMOVED = ["exit.begin", *(point for point in POINTS if point.startswith("delete."))]
"""What an instance passes that is removed when it ends."""


@pytest.fixture(scope="module")
def estate(busybox_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Estate:
    """An image and a unikernel."""
    with bequeathed(tmp_path_factory.mktemp("estate")) as (daemon, estate):
        with_image(daemon, busybox_tar, "busybox")
        banner = unikernels.banner(tmp_path_factory.mktemp("banner"))
        daemon.cli("image", "import", "--unikernel", banner, "others/pvh")
    return estate


@pytest.mark.parametrize(
    ("point", "operation"),
    [*((point, point.partition(".")[0]) for point in POINTS), *((point, "removed") for point in REMOVED)],
)
def test_a_daemon_killed_there_is_mended(
    make_daemon: Callable[..., Daemon], estate: Estate, point: str, operation: str
) -> None:
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=2, network_pool=2, estate=estate)
    with suppress(ConnectionError, HTTPException):
        operate(daemon, operation, WEB)
    check_that_it_is_mended(daemon, operation, WEB)


@pytest.mark.parametrize("point", ["create.disk", "start.layers", "start.launched", "start.running", "stop.signalled"])
def test_a_daemon_with_a_unikernel_killed_there_is_mended(
    make_daemon: Callable[..., Daemon], estate: Estate, point: str
) -> None:
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=2, network_pool=2, estate=estate)
    plan = {"memory": 8 << 20, "cpus": 1, "disk": 16 << 20}
    asked = {"name": "web", "image": "others/pvh", "isolation": "unikernel", "plan": plan, "stop_timeout": 1}
    operation = point.partition(".")[0]
    with suppress(ConnectionError, HTTPException):
        operate(daemon, operation, asked)
    assert daemon.wait() == -signal.SIGKILL
    daemon.start(env=CALM)
    assert "could not repair" not in daemon.log()
    assert state(daemon, "web") in ENDS[operation]
    if not state(daemon, "web"):
        ask(daemon, "POST", "instances", asked)
    if state(daemon, "web") != "running":
        ask(daemon, "POST", "instances/web/start")
    until("its banner", lambda: unikernels.SAYS in daemon.cli("logs", "web").stdout)
    ask(daemon, "DELETE", "instances/web?force=true")
