"""Which proxies a command tells the daemon of."""

from __future__ import annotations

import pytest

from bulkhead.cli.app import App
from bulkhead.cli.registry import proxies


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "BULKHEAD_HOST"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "near.test")


def test_those_of_the_environment_go_to_the_daemon_of_this_host() -> None:
    assert proxies(App(None)) == {"https_proxy": "http://proxy.test:3128", "no_proxy": "near.test"}


def test_another_host_has_its_own_way_out() -> None:
    assert proxies(App(None, {"--url": "https://far.test"})) == {}
