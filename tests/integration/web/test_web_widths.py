"""The web page in Chromium: windows of every width with no, few and many instances, and before any answer has come."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.harness.daemon import Daemon
from tests.integration.web.pages import go, run

WIDTHS = (1440, 1180, 900, 600, 360)
LEVELS = ("vm", "container", "chroot", "unikernel")
MEBIBYTE = 1 << 20
OUTSIDE = """() => {
    const room = document.documentElement.clientWidth;
    const found = [];
    const wide = document.documentElement.scrollWidth - room;
    if (wide > 0) found.push(`the document is ${wide} pixels too wide`);
    for (const one of document.querySelectorAll(".list, [aria-label='What more fits'], .charts, .tabs")) {
        if (one.scrollWidth > one.clientWidth) found.push(`${one.getAttribute("aria-label") ?? one.className} is cut`);
    }
    for (const one of document.querySelectorAll("button, a.button, input, select, .segments, .tabs a")) {
        if (one.closest(".toasts") || !one.checkVisibility({ visibilityProperty: true })) continue;
        const { left, right, width } = one.getBoundingClientRect();
        if (!width || getComputedStyle(one).opacity === "0") continue;
        const name = one.getAttribute("aria-label") ?? one.textContent;
        let [from, to] = [0, room];
        for (let box = one.parentElement; box; box = box.parentElement) {
            if (getComputedStyle(box).overflowX === "visible") continue;
            const around = box.getBoundingClientRect();
            [from, to] = [Math.max(from, around.left), Math.min(to, around.right)];
        }
        if (left < from - 0.5 || right > to + 0.5) found.push(`${name}: ${left} to ${right} in ${from} to ${to}`);
        else if (one.scrollWidth > one.clientWidth + 1 && one.matches("button, a.button")) found.push(`${name} is cut`);
    }
    return found;
}"""
"""What of the actions cannot be seen without scrolling sideways, and how much wider than the window the page is."""


FOCUSED = """() => {
    const { activeElement: one } = document;
    const { left, right, width } = one.getBoundingClientRect();
    const box = (one.closest(".scroll") ?? document.documentElement).getBoundingClientRect();
    const seen = width > 1 && left >= box.left - 0.5 && right <= box.right + 0.5;
    return seen ? one.getAttribute("aria-label") ?? one.textContent : "";
}"""
"""The name of what has the focus, nothing where that cannot be seen."""
VIEWS = (
    "/",
    "/instances",
    "/images",
    "/networks",
    "/volumes",
    "/secrets",
    "/snapshots",
    "/plans",
    "/tenants",
    "/create",
)
OWN = ("", "/terminal", "/logs", "/snapshots", "/events", "/limits", "/audit", "/record")


@pytest.mark.parametrize("count", [0, 3, 60])
def test_every_action_can_be_seen_in_every_window(page: Page, bulkhead: Daemon, count: int) -> None:
    identifier = run(bulkhead, "worker")
    bulkhead.cli("volume", "create", "a-volume-with-a-name-as-long-as-they-become-in-a-wide-house", "--size", "16M")
    world(page, bulkhead, identifier, count)
    page.reload()
    found = []
    for view in (*VIEWS, *(f"/instances/shop-0{part}" for part in OWN if count == 3)):
        go(page, view)
        expect(page.locator("h1")).to_be_visible()
        expect(page.get_by_text("Loading…")).to_have_count(0)
        if view == "/instances":
            expect(page.locator("tbody tr:not(.group)")).to_have_count(count)
            expect(page.get_by_role("button", name="Delete", exact=False)).to_have_count(count)
        if view == "/instances" and count:
            expect(page.locator("tbody tr").first).to_contain_text("Gbit/s")
        if view == "/instances/shop-0":
            expect(page.locator(".chart canvas").first).to_be_visible()
        found += outside(page, view)
    page.unroute_all(behavior="ignoreErrors")
    bulkhead.cli("rm", "-f", "worker")
    bulkhead.cli("volume", "rm", "a-volume-with-a-name-as-long-as-they-become-in-a-wide-house")
    assert not found, "\n".join(found)


def outside(page: Page, where: str) -> list[str]:
    """What cannot be seen in a window of each width."""
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 860})
        # Charts and terminals follow in the next frames.
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found += [f"{where} at {width}: {what}" for what in page.evaluate(OUTSIDE)]
    return found


def test_every_dialog_and_the_menu_can_be_seen_in_every_window(page: Page, bulkhead: Daemon) -> None:
    run(bulkhead, "worker")
    go(page, "/instances/worker")
    found = []
    for name in ("Plan", "Move", "Snapshot", "Delete"):
        page.set_viewport_size({"width": 1180, "height": 860})
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_visible()
        found += outside(page, name)
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Menu").click()  # the last window was the narrowest
    expect(page.get_by_role("link", name="Tenants")).to_be_visible()
    found += page.evaluate(OUTSIDE)
    bulkhead.cli("rm", "-f", "worker")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_keyboard_reaches_every_action_of_a_row_where_it_can_be_seen(
    page: Page, bulkhead: Daemon, width: int
) -> None:
    run(bulkhead, "worker")
    page.set_viewport_size({"width": width, "height": 860})
    go(page, "/instances")
    expect(page.get_by_role("button", name="Stop worker")).to_be_visible()
    page.get_by_label("Find instances").focus()
    met: list[str] = []
    while "Delete worker" not in met and len(met) < 30:
        page.keyboard.press("Tab")
        met.append(page.evaluate(FOCUSED))
    assert [name for name in met if name.endswith(" worker")] == ["Terminal of worker", "Stop worker", "Delete worker"]
    assert [name for name in met if name in ("Name", "State", "CPU", "Memory", "Disk")], "nothing sorts the list"
    assert "" not in met, "the focus is where it cannot be seen"
    bulkhead.cli("rm", "-f", "worker")


def test_before_the_first_answer_the_page_says_that_it_loads(
    fresh: Page, browsing: tuple[BrowserContext, str], bulkhead: Daemon
) -> None:
    """Seen and heard, whether its program or an answer has not come; no figure is told that nobody knows yet."""
    program, answers = Held(), Held()
    fresh.route("**/js/main.js", program.hold)
    fresh.goto(browsing[1], wait_until="commit")
    frame = fresh.get_by_role("status").filter(has_text="Bulkhead is loading.")
    expect(frame).to_be_visible()
    expect(fresh.locator(".boot")).to_have_css("opacity", "1")
    fresh.route(re.compile("/v1/(instances|host|events)"), answers.hold)
    program.release()
    expect(fresh.get_by_role("heading", name="Overview")).to_be_visible()
    expect(frame).to_have_count(0)
    expect(fresh.locator(".tiles > .ghost")).to_have_count(4)
    expect(fresh.get_by_text("running, of 0")).to_have_count(0)
    expect(fresh.get_by_text("Nothing has happened")).to_have_count(0)
    expect(fresh.get_by_role("status").filter(has_text="Loading…").first).to_be_visible()
    expect(fresh.locator("#said")).to_have_text("Overview")
    answers.release()
    expect(fresh.locator(".ghost")).to_have_count(0)
    expect(fresh.get_by_text("running, of 0")).to_be_visible()
    expect(fresh.get_by_text("Loading…")).to_have_count(0)
    fresh.unroute_all(behavior="ignoreErrors")


class Held:
    """Requests that wait until they are released; those that come later do not."""

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self.holds = True

    def hold(self, route: Route) -> None:
        """Keep this one."""
        if self.holds:
            self.routes.append(route)
        else:
            route.continue_()

    def release(self) -> None:
        """Let them go on."""
        self.holds = False
        for route in self.routes:
            route.continue_()


def world(page: Page, daemon: Daemon, identifier: str, count: int) -> None:
    """Let the daemon seem to have so many instances, of every level and state; the first of them is one that runs."""
    one = daemon.api("GET", f"/v1/instances/{identifier}").body
    usage = daemon.api("GET", "/v1/stats").body[0]
    many = [copied(one, number) for number in range(count)]

    def figures(route: Route) -> None:
        passed = time.time() - usage["when"]
        route.fulfill(json=[used(usage, each, passed) for each in many if each["state"] in ("running", "paused")])

    page.route("**/v1/instances", lambda route: route.fulfill(json=many))
    page.route("**/v1/stats", figures)


def copied(one: dict[str, Any], number: int) -> dict[str, Any]:
    """Another instance like it; every third has a long name, every fifth does not run."""
    name = f"shop-{number}" if number % 3 != 2 else f"a-name-as-long-as-they-become-in-a-wide-house-{number}"
    spec = {**one["spec"], "name": name, "isolation": LEVELS[number % len(LEVELS)]}
    spec["created"] -= number
    if number:
        spec["id"] = f"{number:032x}"
    if number % 7 == 3:
        spec["labels"] = {"bulkhead.compose.project": "a-project", "bulkhead.compose.service": "front"}
    return {**one, "spec": spec, "state": "exited" if number % 5 == 4 else "running"}


def used(usage: dict[str, Any], instance: dict[str, Any], passed: float) -> dict[str, Any]:
    """What it uses `passed` seconds after `usage`, in figures as long as they become."""
    spec = instance["spec"]
    return {
        **usage,
        "id": spec["id"],
        "name": spec["name"],
        "when": usage["when"] + passed,
        "cpu_seconds": usage["cpu_seconds"] + passed * 0.87,
        "memory": 63.5 * MEBIBYTE,
        "received": (usage["received"] or 0) + int(passed * 123 * MEBIBYTE),
        "sent": (usage["sent"] or 0) + int(passed * 119.9 * MEBIBYTE),
    }
