"""The web page in Chromium: a life, hostile words, the keyboard alone, and no message in the console."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.conftest import DAEMON_NEEDS
from tests.harness.abilities import require
from tests.harness.browser import CHROMIUM, chromium, forwarded
from tests.harness.daemon import Daemon
from tests.harness.namespaces import in_network
from tests.integration.lives import PLAN, state, until, with_image

AXE = Path(__file__).parents[2] / "src/bulkhead/web/node_modules/axe-core/axe.min.js"
SECONDS = 30_000
TALKER = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done"
PORT = 8443
ATTACK = "<img src=x onerror=alert(1)><script>alert(2)</script>"


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
def page_of(module_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, str]]:
    """A browser and the page's address."""
    require(CHROMIUM)
    expect.set_options(timeout=SECONDS)
    with ExitStack() as stack:
        browser = stack.enter_context(chromium(module_daemon, tmp_path_factory.mktemp("browser")))
        address = stack.enter_context(forwarded(module_daemon))
        # With its first page it starts processes that it keeps, which are no leak of the first test's.
        first = browser.new_page()
        first.goto(address)
        expect(first.get_by_role("heading", name="Overview")).to_be_visible()
        first.close()
        yield browser, address


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
def page(bulkhead: Daemon, page_of: tuple[Browser, str], provoked: list[str]) -> Iterator[Page]:
    """The page, opened. Whatever else the browser has to say about it fails the test."""
    browser, address = page_of
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(SECONDS)
    said = listen(context)
    page = context.new_page()
    page.goto(address)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    yield page
    context.close()
    unasked = [line for line in said if not any(words in line for words in provoked)]
    assert not unasked, "\n".join(unasked)


def listen(context: BrowserContext) -> list[str]:
    """What the browser's console will have said, errors of scripts and dialogs included."""
    said: list[str] = []
    context.on("console", lambda message: said.append(f"{message.type}: {message.text} {message.location}"))
    context.on("weberror", lambda error: said.append(str(error.error)))
    context.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    return said


def run(daemon: Daemon, name: str, *options: str, script: str = TALKER) -> str:
    """An instance that runs; its id."""
    return daemon.cli("run", "-d", "--name", name, *PLAN, *options, "busybox", "sh", "-c", script).stdout.strip()


def go(page: Page, where: str) -> None:
    """Another view."""
    page.evaluate("where => { location.hash = where; }", where)


# --- a life


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
    expect(page.get_by_role("row", name="small")).to_contain_text("€5.00 a month")
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


# --- what is shown is text


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


# --- everybody can use it


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
    more = ("/images", "/networks", "/volumes", "/snapshots", "/plans", "/events", "/usage", "/audit", "/tenants")
    found, axe = [], AXE.read_text()
    for view in (*views, *more):
        go(page, view)
        expect(page.locator("h1")).to_be_visible()
        expect(page.get_by_text("Loading…")).to_have_count(0)
        page.evaluate(axe)  # by the debugger, which the page's policy does not judge
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
    for view in ("/", "/instances", "/create", "/images", "/networks", "/events", "/plans", "/usage"):
        go(page, view)
        expect(page.locator("h1")).to_be_visible()
        expect(page.get_by_text("Loading…")).to_have_count(0)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{view} is {wide} pixels too wide"
    expect(page.get_by_role("link", name="Volumes")).to_have_count(0)
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Volumes").click()
    expect(page.get_by_role("heading", name="Volumes")).to_be_visible()


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


# --- tenants


def token_of(daemon: Daemon, tenant: str, user: str) -> str:
    """A token of a new user of a new tenant."""
    assert daemon.api("POST", "/v1/tenants", {"name": tenant}).status == 201
    assert daemon.api("POST", "/v1/users", {"name": user, "role": "tenant", "tenant": tenant}).status == 201
    return str(daemon.api("POST", "/v1/tokens", {"user": user}).body["token"])


def over_tcp(daemon: Daemon, token: str, path: str, body: object) -> None:
    """Make something as whoever has the token."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    namespace = f"/proc/{daemon.sandbox.pid}/ns/net"
    connection.sock = in_network(namespace, lambda: socket.create_connection(("127.0.0.1", PORT), timeout=60))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
    finally:
        connection.close()


def test_a_tenant_signs_in_and_sees_its_own_things_alone(
    page_of: tuple[Browser, str], bulkhead: Daemon, busybox_tar: Path
) -> None:
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
    context = page_of[0].new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(SECONDS)
    said, asked = listen(context), list[str]()
    page = context.new_page()
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
    assert not [url for url in asked if token in url or "bhd_" in url], "a token is in an address"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    context.close()
    unasked = [line for line in said if "status of 401" not in line and "status of 403" not in line]
    assert not unasked, "\n".join(unasked)
    for identifier in (mine, other, later, own):
        assert bulkhead.api("DELETE", f"/v1/instances/{identifier}?force=true").status == 200
    assert bulkhead.api("DELETE", "/v1/volumes/umbrella@zeppelin-data").status == 204
    for tenant, user in (("acme", "ann"), ("umbrella", "bob")):
        assert bulkhead.api("DELETE", f"/v1/users/{user}").status == 204
        assert bulkhead.api("DELETE", f"/v1/tenants/{tenant}").status == 204
