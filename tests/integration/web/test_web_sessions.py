"""The web page in Chromium when a token ends, another one signs in, answers are slow, and there is much to show."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.harness.daemon import Daemon
from tests.integration.web.pages import PORT, connected, go, run, token_of

PLACE = f"http://127.0.0.1:{PORT}/"
MANY = 200
DAY = 3000
"""Events."""


@contextmanager
def customer(daemon: Daemon, tenant: str, user: str) -> Iterator[str]:
    """A tenant with an instance called as its user; a token of his."""
    with ExitStack() as stack:
        token = token_of(daemon, tenant, user)
        stack.callback(daemon.api, "DELETE", f"/v1/tenants/{tenant}")
        stack.callback(daemon.api, "DELETE", f"/v1/users/{user}")
        assert daemon.api("POST", "/v1/images/public", {"reference": "busybox", "public": True}).status == 200
        body = {"image": "busybox", "plan": {"name": "small"}, "command": ["sleep", "1000"], "name": f"of-{user}"}
        made = daemon.api("POST", "/v1/instances?start=true", {**body, "tenant": tenant})
        assert made.status == 201, made
        stack.callback(daemon.api, "DELETE", f"/v1/instances/{made.body['spec']['id']}?force=true")
        yield token


def sign_in(page: Page, token: str) -> None:
    """At the page's gate."""
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def test_a_token_that_ends_asks_for_another(fresh: Page, bulkhead: Daemon, provoked: list[str]) -> None:
    """In the middle of a dialog: it says why, and whoever signs in again is where he was."""
    provoked.append("status of 401")  # the browser's own words for an answer that the page is to get
    page = fresh
    with customer(bulkhead, "acme", "ann") as token:
        page.goto(PLACE)
        sign_in(page, token)
        go(page, "/instances")
        row = page.get_by_role("row", name="of-ann")
        expect(row).to_contain_text("running")
        row.get_by_role("button", name="Delete of-ann").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        (kept,) = (one for one in bulkhead.api("GET", "/v1/tokens").body if one["user"] == "ann")
        assert bulkhead.api("DELETE", f"/v1/tokens/{kept['id']}").status == 204
        expect(page.get_by_text("Your token is no longer good: it was removed, or has expired.")).to_be_visible()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(page.get_by_label("Token")).to_be_focused()
        assert page.evaluate("sessionStorage.length") == 0
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(3000)
        assert asked == [], "nobody is signed in, and it asks"
        sign_in(page, str(bulkhead.api("POST", "/v1/tokens", {"user": "ann"}).body["token"]))
        expect(row).to_contain_text("running")


@pytest.mark.parametrize("path", ["/v1/events?follow=true", "/v1/instances/of-ann/logs?follow=true"])
def test_what_a_token_has_opened_ends_with_it(bulkhead: Daemon, path: str) -> None:
    with customer(bulkhead, "acme", "ann") as token, ExitStack() as stack:
        connection = connected(bulkhead)
        stack.callback(connection.close)
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200
        (kept,) = (one for one in bulkhead.api("GET", "/v1/tokens").body if one["user"] == "ann")
        assert bulkhead.api("DELETE", f"/v1/tokens/{kept['id']}").status == 204
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):  # cut, and not at its end
            answer.read()


def test_who_signs_in_next_sees_nothing_of_who_was_before(fresh: Page, bulkhead: Daemon) -> None:
    """Also where an answer to the one comes when the other is there."""
    page, held = fresh, list[Route]()
    with customer(bulkhead, "acme", "ann") as anns, customer(bulkhead, "umbrella", "bob") as bobs:
        page.goto(PLACE)
        sign_in(page, anns)
        go(page, "/instances")
        expect(page.get_by_role("row", name="of-ann")).to_be_visible()
        page.route("**/v1/instances", lambda route: held.append(route))  # noqa: PLW0108 - it wants a function
        assert bulkhead.api("POST", "/v1/instances/acme@of-ann/pause").status == 200
        wait(page, held, 1)
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_text("You are signed out.")).to_be_visible()
        sign_in(page, bobs)
        wait(page, held, 2)
        with page.expect_response("**/v1/instances") as answered:
            held[0].continue_()
        assert "of-ann" in answered.value.text()
        page.wait_for_timeout(500)
        expect(page.get_by_text("Loading…")).to_be_visible()
        expect(page.get_by_text("of-ann")).to_have_count(0)
        held[1].continue_()
        expect(page.get_by_role("row", name="of-bob")).to_be_visible()
        expect(page.get_by_text("of-ann")).to_have_count(0)
        page.unroute_all(behavior="ignoreErrors")
        page.get_by_role("button", name="Sign out").click()  # before his token ends
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def wait(page: Page, held: list[Route], count: int) -> None:
    """Until so many requests are held."""
    for _ in range(600):
        if len(held) >= count:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{len(held)} requests, not {count}")


