"""The web page in Chromium: by the keyboard alone, by whoever needs contrast, in a narrow window."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.harness.daemon import Daemon
from tests.integration.lives import state
from tests.integration.web.pages import go, run

AXE = Path(__file__).parents[3] / "src/bulkhead/web/node_modules/axe-core/axe.min.js"


def test_by_keyboard_alone(page: Page, bulkhead: Daemon) -> None:
    run(bulkhead, "first")
    run(bulkhead, "second")
    page.reload()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for _ in range(4):  # the focus goes round inside
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.keyboard.press("g")
    page.keyboard.press("i")
    expect(page.get_by_role("heading", name="Instances")).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("second")
    expect(page.get_by_role("row", name="first")).to_have_count(0)
    reach(page, "Delete second")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("second is deleted.")).to_be_visible()
    assert state(bulkhead, "first") == "running"
    assert page.locator("[role=status]").filter(has_text="second is deleted.").count()


def reach(page: Page, name: str) -> None:
    """Press Tab until a button of this name has the focus; every stop on the way can be seen."""
    for _ in range(40):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
                const { activeElement: one } = document;
                const style = getComputedStyle(one);
                return { name: one.getAttribute("aria-label") ?? one.textContent, seen: style.outlineStyle !== "none" };
            }"""
        )
        assert found["seen"], f"the focus on {found['name']!r} cannot be seen"
        if found["name"] == name:
            return
    raise AssertionError(f"Tab does not reach {name!r}")


def test_accessibility(page: Page, bulkhead: Daemon) -> None:
    """By axe, every view; in the dark what depends on colours alone."""
    run(bulkhead, "worker")
    views = ("/", "/instances", "/instances/worker", "/instances/worker/logs", "/instances/worker/limits", "/create")
    more = (
        "/images",
        "/networks",
        "/volumes",
        "/secrets",
        "/snapshots",
        "/plans",
        "/events",
        "/usage",
        "/audit",
        "/tenants",
    )
    found = []
    page.evaluate(AXE.read_text())  # by the debugger, which the page's policy does not judge
    for view in (*views, *more):
        go(page, view)
        expect(page.locator("h1")).to_be_visible()
        expect(page.get_by_text("Loading…")).to_have_count(0)
        for scheme, how in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            result = page.evaluate("how => axe.run(document, { resultTypes: ['violations'], ...how })", how)
            for one in result["violations"]:
                if one["impact"] in ("serious", "critical"):
                    where = [node["target"] for node in one["nodes"]][:3]
                    found.append(f"{view}, {scheme}: {one['id']}: {one['help']}: {json.dumps(where)}")
    assert not found, "\n".join(found)


def test_a_narrow_window_shows_all_without_scrolling_sideways(page: Page, bulkhead: Daemon) -> None:
    run(bulkhead, "a-name-that-is-as-long-as-a-name-may-ever-be-in-this-wide-house")
    page.set_viewport_size({"width": 360, "height": 740})
    own = ("", "/snapshots", "/limits", "/audit", "/record")
    some = [f"/instances/a-name-that-is-as-long-as-a-name-may-ever-be-in-this-wide-house{part}" for part in own]
    more = ("/volumes", "/snapshots", "/audit", "/tenants")
    for view in ("/", "/instances", "/create", "/images", "/networks", "/events", "/plans", "/usage", *more, *some):
        go(page, view)
        expect(page.locator("h1")).to_be_visible()
        expect(page.get_by_text("Loading…")).to_have_count(0)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{view} is {wide} pixels too wide"
    expect(page.get_by_role("link", name="Volumes")).to_have_count(0)
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Volumes").click()
    expect(page.get_by_role("heading", name="Volumes")).to_be_visible()
