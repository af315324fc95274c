"""Secrets in the web page: made, used and deleted there, and what is in one is nowhere on it."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.harness.daemon import Daemon
from tests.integration.web.pages import go, run

VALUE = "pässword-42"


def test_a_secret_is_made_and_deleted_and_never_shown(page: Page, bulkhead: Daemon) -> None:
    answers: list[str] = []
    page.on("response", lambda answer: answers.append(answer.text()) if "/v1/secrets" in answer.url else None)
    go(page, "/secrets")
    page.get_by_role("button", name="Create a secret").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("door")
    assert dialog.get_by_label("Value").get_attribute("type") == "password"
    dialog.get_by_label("Value").fill(VALUE)
    dialog.get_by_role("button", name="Create").click()
    row = page.get_by_role("row", name="door")
    expect(row).to_contain_text("12 B")
    run(bulkhead, "user", "--secret", "door", script="exec sleep 1000")
    expect(page.get_by_role("link", name="Instances")).to_contain_text("1")
    page.reload()
    expect(row).to_contain_text("user")
    assert bulkhead.cli("exec", "user", "cat", "/run/secrets/door").stdout == VALUE
    assert VALUE not in page.content()
    for view in ("/instances/user", "/instances/user/record", "/instances/user/limits", "/events"):
        go(page, view)
        expect(page.get_by_text("Loading…")).to_have_count(0)
        assert VALUE not in page.content()
    bulkhead.cli("rm", "-f", "user")
    go(page, "/secrets")
    page.get_by_role("button", name="Delete door").click()
    dialog.get_by_role("button", name="Delete door").click()
    expect(page.get_by_role("heading", name="No secret")).to_be_visible()
    assert bulkhead.api("GET", "/v1/secrets").body == []
    assert not [text for text in answers if VALUE in text or "data" in text]
