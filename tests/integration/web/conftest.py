"""A daemon and a browser for all tests of the web page that a worker runs; each test has a page of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.conftest import DAEMON_NEEDS
from tests.harness.abilities import require
from tests.harness.browser import CHROMIUM, chromium, forwarded
from tests.harness.daemon import Daemon
from tests.integration.lives import PLAN, with_image
from tests.integration.web.pages import MILLISECONDS, PORT, listen


@pytest.fixture(scope="module")
def module_daemon() -> Iterator[Daemon]:
    """The daemon of all these tests: it listens on a port as well, where everybody shows a token."""
    require(*DAEMON_NEEDS)
    with ExitStack() as stack:
        made = Daemon()
        stack.callback(made.close)
        settings = made.config_file.read_text().replace("listen = []\n", "")
        made.config_file.write_text(f"{settings}[[listen]]\nport = {PORT}\nplain = true\n")
        made.share()
        made.start()
        yield made
        found = made.leaked()
        assert not found, "\n  ".join(["the daemon left behind:", *found])


@pytest.fixture(scope="module")
def browsing(module_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BrowserContext, str]]:
    """A browser, which keeps the page's files, and the page's address."""
    require(CHROMIUM)
    expect.set_options(timeout=MILLISECONDS)
    with ExitStack() as stack:
        browser = stack.enter_context(chromium(module_daemon, tmp_path_factory.mktemp("browser")))
        address = stack.enter_context(forwarded(module_daemon))
        context = browser.new_context(viewport={"width": 1280, "height": 860})
        context.set_default_timeout(MILLISECONDS)
        # With its first page it starts processes that it keeps, which are no leak of the first test's.
        first = context.new_page()
        first.goto(address)
        expect(first.get_by_role("heading", name="Overview")).to_be_visible()
        first.close()
        yield context, address


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon with an image and a plan that is small."""
    daemon = with_image(shared_daemon, busybox_tar, "busybox")
    if daemon.api("GET", "/v1/plans/small").status != 200:
        daemon.cli("plan", "create", "small", *PLAN)
    return daemon


@pytest.fixture
def provoked() -> list[str]:
    """What the browser's console may say in this test, since the test provokes it."""
    return []


@pytest.fixture
def fresh(bulkhead: Daemon, browsing: tuple[BrowserContext, str], provoked: list[str]) -> Iterator[Page]:
    """A tab where nothing is open yet. Whatever the browser has to say about what is opened there fails the test."""
    page = browsing[0].new_page()
    said = listen(page)
    yield page
    page.close()
    unasked = [line for line in said if not any(words in line for words in provoked)]
    assert not unasked, "\n".join(unasked)


@pytest.fixture
def page(fresh: Page, browsing: tuple[BrowserContext, str]) -> Page:
    """The page, opened by whoever may do everything."""
    fresh.goto(browsing[1])
    expect(fresh.get_by_role("heading", name="Overview")).to_be_visible()
    return fresh