@pytest.fixture
def slow(page: Page) -> Iterator[Page]:
    """A page whose every answer takes a second and a half more."""
    session = page.context.new_cdp_session(page)
    calm = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", {**calm, "latency": 1500})
    yield page
    session.send("Network.emulateNetworkConditions", calm)
    session.detach()


def test_slow_answers_come_where_they_belong(slow: Page, bulkhead: Daemon) -> None:
    """What is on its way when another view is opened is not shown there; a button works once."""
    run(bulkhead, "worker")
    for view in ("/images", "/networks", "/volumes", "/secrets", "/snapshots", "/plans", "/instances"):
        go(slow, view)  # faster than any of them answers
    expect(slow.get_by_role("heading", name="Instances")).to_be_visible()
    row = slow.get_by_role("row", name="worker")
    expect(row).to_contain_text("of 64 MiB")
    stopping = row.get_by_role("button", name="Stop worker")
    with slow.expect_request(lambda request: request.method == "POST"):
        stopping.click()
    expect(stopping).to_be_disabled()
    expect(row).to_contain_text("exited")
    go(slow, "/volumes")
    expect(slow.get_by_text("Loading…")).to_be_visible()
    expect(slow.get_by_role("heading", name="Volumes")).to_be_visible()
    expect(slow.get_by_text("Loading…")).to_have_count(0)
    slow.get_by_role("button", name="Create").first.click()
    slow.get_by_label("Name", exact=True).fill("slowly")
    create = slow.get_by_role("dialog").get_by_role("button", name="Create")
    create.click()
    expect(create).to_be_disabled()
    expect(slow.get_by_role("row", name="slowly")).to_be_visible()
    bulkhead.cli("volume", "rm", "slowly")
    bulkhead.cli("rm", "-f", "worker")


def test_many_instances_and_a_busy_day(page: Page, bulkhead: Daemon) -> None:
    """Two hundred rows, and as many events as a day has: the list can be searched, and is not drawn for each event."""
    identifier = run(bulkhead, "worker")
    one = bulkhead.api("GET", f"/v1/instances/{identifier}").body
    usage = bulkhead.api("GET", "/v1/stats").body[0]
    many = [copied(one, number) for number in range(MANY)]
    figures = [{**usage, "id": each["spec"]["id"], "name": each["spec"]["name"]} for each in many]
    day = [happened(many[number % MANY], one["spec"]["created"] + 60 + number / 1000) for number in range(DAY)]
    page.route("**/v1/instances", lambda route: route.fulfill(json=many))
    page.route("**/v1/stats", lambda route: route.fulfill(json=figures))
    body = "".join(day)
    page.route("**/v1/events?*", lambda route: route.fulfill(content_type="application/x-ndjson", body=body))
    go(page, "/events")
    page.evaluate(
        """() => {
            window.drawn = 0;
            const rows = ({ target }) => target.tagName === "TBODY";
            new MutationObserver((changes) => { window.drawn += changes.some(rows); })
                .observe(document.body, { childList: true, subtree: true });
        }"""
    )
    page.evaluate(
        """() => {
            for (const hidden of [true, false]) {
                Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
                document.dispatchEvent(new Event("visibilitychange"));
            }
        }"""
    )
    expect(page.get_by_text("300 events")).to_be_visible()
    assert page.evaluate("window.drawn") < 100, "it is drawn for each event"
    go(page, "/instances")
    expect(page.get_by_text(f"{MANY} instances")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(MANY)
    expect(page.locator("tbody tr").last).to_contain_text("of 64 MiB")
    page.get_by_label("Find instances").fill("worker-199")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Find instances").fill("")
    for width, height in ((1280, 860), (360, 740)):
        page.set_viewport_size({"width": width, "height": height})
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{wide} pixels too wide at {width}"
    page.unroute_all(behavior="ignoreErrors")
    bulkhead.cli("rm", "-f", "worker")


def copied(one: dict[str, Any], number: int) -> dict[str, Any]:
    """Another instance like it."""
    spec = {**one["spec"], "id": f"{number:032x}", "name": f"worker-{number}"}
    return {**one, "spec": {**spec, "created": spec["created"] - number}}


def happened(instance: dict[str, Any], when: float) -> str:
    """A line of the events' stream."""
    spec = instance["spec"]
    event = {"when": when, "kind": "instance", "action": "start", "id": spec["id"], "name": spec["name"]}
    return json.dumps({**event, "attributes": {}}) + "\n"
