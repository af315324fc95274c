"""What is changed from the web page: plans and their prices, walls; audits, groups, tenants' things."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from bulkhead.metering.prices import UNIT_NAMES
from tests.harness.daemon import Daemon
from tests.integration.web.pages import go, run
from tests.integration.web.test_web_charts import in_page


def test_a_plan_is_changed_with_its_price_before_and_after(page: Page, bulkhead: Daemon, provoked: list[str]) -> None:
    provoked.append("status of 4")
    if bulkhead.api("GET", "/v1/plans/wide").status != 200:
        bulkhead.cli("plan", "create", "wide", "--memory", "96M", "--cpus", "1", "--disk", "64M", "--pids", "77")
    run(bulkhead, "grower", "--plan", "small")
    go(page, "/plans")
    page.get_by_role("button", name="Set a price").first.click()
    dialog = page.get_by_role("dialog")
    for plan, amount in (("small", "5.00"), ("wide", "8.50")):
        if plan == "wide":
            page.get_by_role("button", name="Set a price").first.click()
        dialog.get_by_label("Amount").fill(amount)
        dialog.get_by_label("Currency").fill("eur")
        dialog.get_by_label("Plan").select_option(plan)
        dialog.get_by_role("button", name="Set the price").click()
        expect(dialog).to_have_count(0)
    prices = page.get_by_role("region", name="Prices")
    expect(prices.get_by_role("row", name="wide")).to_contain_text("€8.50")

    go(page, "/instances/grower")
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(dialog.get_by_role("status")).to_contain_text("Nothing is changed yet.")
    dialog.get_by_role("button", name="Change the plan").click()
    expect(dialog.get_by_role("alert")).to_contain_text("nothing is changed")
    dialog.get_by_label("Memory").fill("plenty")
    dialog.get_by_label("Processes").fill("many")
    dialog.get_by_role("button", name="Change the plan").click()
    expect(dialog.get_by_role("alert").locator("li")).to_have_count(2)
    dialog.get_by_label("Plan").select_option("wide")
    expect(dialog.get_by_role("status")).to_contain_text("Memory: 64 MiB → 96 MiB")
    expect(dialog.get_by_role("status")).to_contain_text("Price: €5.00 a month → €8.50 a month")
    dialog.get_by_label("Processes").fill("55")
    dialog.get_by_role("button", name="Change the plan").click()
    expect(page.get_by_text("grower has another plan.")).to_be_visible()
    spec = bulkhead.api("GET", "/v1/instances/grower").body["spec"]
    assert (spec["plan"]["memory"], spec["plan"]["pids"]) == (96 << 20, 55)
    expect(page.locator(".chart", has_text="Memory").locator(".now")).to_contain_text("of 96 MiB")

    go(page, "/plans")
    taking = prices.get_by_role("button", name=re.compile("^Take back"))
    for left in (1, 0):
        taking.first.click()
        dialog.get_by_role("button", name="Take it back").click()
        expect(dialog).to_have_count(0)
        expect(taking).to_have_count(left)  # the list is asked for again, and what it showed before is gone
    expect(page.get_by_role("heading", name="No price is set")).to_be_visible()
    assert bulkhead.api("GET", "/v1/prices").body == []


def test_the_page_knows_every_unit_of_a_price(page: Page) -> None:
    assert set(in_page(page, "tariff", "Object.keys(it.UNITS)")) == set(UNIT_NAMES)


def test_an_instance_is_moved_to_another_wall_and_the_report_shown(page: Page, bulkhead: Daemon) -> None:
    run(bulkhead, "mover", "--isolation", "chroot", script="echo kept > /kept; exec sleep 1000")
    go(page, "/instances/mover")
    page.get_by_role("button", name="Move").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("container", exact=True).first.click()
    dialog.get_by_role("button", name="Move it").click()
    expect(page.get_by_role("heading", name="mover is behind another wall")).to_be_visible(timeout=120_000)
    for words in ("chroot", "container", "Not answering for", "handed over as it was"):
        expect(dialog).to_contain_text(words)
    dialog.get_by_role("button", name="Close").click()
    assert bulkhead.api("GET", "/v1/instances/mover").body["spec"]["isolation"] == "container"
    expect(page.locator(".head .wall")).to_have_text("container")
    assert bulkhead.cli("exec", "mover", "cat", "/kept").stdout == "kept\n"


def test_an_audit_tells_the_score_and_what_is_reachable(page: Page, bulkhead: Daemon) -> None:
    run(bulkhead, "looked-at", script="sleep 1000")
    go(page, "/instances/looked-at/audit")
    page.get_by_role("button", name="Audit", exact=True).click()
    expect(page.locator(".score")).to_have_text(re.compile(r"^\d+ of 100$"), timeout=120_000)
    expect(page.get_by_role("region", name="Findings").get_by_role("row")).not_to_have_count(1)
    expect(page.get_by_role("heading", name="What it costs")).to_be_visible()
    expect(page.get_by_role("region", name="System calls")).to_contain_text("x86_64")
    expect(page.get_by_role("region", name="Exploits")).to_contain_text("CVE-")


def test_what_a_compose_file_has_made_is_a_group(page: Page, bulkhead: Daemon) -> None:
    for service in ("db", "front"):
        labels = [f"bulkhead.compose.project=shop<b>,bulkhead.compose.service={service}".split(",")]
        run(bulkhead, f"shop-{service}", *(word for pair in labels for label in pair for word in ("--label", label)))
    run(bulkhead, "alone")
    go(page, "/instances")
    head = page.locator("tr.group")
    expect(head).to_have_count(1)
    expect(head).to_contain_text("shop<b>")
    expect(head).to_contain_text("2 services, all running")
    expect(page.locator("tr.group + tr.member + tr.member")).to_have_count(1)
    bulkhead.cli("stop", "-t", "0", "shop-db")
    expect(head).to_contain_text("1 of 2 running")
    head.get_by_role("button").click()
    expect(page.get_by_role("row", name="shop-db")).to_have_count(0)
    expect(page.get_by_role("row", name="alone")).to_be_visible()
    head.get_by_role("button").press("Enter")
    expect(page.get_by_role("row", name="shop-db")).to_be_visible()


def test_whoever_sees_all_makes_a_tenant_s_things_and_looks_at_one(page: Page, bulkhead: Daemon) -> None:
    assert bulkhead.api("POST", "/v1/tenants", {"name": "acme"}).status == 201
    bulkhead.cli("volume", "create", "mine")
    dialog = page.get_by_role("dialog")
    for view, name in (("volumes", "theirs"), ("networks", "lan")):
        go(page, f"/{view}?tenant=acme")
        chosen = page.get_by_label("Tenant", exact=True)
        expect(chosen).to_have_value("acme")
        page.get_by_role("button", name="Create", exact=True).first.click()
        expect(dialog.get_by_label("Tenant")).to_have_value("acme")
        dialog.get_by_label("Name").fill(name)
        dialog.get_by_role("button", name="Create").click()
        expect(page.get_by_role("row", name=name)).to_contain_text("acme")
        expect(page.get_by_role("row", name="mine")).to_have_count(0)
        assert name in [each["name"] for each in bulkhead.api("GET", f"/v1/{view}?tenant=acme").body]
        assert name not in [each["name"] for each in bulkhead.api("GET", f"/v1/{view}?tenant=default").body]
        if view == "volumes":
            chosen.select_option("")
            expect(page.get_by_role("row", name="mine")).to_be_visible()
        page.get_by_role("button", name=f"Delete {name}").click()
        dialog.get_by_role("button", name=f"Delete {name}").click()
        expect(page.get_by_role("row", name=name)).to_have_count(0)
    refused = bulkhead.api("POST", "/v1/volumes", {"name": "lost", "tenant": "nobody"})
    assert refused.status == 404, refused
    for network in bulkhead.api("GET", "/v1/networks?tenant=acme").body:
        bulkhead.api("DELETE", f"/v1/networks/acme@{network['name']}")
    assert bulkhead.api("DELETE", "/v1/tenants/acme").status == 204
    bulkhead.cli("volume", "rm", "mine")
