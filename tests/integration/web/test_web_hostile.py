"""The web page in Chromium: what strangers say stays text, and a tenant sees its own things alone."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.harness.daemon import Daemon
from tests.integration.web.pages import PORT, go, over_tcp, run, token_of

ATTACK = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def test_nothing_that_an_instance_says_becomes_markup(page: Page, bulkhead: Daemon, busybox_tar: Path) -> None:
    label = f"evil={ATTACK}"
    script = (
        f"echo '{ATTACK}'; printf '\\033]0;{ATTACK}\\007\\033[31mred\\033[0m\\n'; echo '{ATTACK}' >&2; exec sleep 1000"
    )
    bulkhead.cli(
        "image", "import", "--change", f'LABEL a="{ATTACK}"', "--change", f'CMD echo "{ATTACK}"', busybox_tar, "evil"
    )
    run(bulkhead, "hostile", "--label", label, "-e", f"A={ATTACK}", script=script)
    bulkhead.cli("snapshot", "create", "hostile", "one")
    for tab in ("", "/limits", "/events", "/snapshots"):
        go(page, f"/instances/hostile{tab}")
        expect(page.get_by_role("heading", name="hostile")).to_be_visible()
    go(page, "/create")
    page.get_by_label("Image").select_option("evil:latest")
    go(page, "/instances/hostile/record")
    expect(page.locator("pre")).to_contain_text("<img src=x")
    go(page, "/instances/hostile")
    expect(page.get_by_text(label)).to_be_visible()
    go(page, "/instances/hostile/logs")
    expect(page.get_by_role("log").get_by_text(ATTACK)).to_have_count(2)
    expect(page.get_by_role("log").get_by_text("red", exact=True)).to_have_count(1)
    go(page, f"/instances/{ATTACK.replace('/', '%2F')}")
    expect(page.get_by_role("heading", name="There is no instance")).to_contain_text(ATTACK)
    assert page.locator("img, script:not([src]), #app script").count() == 0
    bulkhead.cli("rm", "-f", "hostile")
    bulkhead.cli("image", "rm", "evil")


def test_the_policy_holds_against_what_gets_in(page: Page, provoked: list[str]) -> None:
    """Even markup that found a way in would run nothing, style nothing and send nothing."""
    provoked.append("Content Security Policy")
    ran = page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            return new Promise((resolve) => {
                document.addEventListener("securitypolicyviolation", () => resolve("refused"));
                setTimeout(() => resolve(String(window.ran)), 2000);
                document.body.append(Object.assign(document.createElement("img"), { src: "http://192.0.2.1/x" }));
            });
        }"""
    )
    assert ran == "refused"
    assert page.evaluate("window.ran") is None


def test_a_tenant_signs_in_and_sees_its_own_things_alone(fresh: Page, bulkhead: Daemon, provoked: list[str]) -> None:
    provoked += ["status of 401", "status of 403"]
    token = token_of(bulkhead, "acme", "ann")
    theirs = token_of(bulkhead, "umbrella", "bob")
    assert bulkhead.api("POST", "/v1/images/public", {"reference": "busybox", "public": True}).status == 200
    over_tcp(bulkhead, theirs, "/v1/volumes", {"name": "zeppelin-data", "size": 64 << 20})
    request = {"image": "busybox", "plan": {"name": "small"}, "command": ["sleep", "1000"]}

    def make(tenant: str, name: str) -> str:
        body = {**request, "name": name, "tenant": tenant}
        answer = bulkhead.api("POST", "/v1/instances?start=true", body)
        assert answer.status == 201, answer
        return str(answer.body["spec"]["id"])

    mine, other = make("acme", "shop"), make("umbrella", "zeppelin")
    page, asked = fresh, list[str]()
    page.on("request", lambda one: asked.append(one.url))
    page.on("websocket", lambda one: asked.append(one.url))
    page.goto(f"http://127.0.0.1:{PORT}/")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("Token").fill(f"{token[:-4]}AAAA")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="acme")).to_be_visible()
    expect(page.get_by_text("tenant of acme")).to_be_visible()
    expect(page.get_by_role("link", name="Tenants")).to_have_count(0)

    views = (
        "/",
        "/instances",
        "/images",
        "/networks",
        "/volumes",
        "/snapshots",
        "/plans",
        "/events",
        "/usage",
        "/create",
    )
    for view in (*views, "/tenants", f"/instances/{other}", "/instances/umbrella@zeppelin", "/instances/shop"):
        go(page, view)
        expect(page.locator("h1, h2").first).to_be_visible()
        expect(page.get_by_text("Loading…")).to_have_count(0)
        words = page.locator(".content").inner_text().replace("There is no instance umbrella@zeppelin", "")
        assert "umbrella" not in words and "zeppelin" not in words, f"{view}: {words}"
    go(page, "/instances")
    later = make("umbrella", "zeppelin-later")
    own = make("acme", "shop-later")
    expect(page.get_by_role("row", name="shop-later")).to_be_visible()
    assert "zeppelin" not in page.content()

    go(page, "/instances/shop/terminal")
    expect(page.locator(".xterm-rows")).to_contain_text("#")
    page.keyboard.type("echo $((6*7))-here\n")
    expect(page.locator(".xterm-rows")).to_contain_text("42-here")
    assert any(url.startswith("ws://") for url in asked)
    kept = page.evaluate("JSON.stringify([Object.entries(localStorage), document.cookie])")
    assert token not in kept and "bhd_" not in kept, "a token outlives the tab"
    assert not [url for url in asked if token in url or "bhd_" in url], "a token is in an address"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    for identifier in (mine, other, later, own):
        assert bulkhead.api("DELETE", f"/v1/instances/{identifier}?force=true").status == 200
    assert bulkhead.api("DELETE", "/v1/volumes/umbrella@zeppelin-data").status == 204
    for tenant, user in (("acme", "ann"), ("umbrella", "bob")):
        assert bulkhead.api("DELETE", f"/v1/users/{user}").status == 204
        assert bulkhead.api("DELETE", f"/v1/tenants/{tenant}").status == 204
