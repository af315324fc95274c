"""The web page in Chromium: a life, prices, what others do, few requests, and no message in the console."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.harness.daemon import Daemon
from tests.integration.lives import state, until
from tests.integration.web.pages import TALKER, go, run


def test_create_watch_terminal_log_delete(page: Page, bulkhead: Daemon) -> None:
    page.get_by_role("link", name="Create").first.click()
    page.get_by_label("Image").select_option("busybox:latest")
    page.get_by_label("Name", exact=True).fill("shop")
    page.get_by_label("Command").fill(TALKER)
    page.get_by_text("small", exact=True).click()
    page.get_by_role("button", name="Create").click()

    expect(page.get_by_role("heading", name="shop")).to_be_visible()
    assert state(bulkhead, "shop") == "running"
    spec = bulkhead.api("GET", "/v1/instances/shop").body["spec"]
    assert (spec["isolation"], spec["plan_name"]) == ("container", "small")
    memory = page.locator(".chart", has_text="Memory")
    expect(memory.locator(".now")).to_have_text(re.compile(r"^[\d.]+ (KiB|MiB) of 64 MiB$"))
    expect(memory.locator("canvas")).to_be_visible()
    cpu = page.locator(".chart", has_text="CPU").locator(".now")
    expect(cpu).to_have_text(re.compile(r"^[\d.]+ cores of 1 core$"))  # it takes two polls to know a rate

    page.get_by_role("link", name="Log").click()
    expect(page.get_by_role("log")).to_contain_text("line 3")
    last = page.get_by_role("log").locator("div").last.text_content()
    expect(page.get_by_role("log").locator("div").last).not_to_have_text(last or "")

    page.get_by_role("link", name="Terminal").click()
    screen = page.locator(".xterm-rows")
    expect(screen).to_contain_text("#")
    page.keyboard.type("stty size; echo $((6*7))-$TERM; exit 3\n")
    expect(screen).to_contain_text("42-xterm-256color")
    rows, columns = re.findall(r"^(\d+) (\d+)$", screen.inner_text(), re.MULTILINE)[0]
    assert int(rows) > 10 and int(columns) > 80, "the terminal's size did not reach the program"
    expect(page.locator(".terminal-box").get_by_role("status")).to_have_text("exit code 3")

    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("shop")
    dialog.get_by_role("button", name="Delete shop").click()
    expect(page.get_by_text("shop is deleted.")).to_be_visible()
    until("shop is gone", lambda: state(bulkhead, "shop") == "")
    expect(page.get_by_role("heading", name="Instances")).to_be_visible()


def test_prices_are_shown_before_they_are_owed(page: Page, bulkhead: Daemon) -> None:
    bulkhead.cli("price", "set", "month", "5.00", "EUR", "--plan", "small")
    run(bulkhead, "paid", "--plan", "small")
    go(page, "/plans")
    expect(page.get_by_role("row", name="small €5.00 a month")).to_be_visible()
    go(page, "/create")
    page.get_by_text("small", exact=True).click()
    expect(page.locator("aside.card")).to_contain_text("€5.00 a month")
    go(page, "/usage")
    expect(page.get_by_role("row", name="paid")).to_be_visible()
    expect(page.get_by_text("A draft: the month's use so far")).to_be_visible()
    expect(page.get_by_role("row", name="Total")).to_contain_text("€")
    for price in bulkhead.api("GET", "/v1/prices").body:
        assert bulkhead.api("DELETE", f"/v1/prices/{price['id']}").status == 204


def test_what_others_do_is_shown_without_asking(page: Page, bulkhead: Daemon) -> None:
    go(page, "/instances")
    expect(page.get_by_role("heading", name="No instance yet")).to_be_visible()
    run(bulkhead, "worker")
    row = page.get_by_role("row", name="worker")
    expect(row).to_contain_text("running")
    bulkhead.cli("stop", "-t", "0", "worker")
    expect(row).to_contain_text("exited")
    row.get_by_role("button", name="Start worker").click()
    expect(row).to_contain_text("running")
    bulkhead.cli("rm", "-f", "worker")
    expect(row).to_have_count(0)


def test_a_problem_is_shown_with_its_hint(page: Page, bulkhead: Daemon, provoked: list[str]) -> None:
    provoked.append("status of 409")
    run(bulkhead, "taken", script="sleep 1000")
    go(page, "/create")
    page.get_by_label("Name", exact=True).fill("taken")
    page.get_by_text("small", exact=True).click()
    page.get_by_label("Published ports").fill("eighty")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("eighty is no published port")
    expect(page.get_by_role("alert")).to_contain_text("HOST:PORT")
    page.get_by_label("Published ports").fill("")
    with page.expect_response(lambda answer: answer.request.method == "POST") as refused:
        page.get_by_role("button", name="Create").click()
    assert refused.value.status == 409
    expect(page.get_by_role("alert")).to_contain_text("taken")


# --- few requests


def test_the_page_asks_seldom_and_rests_when_nobody_looks(page: Page, bulkhead: Daemon) -> None:
    run(bulkhead, "worker")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    go(page, "/instances")
    expect(page.get_by_role("row", name="worker")).to_contain_text("of 64 MiB")
    asked.clear()
    page.wait_for_timeout(3000)
    assert len(asked) <= 3, asked
    assert all(url.endswith("/v1/stats") for url in asked), asked
    page.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", { value: true, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    asked.clear()
    page.wait_for_timeout(2500)
    assert asked == []
    page.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", { value: false, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    bulkhead.cli("rm", "-f", "worker")
    expect(page.get_by_role("row", name="worker")).to_have_count(0)


def test_a_daemon_that_restarts_is_found_again(page: Page, bulkhead: Daemon, provoked: list[str]) -> None:
    provoked.append("net::ERR_")
    run(bulkhead, "worker")
    go(page, "/instances")
    expect(page.get_by_role("row", name="worker")).to_contain_text("running")
    bulkhead.stop()
    expect(page.get_by_text("The daemon does not answer.")).to_be_visible()
    bulkhead.start()
    expect(page.get_by_text("The daemon does not answer.")).to_be_hidden()
    bulkhead.cli("rm", "-f", "worker")
    expect(page.get_by_role("row", name="worker")).to_have_count(0)
