"""Fixtures of the whole suite. Mounts that a test makes are in a mount namespace of the test run's own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bulkhead.host import syscalls
from tests.harness import images as image_recipes
from tests.harness.abilities import require
from tests.harness.daemon import Daemon
from tests.harness.leaks import Scope, leftovers, snapshot

_DAEMONS = pytest.StashKey[list[Daemon]]()
DAEMON_NEEDS = ("root", "mount namespaces", "cgroups", "loop devices", "erofs", "overlay", "nft", "ip", "nsenter")


def pytest_configure() -> None:
    """Before any test module is imported: no configuration of the user's, no mount of the host's is touched."""
    os.environ.pop("BULKHEAD_CONFIG", None)
    os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    if os.geteuid() == 0:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that last, as their mark says, begin first, then those with many tests: none is waited for in the end."""
    if not hasattr(config, "workerinput"):
        return
    tests = Counter(item.path for item in items)
    marks = {item.path: item.get_closest_marker("minutes") for item in items}
    minutes = {path: mark.args[0] if mark else 0 for path, mark in marks.items()}
    items.sort(key=lambda item: (-minutes[item.path], -tests[item.path], item.path))


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Around each test that touches the host: what it left behind fails it."""
    if not {"integration", "contract"} & set(Path(request.node.path).parts):
        yield
        return
    scope = Scope(base=tmp_path_factory.getbasetemp())
    before = snapshot(scope)
    yield
    found = leftovers(before, scope)
    if found:
        pytest.fail("the test left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture
def make_daemon(request: pytest.FixtureRequest) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that run already; the arguments are those of Daemon. Each must leave nothing behind."""
    require(*DAEMON_NEEDS)
    daemons = request.node.stash.setdefault(_DAEMONS, [])
    with ExitStack() as stack:

        def make(**settings: object) -> Daemon:
            daemon = Daemon(**settings)  # type: ignore[arg-type]
            stack.callback(daemon.close)
            daemons.append(daemon)
            daemon.start()
            return daemon

        yield make
        found = [line for daemon in daemons for line in daemon.leaked()]
        if found:
            pytest.fail("the daemon left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """One daemon with the harness's usual configuration."""
    return make_daemon()


@pytest.fixture(scope="module")
def make_module_daemon() -> Iterator[Callable[..., Daemon]]:
    """The same for daemons that all tests of a module share: each must leave nothing behind in the end."""
    require(*DAEMON_NEEDS)
    daemons: list[Daemon] = []
    with ExitStack() as stack:

        def make(**settings: object) -> Daemon:
            daemon = Daemon(**settings)  # type: ignore[arg-type]
            stack.callback(daemon.close)
            daemons.append(daemon)
            daemon.share()
            daemon.start()
            return daemon

        yield make
        found = [line for daemon in daemons for line in daemon.leaked()]
        if found:
            pytest.fail("the daemon left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture(scope="module")
def module_daemon(make_module_daemon: Callable[..., Daemon]) -> Daemon:
    """The daemon behind `shared_daemon`. A module that wants other settings has a fixture of this name itself."""
    return make_module_daemon()


@pytest.fixture
def shared_daemon(request: pytest.FixtureRequest, module_daemon: Daemon) -> Iterator[Daemon]:
    """One daemon for all tests of a module; a test's instances are removed after it."""
    request.node.stash.setdefault(_DAEMONS, []).append(module_daemon)
    yield module_daemon
    if module_daemon.pid == 0:
        module_daemon.start()
    module_daemon.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test's report holds what its daemons said."""
    report = yield
    if report.failed:
        for daemon in item.stash.get(_DAEMONS, []):
            report.sections.append((f"daemon {daemon.config.cgroup}", daemon.log()))
    return report


@pytest.fixture(scope="session")
def busybox_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small root file system as a tar file, for whatever needs no real distribution."""
    return image_recipes.busybox_tar(tmp_path_factory.mktemp("images") / "busybox.tar")


@pytest.fixture(scope="session")
def rootfs_tar() -> Callable[[str], Path]:
    """Root file systems of Debian packages by the names in harness.images.RECIPES."""
    return image_recipes.rootfs_tar
